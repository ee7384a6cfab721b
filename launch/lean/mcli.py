"""Stand-in for the module of mosaicml-cli, which Composer imports but calls only on the MosaicML platform.

`make env LEAN=1` installs it: mosaicml-cli and what it requires are 35 packages.
"""

from typing import NoReturn


def __getattr__(name: str) -> NoReturn:
    """Raise an error that names the package."""
    raise AttributeError(
        f"mcli.{name}: the lean environment has no mosaicml-cli. On the MosaicML platform, make the environment with "
        "`make env` instead."
    )
