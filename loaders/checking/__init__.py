"""Check a data set for faults: all of it (`python -m tools.verify`) or a sample (`python data.py`)."""
