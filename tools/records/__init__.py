"""What runs left behind, read back: records, groups of repeated runs, their figures and what they cost."""

from tools.records.configs import changes, settings
from tools.records.cost import Cost, Prices
from tools.records.curves import Curve, over_steps, over_time, seconds_to
from tools.records.groups import DataSet, Group, Spread, Table, data_of, spread, tables
from tools.records.published import Published, for_group, read_published
from tools.records.reading import Record, State, read_run, read_runs

__all__ = [
    "Cost",
    "Curve",
    "DataSet",
    "Group",
    "Prices",
    "Published",
    "Record",
    "Spread",
    "State",
    "Table",
    "changes",
    "data_of",
    "for_group",
    "over_steps",
    "over_time",
    "read_published",
    "read_run",
    "read_runs",
    "seconds_to",
    "settings",
    "spread",
    "tables",
]
