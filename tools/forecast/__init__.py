"""The parts of tools.forecast: what a run consists of, what its pieces take here, and what that makes in all."""
