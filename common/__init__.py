"""The ground floor: errors, durations, the terminal, whole files, how a program ends. Imports nothing of ours."""
