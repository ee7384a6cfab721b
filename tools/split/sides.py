"""Look at all images and decide which are for evaluation, with near-duplicates on one side."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from rich.console import Console

from common.errors import DataError
from common.terminal import ImageMeter
from tools.convert.crew import Crew, report
from tools.convert.sources import Part
from tools.split.allotment import TooFew, allot
from tools.split.duplicates import groups
from tools.split.looking import Looked, look
from tools.split.options import Rule
from tools.split.outcome import Outcome
from tools.split.source import Source

PER_JOB = 64  # images


def look_at_all(console: Console, count: int, part: Callable[[np.ndarray], Part], workers: int) -> Looked:
    """Look at `count` images; `part` returns those at some indices.

    Raises:
        DataError: their source is damaged.
    """
    all_ = Looked.of(count)
    starts = range(0, count, PER_JOB)
    jobs = ((start, part(np.arange(start, min(start + PER_JOB, count))), report) for start in starts)
    with Crew(min(workers, max(1, len(starts)))) as crew, ImageMeter(console, "Reading", count) as meter:
        for _, found in crew.run(look, jobs, meter):
            all_.put(found)
            meter.weigh(len(found.faults), found.bytes)
    return all_


def decide(console: Console, source: Source, found: Looked, rule: Rule, advice: str) -> Outcome:
    """Decide for the images of a source, of which `found` is known.

    Raises:
        DataError: a class has too few images, for which `advice` says what to do.
    """
    used = np.array([index for index, fault in enumerate(found.faults) if not fault], dtype=int)
    digests, labels = found.digests[used], np.array(source.labels)[used]
    with ImageMeter(console, "Comparing", len(used)) as meter:
        alike = groups(digests, None if rule.exact else found.thumbnails[used], meter)
    outcome = Outcome(source, found.faults, used, alike, digests, np.zeros(len(used), bool))
    try:
        outcome.is_val = allot(labels, alike, digests, len(source.classes), rule.val, rule.seed)
    except TooFew as error:
        raise DataError(outcome.too_few(error.labels, advice)) from error
    return outcome
