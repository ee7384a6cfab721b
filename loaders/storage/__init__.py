"""Where images are: one module for each kind of storage."""
