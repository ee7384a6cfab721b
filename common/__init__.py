"""Shared basics: errors, durations, terminal output, atomic files, exit statuses. Imports no other package of ours."""
