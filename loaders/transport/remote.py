"""Download one file of a data set, from a store or a folder."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from common.addresses import cut_off, is_s3, without_credentials
from common.errors import DataError
from common.s3 import copy_object, within
from common.store_faults import Damaged, fault
from common.suggest import address_meant
from common.whole_files import whole_file

_CHUNK = 1 << 17  # bytes; small, so that others see a slow copy grow
_UNWRITABLE = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR),
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO),
}
Check = Callable[[Path], None]


def is_remote(path: str) -> bool:
    """Whether a path names a store (`s3://...`) and not a folder.

    Raises:
        DataError: it is an address with a slash too few.
    """
    if meant := address_meant(path):
        raise DataError(f"{path}: is neither an address nor a folder; did you mean {meant}?")
    return "://" in path


def join(folder: str, *names: str) -> str:
    """A path below a folder, of a store or of a disk; empty names are skipped."""
    return "/".join([folder.removesuffix("/"), *filter(None, names)])


def download(
    remote: str, local: Path, check: Check | None = None, size: int | None = None, part: Path | None = None
) -> None:
    """Copy one file into the cache, whole or not at all.

    A damaged file is fetched once more. Stores other than S3 (gs://, oci://) are read by Streaming's downloaders.

    Args:
        remote: path or address of the file.
        local: its path in the cache.
        check: raises Damaged if the file that it is given is not the right one; may unpack it.
        size: in bytes, if it is known: of S3 and folders no more is read.
        part: the name to write under until then; a new one if None.

    Raises:
        DataError: the file could not be fetched.
    """
    try:
        local.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(local, part) as copy:
            try:
                _copy(remote, copy, check, size)
            except Damaged:
                _copy(remote, copy, check, size)
    except DataError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _UNWRITABLE:
            raise unwritable(error, local.parent, remote) from error
        raise fault(error, remote) from error


def _copy(remote: str, part: Path, check: Check | None, size: int | None) -> None:
    """Fetch a file under its temporary name, and check it."""
    if is_s3(remote):
        with part.open("wb") as out:
            copy_object(remote, out, size)
    elif is_remote(remote):
        if problem := cut_off(remote):
            raise DataError(problem)
        from streaming.base.storage.download import CloudDownloader

        part.unlink(missing_ok=True)  # what is there, if damaged, would be taken for the download
        CloudDownloader.direct_download(remote, str(part))
    else:
        with part.open("wb") as out:
            for chunk in within(size, _file(remote)):
                out.write(chunk)
    if check:
        check(part)


def _file(path: str) -> Iterator[bytes]:
    """The chunks of a file on disk; its errors differ in type from those of the copy."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise FileNotFoundError(path)  # reading a pipe or a device would never end
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
    except OSError as error:
        raise fault(error, path) from error


def unwritable(error: OSError, folder: Path | str, what: str) -> DataError:
    """Return the error message for a file that could not be written into the cache."""
    return DataError(
        f"{without_credentials(what)}: cannot be copied to {folder} ({error.strerror}). "
        "Free some space there if it is full, or set another cache folder: train_dataset.local=FOLDER "
        "eval_dataset.local=FOLDER."
    )
