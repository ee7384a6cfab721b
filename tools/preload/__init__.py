"""Copy a data set to this machine before training."""
