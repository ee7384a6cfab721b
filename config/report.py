"""Collecting complaints about values, each with its key and the layer that set it."""

from __future__ import annotations

from collections.abc import Iterable

from config.structure import Structure


class Report:
    """Complaints so far.

    Attributes:
        problems: finished sentences.
    """

    def __init__(self, structure: Structure) -> None:
        self.structure = structure
        self.problems: list[str] = []

    def add(self, key: str, sentence: str) -> None:
        """A complaint about the value of a key."""
        self.problems.append(f"{key}: {sentence}{self.structure.origin(key)}")

    def extend(self, sentences: Iterable[str]) -> None:
        """Complaints that begin with their key, to which the layer is added."""
        for sentence in sentences:
            self.problems.append(f"{sentence}{self.structure.origin(sentence.split(': ')[0])}")
