"""A data set copied to this machine ahead of a run."""
