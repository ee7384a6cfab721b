"""The words of `python -m recipes --budget`: GPUs, and a limit of time or dollars, or a top-1 to reach."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from common.errors import ConfigError
from common.suggest import did_you_mean, listing
from launch.machines import PEAKS

EXAMPLES = ("8x H100, 1 hour", "1x RTX 4090, 1 day", "8x A100, $50", "8x A100, 77 %")
ADVICE = f"write GPUs and a time, dollars or a top-1, as in {listing(map(repr, EXAMPLES))}"
DEFAULT = (8, "A100")
LONGEST = 400  # characters
UNITS = {"m": 1, "min": 1, "minute": 1, "h": 60, "hr": 60, "hour": 60, "d": 1440, "day": 1440, "week": 10080}
FILLERS = "a an and at budget cost for in least less most of on or than the to under up with within".split()


def _folded(kind: str) -> str:
    return re.sub("RTX|[ -]", "", kind.upper())


_KINDS = {_folded(kind): kind for kind in PEAKS}
_KIND = "|".join(
    re.escape(kind).replace("RTX\\ ", "(?:RTX[ -]?)?").replace("\\ ", "[ -]?")
    for kind in sorted(PEAKS, key=len, reverse=True)  # H100 PCIe before H100
)
_NUMBER = r"(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)"
_DOLLARS = re.compile(rf"\$ *{_NUMBER}|{_NUMBER} *(?:\$|dollars?\b|usd\b)", re.IGNORECASE)
_TOP1 = re.compile(
    rf"\btop-? ?1\b(?: of\b|[ :=>])* *{_NUMBER} *%?|{_NUMBER} *(?:%|percent\b)(?: *top-? ?1\b)?", re.IGNORECASE
)
_COUNT = r"(?:\b(\d{1,6})(?: *[x*\u00d7] *| +)|\b)"
_GPUS = re.compile(rf"{_COUNT}(?:NVIDIA )?({_KIND})\b(?:[ -]?(?:\d+ ?GB|SXM\d?)\b)*(?: GPUs?\b)?", re.IGNORECASE)
_TIME = re.compile(rf"(?:{_NUMBER}|\b(?:an?|one)) *({'|'.join(UNITS)})s?(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class Budget:
    """GPUs, and at least one of a limit of time or dollars and a top-1 to reach."""

    count: int
    kind: str  # one of PEAKS
    minutes: float | None = None
    dollars: float | None = None
    top1: float | None = None  # percent

    def __str__(self) -> str:
        limits = [f"{self.minutes / 60:g} h" if self.minutes >= 60 else f"{self.minutes:g} min"] if self.minutes else []
        limits += [f"${self.dollars:g}"] if self.dollars else []
        limits += [f"top-1 of {self.top1:g} %"] if self.top1 else []
        return ", ".join([f"{self.count}x {self.kind}", *limits])


def gpus_of(text: str) -> tuple[int, str] | None:
    """Return the number and the kind of GPUs that a text starts with, such as 8x A100 (p4d); None if it does not."""
    match = _GPUS.match(text)
    return (int(match[1] or 1), _KINDS[_folded(match[2])]) if match else None


def parse(text: str) -> Budget:
    """Return the budget that a text describes; a ConfigError, one sentence, if it does not."""
    if len(text) > LONGEST:
        raise ConfigError(f"--budget: {len(text):,} characters given, and at most {LONGEST} are read; {ADVICE}")
    rest, limits = text, dict[str, float]()
    for name, pattern in (("dollars", _DOLLARS), ("top1", _TOP1)):
        found = pattern.findall(rest)
        if len(found) > 1:
            raise ConfigError(f"--budget: {text!r} has {name} twice; {ADVICE}")
        if found:
            limits[name] = float("".join(found[0]).replace(",", ""))
        rest = pattern.sub(" ", rest)
    machines = [match[0] for match in _GPUS.finditer(rest)]
    count, kind = gpus_of(machines[0]) or DEFAULT if machines else DEFAULT
    rest = _GPUS.sub(" ", rest)
    times = [float((number or "1").replace(",", "")) * UNITS[unit.lower()] for number, unit in _TIME.findall(rest)]
    limits |= {"minutes": sum(times)} if times else {}
    unknown = [word for word in re.split(r"[\s,;:]+", _TIME.sub(" ", rest)) if word and word.lower() not in FILLERS]
    if unknown:
        kinds = f"; the GPUs are {listing(PEAKS)}" if re.match(r"\d+ *x", unknown[0]) else ""
        meant = did_you_mean(re.sub(r"^\d+x", "", unknown[0]), PEAKS)
        raise ConfigError(f"--budget: {' '.join(unknown)!r} is not understood; {ADVICE}{kinds}{meant}")
    if len(machines) > 1 or not limits:
        raise ConfigError(f"--budget: {text!r} has {'GPUs twice' if limits else 'no limit'}; {ADVICE}")
    if count < 1 or limits.get("top1", 0) > 100 or not all(0 < value < math.inf for value in limits.values()):
        raise ConfigError(f"--budget: {text!r} given, but its numbers must be more than 0, and a top-1 at most 100 %")
    return Budget(count, kind, **limits)
