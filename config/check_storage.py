"""Check that a storage kind, the other keys of its section and the recipe are compatible (table in docs/data.md)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from common.errors import DataError
from common.suggest import listing
from config.schema import Config
from config.structure import Report
from loaders.errors import in_section
from loaders.images.decoders import chosen
from loaders.storage.kinds import KINDS, Kind, kind_of
from recipes import registry
from recipes.declared import is_per_image


def check_storage(config: Config, key: str, report: Report) -> Kind:
    """Check storage, is_streaming, decoder, preload and pack_size of a data section.

    Returns:
        The storage kind; the default one if the given kind does not exist.
    """
    section = config.section(key)
    storage, decoder = section.storage, section.decoder
    kind = kind_of(None, section.is_streaming)
    with _reported(key, report):
        kind = kind_of(storage, section.is_streaming)
    if storage and registry.is_outside(storage):
        report.extend(registry.check("storage", storage, {}, f"{key}.storage"))
    if decoder != "auto" and kind.own_decoder:
        advice = f"type {key}.decoder=auto or {key}.storage=null"
        report.add(f"{key}.decoder", f"{decoder} given, but storage {storage} has its own decoder; {advice}")
    elif decoder != "auto":
        with _reported(key, report):
            chosen(decoder)
    if kind.is_streaming and not section.is_streaming:
        report.add(f"{key}.storage", f"{storage} reads MDS shards; type {key}.is_streaming=true {key}.local=/tmp/cache")
    if section.is_streaming and kind.is_streaming is False:
        report.add(f"{key}.storage", f"{storage} reads no MDS shards; type {key}.is_streaming=false")
    if section.pack_size is not None:
        if "pack_size" not in kind.arguments:
            able = [name for name, row in KINDS.items() if "pack_size" in row.arguments]
            advice = f"type {key}.storage={able[0]}, or {key}.pack_size=null"
            report.add(f"{key}.pack_size", f"only for storage {listing(able)}; {advice}")
        elif section.pack_size < (needed := max(section.crop_size, section.resize_size)):
            report.add(
                f"{key}.pack_size",
                f"{section.pack_size} px given, but images of {needed} px are made from the packed ones; type "
                f"{key}.pack_size={needed} or more, or {key}.pack_size=null for the full size",
            )
    if section.preload is not None and not kind.reads_path:
        report.add(f"{key}.preload", f"{storage} images have no source to copy; type {key}.preload=null")
    for name, arguments in config.algorithms.items():
        if key == "train_dataset" and not kind.image_transforms and is_per_image(name, arguments):
            report.add(
                "train_dataset.storage",
                f"{storage} cannot run {name}, which transforms single images in the loader; type "
                f"algorithms.{name}=null, or train_dataset.storage=null",
            )
    return kind


@contextlib.contextmanager
def _reported(key: str, report: Report) -> Iterator[None]:
    """Report a DataError from the loaders' own checks."""
    try:
        with in_section(key):
            yield
    except DataError as error:
        report.extend([f"{key}.{error}"])
