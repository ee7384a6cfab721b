"""Everything around the training loop: devices, checkpoints, the run folder, progress, guards."""
