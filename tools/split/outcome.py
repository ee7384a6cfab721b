"""What a split came to: its record, the sentence for classes with too few images, and what is printed."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from common.errors import counted, named
from common.terminal import printable
from tools.split.source import RECORD, Source
from tools.split.writing import Row

MOST_CLASSES = 20  # listed one by one
MOST_FAULTS = 20  # listed; split.csv has all of them
MOST_GROUPS = 3  # named
LARGE = 0.1  # share of a class in one group of duplicates, above which a remark asks whether that can be right


@dataclass
class Outcome:
    """Which of the images are used, duplicates, and for evaluation."""

    source: Source
    faults: list[str]  # of each image; empty if it is used
    used: np.ndarray  # indices of those, [N]
    groups: np.ndarray  # of each used image: the place in `used` of the first image like it, [N]
    digests: np.ndarray  # [N]
    is_val: np.ndarray  # bool [N]

    def rows(self) -> list[Row]:
        """Return the rows of split.csv, one per image."""
        rows: list[Row] = [(name, "", "", fault) for name, fault in zip(self.source.names, self.faults, strict=True)]
        for place, (index, group) in enumerate(zip(self.used, self.groups, strict=True)):
            twin = self.name(group) if group != place else ""
            rows[index] = (self.source.names[index], "val" if self.is_val[place] else "train", twin, "")
        return rows

    def name(self, place: int) -> str:
        """Return CLASS/NAME of a used image."""
        return self.source.names[self.used[place]]

    @property
    def labels(self) -> np.ndarray:
        """Labels of the used images, [N]."""
        return np.array(self.source.labels)[self.used]

    def too_few(self, labels: Sequence[int], advice: str) -> str:
        """Return the sentence for classes that cannot be on both sides, and what to do."""
        unreadable = np.bincount(np.array(self.source.labels)[[bool(fault) for fault in self.faults]], minlength=1)
        classes, are_alike = [], False
        for label in labels:
            digests = self.digests[self.labels == label]
            what = counted(len(digests), "image", "images")
            if len(np.unique(digests)) > 1:
                what, are_alike = f"{what}, near-duplicates of one another", True
            elif len(digests) > 1:
                what += ", copies of one another"
            if label < len(unreadable) and unreadable[label]:
                what += f", and {unreadable[label]} unreadable"
            classes.append(f"{printable(self.source.classes[label])} ({what})")
        if are_alike:
            advice += " If they are different images, use --exact, which keeps only exact copies together."
        have = counted(len(labels), "class has", "classes have")
        return f"{self.source.folder}: {have} too few images for both sides: {named(classes)}. {advice}"

    def show(self, console: Console, target: str, copies: int) -> None:
        """Print the counts, what to look at, and what to type next."""
        source, val = self.source, int(self.is_val.sum())
        images, classes = counted(len(self.used), "image", "images"), counted(len(source.classes), "class", "classes")
        sides = f"{len(self.used) - val:,} for training and {val:,} for evaluation"
        console.print(f"{source.folder}: {images} of {classes}, {sides}.")
        self._show_counts(console)
        for remark in [*self._left_out(), *source.remarks, *self.duplicates(), _certainty(val)]:
            console.print(remark)
        linked = len(self.used) - copies
        how = [f"{linked:,} hard links, which take no space (editing one in place changes both)"] if linked else []
        how += [f"{counted(copies, 'copy', 'copies')}, because they cannot be linked there"] if copies else []
        console.print(f"Wrote {target}: {' and '.join(how)}; {RECORD} lists every image.")
        folder = shlex.quote(target)
        console.print(f"\nNext: python data.py {folder}")
        console.print(f"      composer main.py yamls/own.yaml train_dataset.path={folder}")

    def _show_counts(self, console: Console) -> None:
        """Print the images of each class on both sides, or their spread."""
        names = [printable(name) for name in self.source.classes]
        whole = np.bincount(self.labels, minlength=len(names))
        val = np.bincount(self.labels[self.is_val], minlength=len(names))
        train = whole - val
        if len(names) > MOST_CLASSES:
            fewest = ", ".join(f"{names[label]} {whole[label]:,}" for label in np.argsort(whole, kind="stable")[:3])
            spread = f"{train.min():,} to {train.max():,} for training, {val.min():,} to {val.max():,} for evaluation"
            console.print(f"Images per class: {spread}; the fewest: {fewest}.")
            return
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2))
        table.add_column("class")
        for split in ("train", "val"):
            table.add_column(split, justify="right")
        for name, *counts in zip(names, train.tolist(), val.tolist(), strict=True):
            table.add_row(name, *(f"{count:,}" for count in counts))
        console.print(table)

    def _left_out(self) -> list[str]:
        """Return the lines that list the unreadable images."""
        faults = zip(self.source.names, self.faults, strict=True)
        lines = [f"  {printable(name)}: {fault}" for name, fault in faults if fault]
        if not lines:
            return []
        more = [f"  and {len(lines) - MOST_FAULTS} more, which {RECORD} lists"] if len(lines) > MOST_FAULTS else []
        return [f"Left out: {counted(len(lines), 'unreadable file', 'unreadable files')}", *lines[:MOST_FAULTS], *more]

    def duplicates(self) -> list[str]:
        """Return sentences on groups of duplicates, those of several classes, and those that are large."""
        sizes = np.bincount(self.groups, minlength=1)
        groups = [int(group) for group in np.argsort(-sizes, kind="stable") if sizes[group] > 1]
        if not groups:
            return []
        copies = len(self.digests) - len(np.unique(self.digests))
        near = int(sizes[groups].sum()) - len(groups) - copies
        kinds = [counted(copies, "exact copy", "exact copies")] if copies else []
        kinds += [counted(near, "near-duplicate", "near-duplicates")] if near else []
        found = f"Found {' and '.join(kinds)} in {counted(len(groups), 'group', 'groups')}, each kept on one side"
        said = [f"{found}: {self._listed(groups)}."]
        lowest, highest = np.full(len(sizes), len(self.source.classes)), np.full(len(sizes), -1)  # label in each group
        np.minimum.at(lowest, self.groups, self.labels)
        np.maximum.at(highest, self.groups, self.labels)
        if mixed := [group for group in groups if lowest[group] < highest[group]]:
            those = counted(len(mixed), "group has", "groups have")
            said.append(f"{those} images of different classes; is a label wrong? {self._listed(mixed)}.")
        largest, own = sizes[groups[0]], (self.labels == lowest[groups[0]]).sum()
        is_near = len(np.unique(self.digests[self.groups == groups[0]])) > 1  # --exact would keep copies together too
        if is_near and largest > max(5, LARGE * own):
            said.append(f"The largest group has {largest} images; if they are alike by nature, use --exact.")
        return said

    def _listed(self, groups: Sequence[int]) -> str:
        """Name the first groups by two of their images."""
        shown = []
        for group in groups[:MOST_GROUPS]:
            members = np.flatnonzero(self.groups == group)
            more = f" = ... ({len(members)} images)" if len(members) > 2 else ""
            shown.append(" = ".join(printable(self.name(place)) for place in members[:2]) + more)
        return named([*shown, *[""] * (len(groups) - len(shown))], MOST_GROUPS)


def _certainty(val: int) -> str:
    """Say how exact an accuracy of about a half is, measured on so many images."""
    within = 196 * math.sqrt(0.25 / val)
    images = counted(val, "image", "images")
    return f"With {images} for evaluation, top-1 will be exact to {within:.2g} points at worst (95 % confidence)."
