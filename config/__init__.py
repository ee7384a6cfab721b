"""The configuration of a run: schema, merging of layers and validation. Imports no torch."""

from common.errors import ConfigError, DataError, TrainingError, UserError
from config.checks import check_world
from config.load import complete, load
from config.run import Machine, Run, durations_of
from loaders.storage.digits import is_made_on_demand

__all__ = [
    "ConfigError",
    "DataError",
    "Machine",
    "Run",
    "TrainingError",
    "UserError",
    "check_world",
    "complete",
    "durations_of",
    "is_made_on_demand",
    "load",
]
