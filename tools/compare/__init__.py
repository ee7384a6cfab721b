"""Whether one group of runs is better than another."""
