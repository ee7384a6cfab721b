"""Start sooner: skip imports and probes of Composer's that an image classifier does not need.

Each patch replaces names of other packages, which docs/upgrading.md lists.
"""

from __future__ import annotations

import functools
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lightning_utilities.core import imports

UNUSED = ("matplotlib", "scipy", "transformers")  # imported where installed, for plots, audio and text: 2 s of 6


def import_composer() -> None:
    """Import Composer as if UNUSED were not installed, and give it a quick way to name the processor."""
    if "composer" in sys.modules:
        return
    with _hidden(UNUSED):
        import composer.algorithms  # noqa: F401
        from composer.utils import collect_env

    collect_env.get_cpu_model = processor  # Composer's starts five programs, which takes a second


@functools.cache
def processor() -> str:
    """Name of the processor, as Composer writes it into checkpoints."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "CPU"


@contextmanager
def _hidden(packages: tuple[str, ...]) -> Iterator[None]:
    """Let imports of these packages fail, unless they are imported already, and torchmetrics not find them."""

    def version_of_others(name: str) -> str:
        if name in packages:
            raise PackageNotFoundError(name)
        return version(name)

    available = imports.package_available
    blocked = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(blocked))  # type: ignore[arg-type]
    imports._version = version_of_others  # type: ignore[assignment]
    imports.package_available = lambda name: name not in packages and available(name)  # type: ignore[assignment]
    try:
        yield
    finally:
        imports._version, imports.package_available = version, available
        for name in blocked:
            del sys.modules[name]
