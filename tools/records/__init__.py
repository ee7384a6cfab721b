"""What runs left behind, read back: records, groups of repeated runs, their figures and what they cost."""

from tools.records.configs import changes, settings
from tools.records.groups import DataSet, Group, Spread, Table, spread, tables
from tools.records.reading import Record, State, read_run, read_runs

__all__ = [
    "DataSet",
    "Group",
    "Record",
    "Spread",
    "State",
    "Table",
    "changes",
    "read_run",
    "read_runs",
    "settings",
    "spread",
    "tables",
]
