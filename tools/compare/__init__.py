"""Compare two groups of runs."""
