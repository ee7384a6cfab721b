"""MDS shards through mosaicml-streaming, with every fault raised where it happens.

mosaicml-streaming 0.13 reads the shards. Iterating over its data set, however, ends an epoch early or hangs for ever
when a shard is missing or corrupt, so that only its map-style access is used, and its downloading is replaced by one
that verifies, cleans up after itself and never leaves another process waiting.
"""

import atexit
import contextlib
import glob
import os
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from composer.utils import dist
from streaming import StreamingDataset
from streaming.base.format.base.reader import FileInfo, Reader
from streaming.base.hashing import get_hash
from streaming.base.stream import Stream

from common.errors import DataError
from loaders.storage.leftovers import hold, let_go, opened_blocks
from loaders.storage.shard_index import parse_index
from loaders.transport.decompression import decompressed
from loaders.transport.remote import Damaged, download, join, part_of, unwritable, without_credentials

# streaming.base.dataset._ShardState: values that live in shared memory.
REMOTE, PREPARING, LOCAL = 1, 2, 3
HASHES = ("sha1", "xxh3_64", "xxh64", "xxh128", "sha256", "md5")  # which one is checked, of those that were recorded
STALLED = 8.0  # seconds without a new byte, after which somebody else's download is not waited for
_TICK = 0.01  # seconds


class VerifiedStream(Stream):
    """A folder of shards whose files are whole, of the recorded size and of the recorded hash, or an error.

    Args:
        remote: where the shards are, without the split; None for shards that are in `local` already.
        local: the cache folder, without the split.
        split: `train` or `val`.
    """

    def get_shards(self, world: Any, allow_unsafe_types: bool) -> list[Reader]:  # noqa: ARG002
        """Read the index, and choose the hash to verify with: the best that every shard has.

        Raises:
            DataError: there is nowhere to download from, and a shard is missing or truncated.
        """
        shards = super().get_shards(world, True)  # a column of pickles may be there: ShardFiles does not read it
        if self.remote is None:
            self._check_in_place(shards)
        recorded = [set((zip_info or raw).hashes) for shard in shards for raw, zip_info in shard.file_pairs]
        common = set.intersection(*recorded) if recorded else set()
        self.verified_hash = next((name for name in HASHES if name in common), None)
        return shards

    def set_up_local(self, shards: list[Reader], cache_usage_per_shard: Any) -> None:
        """Drop what an interrupted run left half-written in the cache, then note which shards are there.

        Of shards that are read in place nothing is dropped: mosaicml-streaming would delete an unpacked one whose
        packed form is not there.
        """
        if self.remote is None:
            for number, shard in enumerate(shards):
                there = [info.bytes for info in _files(shard) if self._path(info).is_file()]
                cache_usage_per_shard[number] = sum(there)
            return
        self.drop_parts()
        for path, info in ((self._path(info), info) for shard in shards for info in _files(shard)):
            if path.is_file() and path.stat().st_size != info.bytes:
                path.unlink()
        super().set_up_local(shards, cache_usage_per_shard)

    def prepare_shard(self, shard: Reader) -> int:
        """Download, verify and decompress. What has its own name in the cache has been verified.

        Returns:
            The change in cache usage in bytes.

        Raises:
            DataError: the shard cannot be had; the sentence names it.
        """
        raw, zip_info = shard.file_pairs[0]
        path = self._path(raw)
        if path.is_file():
            return 0
        if zip_info is None:
            self._fetch(raw, path)
        else:
            self._write(path, self._decompressed(shard), shard)
            if not self.safe_keep_zip:
                self._path(zip_info).unlink(missing_ok=True)
        return int(raw.bytes)

    def place_of(self, shard: Reader) -> str:
        """Where a shard is stored, for messages."""
        raw, zip_info = shard.file_pairs[0]
        return join(without_credentials(self.remote or self.local), self.split, (zip_info or raw).basename)

    def drop_parts(self) -> None:
        """Remove what was being written when its process ended."""
        for part in Path(self.local, self.split).rglob("*.part"):
            part.unlink(missing_ok=True)

    def arrived(self, shard: Reader) -> int:
        """How many bytes of a shard the download that is furthest has written so far."""
        furthest = 0
        for info in _files(shard):
            path = self._path(info)
            for part in path.parent.glob(f"{glob.escape(path.name)}.*part"):
                with contextlib.suppress(FileNotFoundError):  # it has just become whole
                    furthest = max(furthest, part.stat().st_size)
        return furthest

    def _path(self, info: FileInfo) -> Path:
        return Path(self.local, self.split, info.basename)

    def _fetch(self, info: FileInfo, path: Path) -> None:
        """Download one file, which gets its name only after it was verified."""
        if self.remote is None:
            raise DataError(f"{path}: is missing, though index.json lists it. Copy the whole folder again.")
        place = join(self.remote, self.split, info.basename)
        download(place, path, lambda part: self._verify(info, part.read_bytes()), info.bytes)

    def _verify(self, info: FileInfo, data: bytes) -> None:
        """Raises Damaged if a file's content is not of the recorded size and hash."""
        if len(data) != info.bytes:
            raise Damaged(f"{len(data)} bytes instead of {info.bytes}")
        if self.verified_hash and get_hash(self.verified_hash, data) != info.hashes[self.verified_hash]:
            raise Damaged(f"its {self.verified_hash} is not the recorded one")

    def _compressed(self, info: FileInfo) -> bytes:
        """A compressed shard, verified: the one that is there already, or else downloaded."""
        path = self._path(info)
        try:
            data = path.read_bytes()
            self._verify(info, data)
            return data
        except FileNotFoundError:
            pass
        except Damaged as error:
            if self.remote is None:
                raise DataError(f"{path}: is damaged ({error}). Copy it again.") from error
        part = part_of(path)  # not its own name: nobody else is to see it, or to miss it when it is removed
        try:
            self._fetch(info, part)
            return part.read_bytes()
        finally:
            part.unlink(missing_ok=True)

    def _decompressed(self, shard: Reader) -> bytes:
        """What a compressed shard holds."""
        raw, zip_info = shard.file_pairs[0]
        data = self._compressed(zip_info)
        try:
            return decompressed(cast(str, shard.compression), data, raw.bytes)
        except ValueError as error:
            raise DataError(f"{self.place_of(shard)}: is damaged ({error}). Convert the data set again.") from error

    def _write(self, path: Path, data: bytes, shard: Reader) -> None:
        """Write a decompressed shard, whole or not at all."""
        part = part_of(path)
        try:
            part.write_bytes(data)
            part.replace(path)
        except OSError as error:
            raise unwritable(error, path.parent, self.place_of(shard)) from error
        finally:
            part.unlink(missing_ok=True)

    def _download_file(self, from_basename: str, to_basename: str | None = None) -> str:
        """Fetch the index (the parent class calls this)."""
        local = Path(self.local, self.split, to_basename or from_basename)
        place = join(self.remote or "", self.split, from_basename)
        download(place, local)
        parse_index(local.read_bytes(), without_credentials(place))  # it may be another than the one looked at before
        return str(local)

    def _check_in_place(self, shards: list[Reader]) -> None:
        """Refuse a folder of shards that is not whole: cheaper at the start than in the middle of an epoch."""
        for raw, zip_info in (pair for shard in shards for pair in shard.file_pairs):
            sizes = {info.basename: info.bytes for info in (raw, zip_info) if info}
            paths = {name: Path(self.local, self.split, name) for name in sizes}
            there = [name for name, path in paths.items() if path.is_file()]
            if not there:
                absent = paths[(zip_info or raw).basename]
                raise DataError(
                    f"{absent}: is missing, though index.json lists it. Copy the whole folder again, or wait for the "
                    "run that downloads to it."
                )
            for name in there:
                size = paths[name].stat().st_size
                if size != sizes[name]:
                    raise DataError(
                        f"{paths[name]}: is damaged ({size} bytes instead of {sizes[name]}). Copy it again."
                    )


def _files(shard: Reader) -> list[FileInfo]:
    """The files that a shard may lie in: uncompressed, and compressed where it is stored so."""
    return [info for pair in shard.file_pairs for info in pair if info]


class ShardStore(StreamingDataset):
    """A StreamingDataset for access by index only, safe from forked workers and from threads.

    Args:
        stream: where the shards are.
        batch_size: samples per device; mosaicml-streaming insists on it.
    """

    def __init__(self, stream: VerifiedStream, batch_size: int) -> None:
        with opened_blocks() as opened:
            super().__init__(streams=[stream], batch_size=batch_size)
            held = hold(self._shm_prefix_int)
        ours = [block for block in opened if block.shm.name.startswith(f"{self._shm_prefix_int:06}_")]
        let_go([block for block in opened if block not in ours], os.getpid())
        self.stream = stream
        self._owner = os.getpid()
        if dist.get_local_world_size() == 1:  # ranks that let go one after another would see different numbers free
            weakref.finalize(self, let_go, ours, os.getpid(), held).atexit = False
        if stream.remote is not None:
            atexit.register(stream.drop_parts)  # those of workers and threads that end with this process

    def place_of(self, shard_id: int) -> str:
        """Where a shard is stored, for messages."""
        return self.stream.place_of(self.shards[shard_id])

    def prepare_shard(self, shard_id: int, blocking: bool = True) -> None:
        """Have a shard in the cache.

        As in the parent class, except that nobody waits for a download that has failed, or that gets no further because
        its process died or its store is silent.

        Args:
            shard_id: which one.
            blocking: wait for it if another process is fetching it.

        Raises:
            DataError: it cannot be had.
        """
        if self._owner != os.getpid():
            # A lock that some thread of the parent held at the fork would stay locked in this process.
            self.__dict__.pop("_cache_filelock", None)
            self._owner = os.getpid()
        patience = _Patience(lambda: self.stream.arrived(self.shards[shard_id]))
        while True:
            try:
                super().prepare_shard(shard_id, blocking=False)
            except BaseException:
                self._shard_states[shard_id] = REMOTE
                raise
            if not blocking or self._shard_states[shard_id] == LOCAL:
                return
            while self._shard_states[shard_id] == PREPARING:
                if patience.is_over():
                    self._shard_states[shard_id] = REMOTE  # ours to fetch now; a download may well be made twice
                time.sleep(_TICK)


class _Patience:
    """Tells a download that goes on from one that came to a stop, with its process or with its store.

    Args:
        arrived: how many bytes there are so far.
    """

    def __init__(self, arrived: Callable[[], int]) -> None:
        self._arrived = arrived
        self._furthest, self._since = 0, time.monotonic()
        self._look = self._since

    def is_over(self) -> bool:
        """Whether nothing new has arrived for STALLED seconds."""
        now = time.monotonic()
        if now < self._look:  # it lists a folder
            return False
        self._look = now + STALLED / 16
        if (size := self._arrived()) > self._furthest:
            self._furthest, self._since = size, now
        return now > self._since + STALLED
