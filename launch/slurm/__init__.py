"""SLURM: `python -m launch.slurm` prints or submits the job that trains on N nodes of M GPUs."""
