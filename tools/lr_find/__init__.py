"""Find a learning rate: sweep over rates, read the curve by rules, and write the results."""
