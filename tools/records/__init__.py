"""Read run folders: records, groups of repeated runs, their figures and their costs."""
