"""What surrounds the training loop: devices, checkpoints, the record a run leaves, progress, guards."""
