"""The options of programs that split data into train and val."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from common.terminal import not_negative

SEED = 17


@dataclass(frozen=True)
class Rule:
    """How data are split."""

    val: float  # share for evaluation, between 0 and 1
    seed: int = SEED  # another one gives another split
    exact: bool = False  # keep only exact copies together, not near-duplicates


def add_options(group: Any, val: float | None) -> None:
    """Add --val, --seed and --exact to a parser or a group of its options; `val` is the default share."""
    default = " (default: %(default)s)" if val is not None else ", for data without a val/"
    group.add_argument("--val", type=share, default=val, metavar="SHARE", help=f"share for evaluation{default}")
    group.add_argument("--seed", type=not_negative, metavar="N", help=f"another seed gives another split ({SEED})")
    group.add_argument("--exact", action="store_true", help="keep only exact copies together, not near-duplicates")


def rule(given: argparse.Namespace) -> Rule:
    """Return what those options say, `given.val` being a share."""
    return Rule(given.val, SEED if given.seed is None else given.seed, given.exact)


def share(word: str) -> float:
    """Parse a share of the images."""
    try:
        value = float(word)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{word!r} given, but it must be a number, as in 0.2") from error
    if not 0 < value < 1:
        meant = f"{value / 100:g}" if 1 < value < 100 else "0.2"
        raise argparse.ArgumentTypeError(f"{word} given, but it must be more than 0 and less than 1, as in {meant}")
    return value
