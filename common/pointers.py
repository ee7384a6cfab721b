"""Files that stand for large ones in a repository."""

from pathlib import Path

POINTER = "is a pointer of Git LFS, not the file; type git lfs pull where it was cloned"
_START = b"version https://git-lfs"


def is_pointer(path: Path) -> bool:
    """Whether a file is such a pointer of Git LFS."""
    with path.open("rb") as file:
        return file.read(len(_START)) == _START
