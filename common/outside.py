"""Names of code from outside this project."""

import re

OUTSIDE = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*")
TIMM = "timm:"  # before the name of a network of timm


def is_outside(name: str) -> bool:
    """Return whether a name is the path of a user's class or function, as in package.module:Class."""
    return OUTSIDE.fullmatch(name) is not None and not name.startswith(TIMM)
