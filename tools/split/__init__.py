"""Split a folder of classes into train/ and val/, near-duplicates on one side."""
