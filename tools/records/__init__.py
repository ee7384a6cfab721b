"""Read back what runs left behind: records, groups of repeated runs, their figures and what they cost."""
