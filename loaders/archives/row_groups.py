"""Images in the row groups of parquet files: one is decoded at once, and kept while the images of it are read."""

from __future__ import annotations

import functools
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.addresses import without_credentials
from common.errors import DataError
from loaders.archives.place import stream

CACHE = 256 << 20  # bytes of decoded row groups in a process, or a single one
LARGEST = 1 << 30  # bytes of a row group
INSTALL = "pip install -c constraints.txt '.[archives]'"


def opened(address: str) -> Any:
    """Return a parquet file, opened once per process; raises a DataError if it is damaged."""
    try:
        return _opened(address)
    except ImportError as error:
        raise DataError(f"{without_credentials(address)}: reading parquet files needs pyarrow: {INSTALL}") from error


@functools.lru_cache(maxsize=64)
def _opened(address: str) -> Any:
    import pyarrow
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(stream(address))
    except (pyarrow.ArrowException, OSError) as error:
        raise damaged(address, error) from error


def damaged(address: str, error: Exception) -> DataError:
    """Return what to say of a file that pyarrow cannot read."""
    what = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
    return DataError(f"{without_credentials(address)}: is not a whole parquet file ({what}). Download it again.")


def column(address: str, group: int, name: str) -> Any:
    """Return a column of a row group, a pyarrow array; `a.b` is a field of a struct."""
    file = opened(address)
    import pyarrow
    from pyarrow import compute

    try:
        values = file.read_row_group(group, columns=[name], use_threads=False).column(0).combine_chunks()
    except (pyarrow.ArrowException, OSError) as error:
        raise damaged(address, error) from error
    for field in name.split(".")[1:]:
        values = compute.struct_field(values, field)
    return values


def listed(address: str, group: int, name: str) -> list[Any]:
    """Return the values of a column of a row group; raises a DataError also for texts that are not UTF-8."""
    try:
        return list(column(address, group, name).to_pylist())
    except UnicodeDecodeError as error:
        where = f"{without_credentials(address)}, row group {group}"
        raise DataError(f"{where}: its column {name} is not text in UTF-8. Write the file again.") from error


@functools.lru_cache(maxsize=1024)
def starts(address: str) -> np.ndarray:
    """Return the first row of each row group of a file, and the number of rows, int64 [groups + 1]."""
    about = opened(address).metadata
    return np.cumsum([0] + [about.row_group(group).num_rows for group in range(about.num_row_groups)])


_cached: OrderedDict[tuple[str, str, int], Any] = OrderedDict()  # the images of row groups, the last used one last


@dataclass(frozen=True)
class RowReader:
    """Read an image, given its row in the file as the offset (a catalog's Reader)."""

    column: str  # `image.bytes`

    def __call__(self, file: str, name: str, row: int, _size: int) -> bytes:
        """Return the image's bytes; raises a DataError if there are none."""
        group = int(np.searchsorted(starts(file), row, side="right")) - 1
        value = self._group(file, group)[row - int(starts(file)[group])].as_py()
        if value is None:
            raise DataError(f"{without_credentials(file)}, {name}: row {row:,} has no image.")
        return bytes(value)

    def _group(self, file: str, group: int) -> Any:
        key = (file, self.column, group)
        if key not in _cached:
            values = column(file, group, self.column)
            while _cached and values.nbytes + sum(one.nbytes for one in _cached.values()) > CACHE:
                _cached.popitem(last=False)
            _cached[key] = values
        _cached.move_to_end(key)
        return _cached[key]
