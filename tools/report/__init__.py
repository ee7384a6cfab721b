"""The report of runs: what it says, its charts, and its two forms."""
