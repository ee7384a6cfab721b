"""SLURM: `python -m launch.slurm` prints or submits a training job for N nodes of M GPUs."""
