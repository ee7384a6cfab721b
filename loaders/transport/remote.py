"""Read or download one file of a data set, from a store or a folder."""

import errno
import os
import stat
import tempfile
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
    """Whether a path names a store (`s3://...`) and not a folder; raises a DataError if a slash is missing."""
    if meant := address_meant(path):
        raise DataError(f"{path}: is neither an address nor a folder; did you mean {meant}?")
    return "://" in path


def join(folder: str, *names: str) -> str:
    """Join a path below a folder, of a store or of a disk; empty names are skipped."""
    return "/".join([folder.removesuffix("/"), *filter(None, names)])


def read(address: str) -> bytes:
    """Return the contents of a small file of a store or a folder; raises a DataError if it cannot be read."""
    if not is_remote(address):
        return b"".join(_chunks(address))
    with tempfile.TemporaryDirectory() as folder:  # a complete cache folder may be read-only
        copy = Path(folder, "file")
        download(address, copy)
        return copy.read_bytes()


def download(
    remote: str,
    local: Path,
    check: Check | None = None,
    size: int | None = None,
    part: Path | None = None,
    tag: str = "",
) -> None:
    """Copy one file, whole or not at all; a damaged one is fetched once more.

    Args:
        remote: path or address of the file.
        local: path of the copy.
        check: raises Damaged if the file at a temporary path is damaged; may unpack it there.
        size: bytes, if known; no more are read from S3 and folders.
        part: the temporary path, on the same file system; a new one if None.
        tag: the ETag that an object of S3 must have; empty for any.

    Raises:
        DataError: the file could not be fetched.
    """
    try:
        local.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(local, part) as copy:
            try:
                _copy(remote, copy, check, size, tag)
            except Damaged:
                _copy(remote, copy, check, size, tag)
    except DataError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _UNWRITABLE:
            raise unwritable(error, local.parent, remote) from error
        raise fault(error, remote) from error


def _copy(remote: str, part: Path, check: Check | None, size: int | None, tag: str) -> None:
    """Fetch a file to its temporary path, and check it. Streaming downloads from stores other than S3 (gs://, oci://)."""
    if is_s3(remote):
        with part.open("wb") as out:
            copy_object(remote, out, size, tag=tag)
    elif is_remote(remote):
        if problem := cut_off(remote):
            raise DataError(problem)
        from streaming.base.storage.download import CloudDownloader

        part.unlink(missing_ok=True)  # a damaged file would be taken for the download
        CloudDownloader.direct_download(remote, str(part))
    else:
        with part.open("wb") as out:
            out.writelines(within(size, _chunks(remote)))
    if check:
        check(part)


def _chunks(path: str) -> Iterator[bytes]:
    """Yield a file on disk in chunks; errors of reading become DataErrors here, so that they differ from the copy's."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise FileNotFoundError(path)  # reading a pipe or a device would never end
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
    except OSError as error:
        raise fault(error, path) from error


def unwritable(error: OSError, folder: Path, what: str) -> DataError:
    """Return the error for a file that could not be written into a cache folder."""
    return DataError(
        f"{without_credentials(what)}: cannot be copied to {folder} ({error.strerror}). "
        "Free some space there if it is full, or set another cache folder: train_dataset.local=FOLDER "
        "eval_dataset.local=FOLDER."
    )
