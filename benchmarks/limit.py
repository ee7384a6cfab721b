"""The speed limit of any decoder with libjpeg-turbo's exact pixels: limit.c, compiled on first use."""

from __future__ import annotations

import ctypes
import functools
import os
import shlex
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from common.errors import DataError
from loaders.images.native import View

SOURCE = Path(__file__).with_name("limit.c")
FLAGS = ("-O3", "-std=gnu11", "-ffp-contract=off", "-fPIC", "-fvisibility=hidden", "-pthread", "-shared")
"""As in the Makefile, for the native decoder."""

WIDEST = 1 << 16  # pixels per row of a JPEG


@functools.cache
def _library() -> ctypes.CDLL:
    with tempfile.TemporaryDirectory(prefix="bench-limit-") as folder:
        target = Path(folder) / "limit.so"
        command = [*shlex.split(os.environ.get("CC", "cc")), *FLAGS, "-o", str(target), str(SOURCE), "-ljpeg"]
        try:
            subprocess.run(command, check=True, capture_output=True)
            library = ctypes.CDLL(str(target))  # stays loaded after the file is deleted
        except (OSError, subprocess.CalledProcessError) as error:
            raise DataError(
                "It needs a C compiler and libjpeg-turbo's headers (apt-get install gcc libjpeg62-turbo-dev)."
            ) from error
    pointer = ctypes.c_void_p
    library.decode_box.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int32 * 4, ctypes.c_size_t, pointer]
    return library


class Limit:
    """Decode boxes of JPEGs, writing each row over the previous one.

    Raises:
        DataError: if limit.c cannot be compiled here.
    """

    def __init__(self) -> None:
        self._decode = _library().decode_box
        self._row = np.empty(3 * WIDEST, np.uint8)

    def __call__(self, data: bytes, view: View) -> None:
        """Decode a view's box; raises ValueError if the JPEG is damaged."""
        if not self._decode(data, len(data), (ctypes.c_int32 * 4)(*view[:4]), 0, self._row.ctypes.data):
            raise ValueError("libjpeg-turbo cannot decode this")
