"""MDS shards through mosaicml-streaming, with every fault raised where it happens.

mosaicml-streaming 0.13 reads the shards. Iterating over its data set, however, ends an epoch early or hangs for ever
when a shard is missing or corrupt, so that only its map-style access is used, and its downloading is replaced by one
that verifies, cleans up after itself and never leaves another process waiting.
"""

import os
import time
from pathlib import Path
from typing import Any, cast

from streaming import StreamingDataset
from streaming.base.compression import decompress
from streaming.base.format.base.reader import Reader
from streaming.base.format.mds.reader import MDSReader
from streaming.base.hashing import get_hash
from streaming.base.stream import Stream

from config.errors import DataError
from loaders.remote import StoreOutOfReach, download, join

# streaming.base.dataset._ShardState: values that live in shared memory.
REMOTE, PREPARING = 1, 2
HASHES = ("sha1", "xxh3_64", "xxh64", "xxh128", "sha256", "md5")  # which one is checked, of those that were recorded
STALLED = 900.0  # seconds after which a download by another process counts as dead
_TICK = 0.01


class VerifiedStream(Stream):
    """A folder of shards whose files are whole, of the recorded size and of the recorded hash, or an error.

    Args:
        remote: where the shards are, without the split; None for shards that are in `local` already.
        local: the cache folder, without the split.
        split: `train` or `val`.
    """

    def get_shards(self, world: Any, allow_unsafe_types: bool) -> list[Reader]:
        """Read the index, and choose the hash to verify with: the best that every shard has.

        Raises:
            DataError: there is nowhere to download from, and a shard is missing or truncated.
        """
        shards = super().get_shards(world, allow_unsafe_types)
        if self.remote is None:
            self._check_in_place(shards)
        recorded = [set((zip_info or raw).hashes) for shard in shards for raw, zip_info in shard.file_pairs]
        common = set.intersection(*recorded) if recorded else set()
        self.verified_hash = next((name for name in HASHES if name in common), None)
        return shards

    def set_up_local(self, shards: list[Reader], cache_usage_per_shard: Any) -> None:
        """Drop what an interrupted run left half-written in the cache, then note which shards are there."""
        if self.remote is not None:
            for shard in shards:
                for info in (info for pair in shard.file_pairs for info in pair if info):
                    path = Path(shard.dirname, shard.split, info.basename)
                    if path.is_file() and path.stat().st_size != info.bytes:
                        path.unlink()
        super().set_up_local(shards, cache_usage_per_shard)

    def prepare_shard(self, shard: Reader) -> int:
        """Download, verify and decompress; once more if the store did not answer or what arrived was damaged.

        Returns:
            The change in cache usage in bytes.

        Raises:
            DataError: the shard cannot be had; the sentence names it.
        """
        attempts = 2 if self.remote is not None else 1
        for attempt in range(attempts):
            try:
                return self._fetch(shard)
            except StoreOutOfReach:
                if attempt + 1 == attempts:
                    raise
            except DataError:
                raise
            except OSError as error:
                place = self.local
                raise DataError(f"{place}: cannot be written ({error}). Free some space, or name another.") from error
            except Exception as error:
                self._discard(shard)
                if attempt + 1 == attempts:
                    advice = "Copy it again" if self.remote is None else "Copy or upload it again"
                    raise DataError(f"{self.place_of(shard)}: is damaged ({error}). {advice}.") from error
        raise AssertionError("unreachable")

    def _fetch(self, shard: Reader) -> int:
        """One attempt; a ValueError, or what the decompressor raises, means that the data are damaged."""
        raw, zip_info = shard.file_pairs[0]
        unpacked = Path(self.local, self.split, raw.basename)
        if unpacked.is_file():
            return 0
        stored = zip_info or raw
        path = unpacked.with_name(stored.basename)
        used = 0 if path.is_file() else stored.bytes
        if used:
            self._download_file(stored.basename)
        data = path.read_bytes()
        if self.verified_hash and get_hash(self.verified_hash, data) != stored.hashes[self.verified_hash]:
            raise ValueError(f"its {self.verified_hash} is not the recorded one")
        if zip_info:
            data = decompress(shard.compression, data)
        if len(data) != raw.bytes:
            raise ValueError(f"{len(data)} bytes instead of {raw.bytes}")
        if zip_info:
            part = unpacked.with_name(f"{unpacked.name}.{os.getpid()}.part")
            part.write_bytes(data)
            part.replace(unpacked)
            used += raw.bytes
            if not self.safe_keep_zip:
                path.unlink()
                used -= zip_info.bytes
        return used

    def place_of(self, shard: Reader) -> str:
        """Where a shard is stored, for messages."""
        raw, zip_info = shard.file_pairs[0]
        return join(self.remote or self.local, self.split, (zip_info or raw).basename)

    def _download_file(self, from_basename: str, to_basename: str | None = None) -> str:
        local = Path(self.local, self.split, to_basename or from_basename)
        if self.remote is None:
            raise DataError(f"{local}: is missing, though index.json lists it. Copy the whole folder again.")
        download(join(self.remote, self.split, from_basename), local)
        return str(local)

    def _check_in_place(self, shards: list[Reader]) -> None:
        """Refuse a folder of shards that is not whole: cheaper at the start than in the middle of an epoch."""
        for raw, zip_info in (pair for shard in shards for pair in shard.file_pairs):
            sizes = {info.basename: info.bytes for info in (raw, zip_info) if info}
            paths = {name: Path(self.local, self.split, name) for name in sizes}
            there = [name for name, path in paths.items() if path.is_file()]
            if not there:
                absent = paths[(zip_info or raw).basename]
                raise DataError(f"{absent}: is missing, though index.json lists it. Copy the whole folder again.")
            for name in there:
                size = paths[name].stat().st_size
                if size != sizes[name]:
                    raise DataError(
                        f"{paths[name]}: is damaged ({size} bytes instead of {sizes[name]}). Copy it again."
                    )

    def _discard(self, shard: Reader) -> None:
        """Forget a damaged shard's cached files, so that the next run does not read them. Never touches an original."""
        if self.remote is not None:
            for info in (info for pair in shard.file_pairs for info in pair if info):
                Path(shard.dirname, shard.split, info.basename).unlink(missing_ok=True)


class ShardStore(StreamingDataset):
    """A StreamingDataset for access by index only, safe from forked workers and from threads.

    Args:
        stream: where the shards are.
        batch_size: samples per device; mosaicml-streaming insists on it.
    """

    def __init__(self, stream: VerifiedStream, batch_size: int) -> None:
        super().__init__(streams=[stream], batch_size=batch_size)
        self.stream = stream
        self._owner = os.getpid()
        for shard in cast(list[MDSReader], self.shards):
            # The pictures are wanted as stored: decoding them is loaders.transforms' business.
            encodings = shard.column_encodings
            shard.column_encodings = ["bytes" if kind in ("jpeg", "png") else kind for kind in encodings]

    def place_of(self, shard_id: int) -> str:
        """Where a shard is stored, for messages."""
        return self.stream.place_of(self.shards[shard_id])

    def prepare_shard(self, shard_id: int, blocking: bool = True) -> None:
        """Have a shard in the cache.

        As in the parent class, except that a failed download is not left marked as being in progress, which would make
        every other process wait for ever.

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
        deadline = time.monotonic() + STALLED
        while True:
            try:
                super().prepare_shard(shard_id, blocking=False)
            except BaseException:
                self._shard_states[shard_id] = REMOTE
                raise
            if not blocking or self._shard_states[shard_id] != PREPARING:
                return
            self._wait(shard_id, deadline)

    def _wait(self, shard_id: int, deadline: float) -> None:
        """Wait until nobody is fetching the shard, or whoever was must be dead."""
        parent = os.getppid()
        while self._shard_states[shard_id] == PREPARING:
            if time.monotonic() > deadline or os.getppid() != parent:
                place = self.place_of(shard_id)
                raise DataError(f"{place}: still not downloaded by another process; start the run again.")
            time.sleep(_TICK)
