"""Check the data sections: paths, sizes, storage kinds (table in docs/data.md). Does not look inside folders."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from common.addresses import cut_off, is_in_place, is_s3
from common.errors import DataError
from common.sizes import bytes_of
from common.suggest import address_meant, listing
from config.schema import Config, Dataset, EvalDataset
from config.structure import Report
from loaders.errors import in_section
from loaders.images.decoders import check_interpolation, chosen
from loaders.storage.digits import is_made_on_demand
from loaders.storage.kinds import KINDS, Kind, kind_of
from recipes import registry
from recipes.declared import is_per_image


def check_data(config: Config, report: Report) -> None:
    """Check the data sections that the run reads; evaluation alone does not read training data."""
    places = {"runs_folder": config.runs_folder, "save_folder": config.save_folder, "load_path": config.load_path}
    places["model.weights"] = config.model.weights
    for name, section in (("train_dataset", config.train_dataset), ("eval_dataset", config.eval_dataset)):
        places |= {f"{name}.path": section.path, f"{name}.local": section.local, f"{name}.preload": section.preload}
    for key, value in places.items():
        if value and (meant := address_meant(value)):
            report.add(key, f"{value} is neither an address nor a folder; did you mean {meant}?")
        if value and (fault := cut_off(value)):
            report.add(key, fault)
    for key in config.sections():
        kind = check_storage(config, key, report)
        check_place(config, key, kind, report)
        check_cache_limit(config.section(key), key, kind, report)
        check_sizes(config, key, report)


def check_place(config: Config, key: str, kind: Kind, report: Report) -> None:
    """Check that the images can be where the section says."""
    section = config.section(key)
    path = section.path
    if not kind.reads_path:
        return  # an earlier layer may have set a path; it is ignored
    if path is None:
        if not config.dry_run:
            report.problems.append(
                f"{key}.path: missing; type {key}.path=FOLDER (a folder with train/ and val/), or "
                f"{key}.path=s3://BUCKET/FOLDER {key}.is_streaming=true {key}.local=/tmp/cache; "
                f"to try it without data: python main.py yamls/digits.yaml",
            )
        return
    if address_meant(path):
        return  # reported already
    remote = "://" in path
    if section.is_streaming and not section.local and not section.preload:
        report.add(f"{key}.local", f"missing; streaming needs a cache folder for shards; type {key}.local=/tmp/cache")
    cached = may_be_archives(section, kind)
    if remote and not (section.is_streaming or section.preload or kind.remote or (cached and section.local)):
        scheme = path.split("://")[0]
        shards = section.storage is None or kind.is_streaming is not False
        ways = [f"{key}.is_streaming=true {key}.local=/tmp/cache"] if shards else []
        ways += [f"{key}.local=/tmp/cache{' alone for WebDataset tars' if shards else ''}"] if cached else []
        advice = ", or ".join(ways or [f"{key}.preload=/a/local/folder"])
        report.add(f"{key}.path", f"{path} is remote ({scheme}); type {advice}")
    if not remote and not config.dry_run and not is_made_on_demand(path) and not Path(path).exists():
        here = f" (looked in {Path.cwd()})" if not Path(path).is_absolute() else ""
        report.add(f"{key}.path", f"no such folder: {path}{here}; type {key}.path=FOLDER")


def may_be_archives(section: Dataset, kind: Kind) -> bool:
    """Whether an address may hold archives, whose files are cached as shards are; loading the data will tell."""
    caches = section.storage is None or kind.is_streaming is None or "local" in kind.arguments
    return caches and not section.is_streaming and is_s3(section.path or "")


def check_cache_limit(section: Dataset, key: str, kind: Kind, report: Report) -> None:
    """Check the limit on cached shards; only copies of shards are ever evicted."""
    if section.cache_limit is None:
        return
    in_place = section.path and section.local and is_in_place(section.path, section.local)
    if not (section.is_streaming or may_be_archives(section, kind)) or section.preload or in_place:
        report.add(
            f"{key}.cache_limit",
            f"{section.cache_limit} given, but it only applies to shards that are cached on demand; type "
            f"{key}.cache_limit=null",
        )
        return
    try:
        bytes_of(section.cache_limit)
    except ValueError as error:
        report.add(f"{key}.cache_limit", str(error))


def check_sizes(config: Config, key: str, report: Report) -> None:
    """Check numbers that depend on each other."""
    section = config.section(key)
    crop, resize = section.crop_size, section.resize_size
    if 0 < resize < crop:
        report.add(
            f"{key}.resize_size",
            f"a crop of {crop} px does not fit into images resized to {resize} px; type {key}.resize_size={crop} or "
            f"more, or {key}.resize_size=-1 for no resize",
        )
    ratio = section.crop_ratio if isinstance(section, EvalDataset) else None
    if ratio is not None and resize != -1:
        report.add(
            f"{key}.crop_ratio",
            f"{ratio:g} given, and {key}.resize_size={resize}, but one of them sets the size of the crop; type "
            f"{key}.resize_size=-1, or {key}.crop_ratio=null",
        )
    if section.prefetch_factor is not None and section.num_workers == 0:
        report.add(f"{key}.prefetch_factor", "without workers nothing can be prefetched; set num_workers above 0")


def check_storage(config: Config, key: str, report: Report) -> Kind:
    """Check how a data section is stored and decoded; return its storage kind, or the default if there is none."""
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
    with _reported(key, report):
        check_interpolation(section.interpolation)
    if kind.own_decoder:
        ratio = section.crop_ratio if isinstance(section, EvalDataset) else None
        for name, value, usual in (("interpolation", section.interpolation, "bilinear"), ("crop_ratio", ratio, None)):
            if value != usual:
                advice = f"type {key}.{name}={usual or 'null'}, or {key}.storage=null"
                report.add(f"{key}.{name}", f"{value} given, but storage {storage} crops in its own way; {advice}")
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
