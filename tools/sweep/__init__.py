"""Sweeps: many runs of one YAML, planned, run one after another, or written down for others to run."""
