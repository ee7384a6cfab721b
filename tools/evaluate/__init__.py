"""The parts of tools.evaluate: what is evaluated, a pass over the images, its figures, and what it leaves behind."""
