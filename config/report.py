"""Collect problems with values, each with its key and the layer that set it."""

from __future__ import annotations

from collections.abc import Iterable

from config.structure import Structure


class Report:
    """The problems found up to now.

    Attributes:
        problems: complete sentences.
    """

    def __init__(self, structure: Structure) -> None:
        self.structure = structure
        self.problems: list[str] = []

    def add(self, key: str, sentence: str) -> None:
        """Add a problem with the value of a key."""
        self.problems.append(f"{key}: {sentence}{self.structure.origin(key)}")

    def extend(self, sentences: Iterable[str]) -> None:
        """Add problems that start with their key, appending the layer to each."""
        for sentence in sentences:
            self.problems.append(f"{sentence}{self.structure.origin(sentence.split(': ')[0])}")
