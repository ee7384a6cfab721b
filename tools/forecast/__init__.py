"""Forecast the time and the cost of a run: its pieces, timed here, times how often each happens."""
