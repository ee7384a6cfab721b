"""The samples in a WebDataset tar: consecutive members of the same name, up to the first dot."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from common.addresses import without_credentials
from common.errors import DataError, named
from loaders.archives.forms import OptionNeeded
from loaders.archives.labels import ADVICE
from loaders.archives.place import ranges
from loaders.archives.tars import Member, members
from loaders.storage.imagefolder import EXTENSIONS

LABEL = "cls"  # the extension of the members that hold labels, unless --label names others
MOST_BYTES = 1 << 20  # of a label, or of a JSON file with one


@dataclass
class Sample:
    """An image and what belongs to it."""

    address: str  # the tar's
    key: str
    parts: dict[str, Member] = field(default_factory=dict)  # by extension, in lower case

    @property
    def where(self) -> str:
        """Where it is, for messages."""
        return f"{without_credentials(self.address)}, {self.key}"

    def image(self) -> Member:
        """Return the image: the only one, or the only one without a second extension, as in jpg next to seg.png."""
        images = [extension for extension in self.parts if is_image(extension)]
        plain = [extension for extension in images if "." not in extension]
        if not images:
            raise DataError(f"{self.where}: has no image, only {named(sorted(self.parts))}. Add it, or remove these.")
        if len(plain or images) > 1:
            raise DataError(f"{self.where}: has several images, {named(images)}. Write the tar again with one.")
        return self.parts[(plain or images)[0]]

    def label(self, key: str | None) -> str:
        """Return what is stored as the label; `key` is an extension, or a key of the sample's JSON."""
        if (key or LABEL).lower() in self.parts:
            return self._text((key or LABEL).lower()).strip()
        described = self._described()
        value = described.get(key) if key else None
        if isinstance(value, str | int) and not isinstance(value, bool):
            return str(value).strip()
        if value is not None:
            raise OptionNeeded(f"{self.where}: {key} of its JSON is {str(value)[:40]}, not a number or name. {ADVICE}")
        there = sorted(one for one in self.parts if not is_image(one) and one != "json")
        there += [name for name, one in described.items() if isinstance(one, str | int)]
        if not there:
            raise DataError(f"{self.where}: has no label, only {named(sorted(self.parts))}. Write one next to it.")
        raise OptionNeeded(f"{self.where}: has no {key or LABEL} with its label, but {named(there, 20)}. {ADVICE}")

    def _described(self) -> dict[str, object]:
        """Return the sample's JSON; empty if it has none."""
        if "json" not in self.parts:
            return {}
        try:
            content = json.loads(self._text("json"))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{self.where}.json: is not JSON ({error}). Write the tar again.") from error
        return content if isinstance(content, dict) else {}

    def _text(self, extension: str) -> str:
        part = self.parts[extension]
        if part.size > MOST_BYTES:
            raise OptionNeeded(f"{self.where}.{extension}: has {part.size:,} bytes, too many for a label. {ADVICE}")
        try:
            return ranges(self.address).read(part.offset, part.size).decode()
        except UnicodeDecodeError as error:
            raise OptionNeeded(f"{self.where}.{extension}: is not text in UTF-8. {ADVICE}") from error


def split_name(name: str) -> tuple[str, str]:
    """Return a member's sample and what it is of it: `a/b`, `seg.png` of `a/b.seg.png`."""
    folder, slash, last = name.rpartition("/")
    stem, _, extension = last.partition(".")
    return folder + slash + stem, extension.lower()


def is_image(extension: str) -> bool:
    """Whether a member is an image, by its extension."""
    return f".{extension}".endswith(EXTENSIONS)


def samples(address: str) -> Iterator[Sample]:
    """Yield the samples of a tar; raises a DataError if it is damaged, or if two have the same name."""
    current, seen = Sample(address, ""), set[str]()
    for member in members(address):
        key, extension = split_name(member.name)
        name = key.rpartition("/")[2]
        if not name or name.startswith("__"):  # .DS_Store, ._AppleDouble, __meta__: not of any sample
            continue
        if key != current.key:
            if current.parts:
                yield current
            if key in seen:
                raise DataError(f"{without_credentials(address)}, {member.name}: {key} is there twice. Write it again.")
            seen.add(key)
            current = Sample(address, key)
        if extension in current.parts:
            raise DataError(f"{without_credentials(address)}, {member.name}: is there twice. Write the tar again.")
        current.parts[extension] = member
    if current.parts:
        yield current
