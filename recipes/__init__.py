"""What makes one run train differently from another: recipe files, algorithms, optimizers, schedules."""

import config  # noqa: F401  config and recipes need each other: whichever is asked for, config is always first
