"""Files and folders that are replaced completely or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path


def temporary_name(path: Path) -> Path:
    """Return a hidden name next to `path` that no other writer uses."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")


@contextlib.contextmanager
def whole_file(path: Path, temporary: Path | None = None, *, durable: bool = False) -> Iterator[Path]:
    """Let the block write a temporary file, which replaces `path` if the block succeeds and is removed if it fails.

    Args:
        path: the file to replace; a link is replaced, not followed.
        temporary: the name to write under, on the same file system; a new one if None.
        durable: see `move`.
    """
    temporary = temporary or temporary_name(path)
    try:
        yield temporary
        move(temporary, path, durable)
    finally:
        with contextlib.suppress(OSError):  # the block's own error matters more
            temporary.unlink()


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Let the block fill a temporary folder, which becomes `path` if the block succeeds and is removed if it fails.

    OSError if `path` is then neither missing nor empty, such as when another process was first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _temporary_folder(path) as temporary:
        yield temporary
        temporary.chmod(0o755)  # tempfile makes it private
        os.rename(temporary, path)


@contextlib.contextmanager
def whole_group(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """Let the block write files that belong together to a temporary folder, from which they move to `folder`.

    Those of `names` that the block does not write are removed there; others stay. If the block fails, nothing changes.
    The last name stands for all: an interrupted move leaves no such file.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _temporary_folder(folder / names[-1]) as temporary:
            yield temporary
            for name in reversed(names):
                (folder / name).unlink(missing_ok=True)
            for name in names:
                if (temporary / name).exists():
                    os.rename(temporary / name, folder / name)
    finally:
        with contextlib.suppress(OSError):  # it holds something
            folder.rmdir()


@contextlib.contextmanager
def _temporary_folder(path: Path) -> Iterator[Path]:
    # Errors are ignored, because it may have been renamed.
    with tempfile.TemporaryDirectory(".tmp", f".{path.name}.", path.parent, ignore_cleanup_errors=True) as temporary:
        yield Path(temporary)


def move(temporary: Path, path: Path, durable: bool) -> None:
    """Replace `path` with a finished file; if `durable`, it is complete even after a power failure."""
    if durable:
        _sync(temporary)
    os.replace(temporary, path)
    if durable:
        with contextlib.suppress(OSError):  # some network file systems cannot sync a folder
            _sync(path.parent)


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file of the user's: its permissions stay, and a link to it stays a link."""
    path = path.resolve()
    exists = path.exists()
    with whole_file(path) as temporary:
        temporary.touch(0o600 if exists else 0o666)  # its content may be private
        temporary.write_bytes(content)
        if exists:
            shutil.copymode(path, temporary)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
