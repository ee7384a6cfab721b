"""Whether a storage kind, the keys beside it and the recipe go together (docs/data.md has the table)."""

from __future__ import annotations

from common.suggest import did_you_mean, listing
from config.report import Report
from config.schema import DECODERS, STORAGES, Config, Dataset
from recipes.declared import is_per_image

OWN_FORMAT = ("ffcv", "synthetic")  # kinds that MDS shards have nothing to do with


def check_storage(config: Config, key: str, report: Report) -> None:
    """The keys storage, is_streaming, decoder, preload and pack_size of one data section."""
    section = config.section(key)
    _check_decoder(section, key, report)
    storage = section.storage
    if storage is not None and storage not in STORAGES:
        allowed = f"it must be {listing(STORAGES)}{did_you_mean(storage, STORAGES)}"
        report.add(f"{key}.storage", f"{storage} given, but {allowed}")
        return
    if storage == "streaming" and not section.is_streaming:
        report.add(f"{key}.storage", f"streaming reads MDS shards; type {key}.is_streaming=true {key}.local=/tmp/cache")
    if section.is_streaming and storage in ("imagefolder", *OWN_FORMAT):
        report.add(f"{key}.storage", f"{storage} reads no MDS shards; type {key}.is_streaming=false")
    if section.pack_size is not None:
        if storage != "packed":
            advice = f"type {key}.storage=packed, or {key}.pack_size=null"
            report.add(f"{key}.pack_size", f"only storage packed has it; {advice}")
        elif section.pack_size < (needed := max(section.crop_size, section.resize_size)):
            report.add(
                f"{key}.pack_size",
                f"{section.pack_size} px given, but pictures of {needed} px are made of them; type "
                f"{key}.pack_size={needed} or more, or {key}.pack_size=null for every pixel",
            )
    if section.preload is not None and storage == "synthetic":
        report.add(f"{key}.preload", f"synthetic pictures are nowhere to be copied from; type {key}.preload=null")
    if key == "train_dataset" and storage == "dali":
        _check_dali(config, report)


def _check_decoder(section: Dataset, key: str, report: Report) -> None:
    """Who decodes pictures; only asked for the native one is numpy imported, to see whether it is built."""
    decoder = section.decoder
    if decoder not in DECODERS:
        allowed = f"it must be {listing(DECODERS)}{did_you_mean(decoder, DECODERS)}"
        report.add(f"{key}.decoder", f"{decoder} given, but {allowed}")
    elif decoder != "auto" and section.storage == "dali":
        report.add(f"{key}.decoder", f"storage dali decodes by itself; type {key}.decoder=auto or {key}.storage=null")
    elif decoder.startswith("native"):
        from loaders.images import native

        if not native.available():
            report.add(
                f"{key}.decoder", f"{decoder} is not built here; type {native.HOW_TO_BUILD}, or {key}.decoder=auto"
            )


def _check_dali(config: Config, report: Report) -> None:
    """DALI crops and flips by itself; what a recipe does to single pictures in the loader has no place in it."""
    for name, arguments in config.algorithms.items():
        if is_per_image(name, arguments):
            report.add(
                "train_dataset.storage",
                f"dali cannot run {name}, which works on single images in the loader; type "
                f"algorithms.{name}=null, or train_dataset.storage=null",
            )
