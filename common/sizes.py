"""Sizes in bytes: parse 200gb, 1.5tb or 5000000 (powers of 1024, as in mosaicml-streaming), and format MB and GB."""

import re

_UNITS = ("b", "kb", "mb", "gb", "tb")
_SIZE = re.compile(rf"(\d{{1,18}}(?:\.\d+)?)\s*({'|'.join(_UNITS)})?", re.ASCII | re.IGNORECASE)


def bytes_of(size: int | str) -> int:
    """Return a size in bytes; a ValueError if it is not a positive number with or without a unit."""
    match = _SIZE.fullmatch(str(size).strip())
    count = int(float(match[1]) * 1024 ** _UNITS.index((match[2] or "b").lower())) if match else 0
    if count < 1:
        raise ValueError(
            f"{size} is not a number of bytes; write a number and a unit, as in 200gb ({', '.join(_UNITS)})"
        )
    return count


def amount(count: float) -> str:
    """Format a number of bytes in MB or GB (powers of 1000)."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
