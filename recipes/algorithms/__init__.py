"""Our own Composer algorithms, one per file, which is named after the class in snake case.

This file imports neither torch nor Composer, so that recipes load fast. Files that start with `_` contain shared code:
`_base.py` declares the hooks of an algorithm; recipes/declared.py documents how it declares its arguments' limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from composer.core import Algorithm, Event


def reverse_eval_end(algorithms: Sequence[Algorithm], event: Event) -> Sequence[Algorithm]:
    """Engine pass that reverses the algorithms at the end of an evaluation or prediction.

    Otherwise, of two algorithms that swap weights in and out, the second one's would end up as the training weights.
    """
    return list(reversed(algorithms)) if event.name in ("EVAL_END", "PREDICT_END") else algorithms
