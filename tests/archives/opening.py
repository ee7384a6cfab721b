"""Opening a data set in a test: what it holds, or what is said of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import DataError
from loaders.archives.catalog import DataCopy
from loaders.archives.forms import ReadOptions, open_copy


def opened(path: Path, **options: object) -> DataCopy:
    """Open a data set, which must have one of the forms."""
    copy = open_copy(str(path), ReadOptions(**options))  # type: ignore[arg-type]
    assert copy is not None
    return copy


def fault(path: Path, **options: object) -> str:
    """Return what is said of a data set that is at fault."""
    with pytest.raises(DataError) as caught:
        opened(path, **options)
    return str(caught.value)
