"""The report of runs: its content, its charts, and its two forms."""
