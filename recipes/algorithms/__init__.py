"""Composer algorithms of our own: one per file, named after the class in snake case, found by that name.

Kept free of torch and Composer, so that reading a recipe stays fast. Files that start with `_` hold what several share.
What a run asks of an algorithm is declared in `_base.py`, and how one says what it can be given in recipes/declared.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from composer.core import Algorithm, Event


def reverse_eval_end(algorithms: Sequence[Algorithm], event: Event) -> Sequence[Algorithm]:
    """An engine pass: run the list backwards where an evaluation or a prediction ends.

    Two algorithms that swap weights in at EVAL_START have to swap them out in the opposite order, or the second one's
    weights end up as the training weights. Composer reverses only the events named AFTER_*.
    """
    return list(reversed(algorithms)) if event.name in ("EVAL_END", "PREDICT_END") else algorithms
