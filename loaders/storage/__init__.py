"""Storage kinds, one module each; and `inspection*.py`, which check a data set for faults, whole or in a sample."""
