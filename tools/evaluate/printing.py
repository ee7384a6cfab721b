"""Print the main figures of an evaluation."""

from rich.console import Console
from rich.table import Table

from tools.evaluate.figures import Findings, Pass, worst

MOST = 5  # rows of worst classes and of confusions


def show(console: Console, found: Findings, passes: dict[int, Pass], title: str) -> None:
    """Print the figures at the run's own size, those of each size, the worst classes and the most confused pairs."""
    rows = []
    for name, form in (("top1", "{:.2f} %"), ("top5", "{:.2f} %"), ("loss", "{:.4f}")):
        both = [form.format(getattr(figures, name)) for figures in found.result.accuracies]
        rows.append([name.replace("top", "top-"), *both])
    rows.append(["calibration error", f"{found.calibration_error:.2f} points"])
    title = f"{title}: {len(found.result.labels):,} images at {found.result.size} px"
    console.print(_table(title, ["", "", "with flip"][: len(rows[0])], rows))
    if len(passes) > 1:
        rows = []
        for size, result in sorted(passes.items()):
            figures = [figure for one in result.accuracies for figure in (one.top1, one.top5)]
            rows.append([f"{size} px", *(f"{figure:.2f} %" for figure in figures)])
        columns = ["size", "top-1", "top-5", "top-1 with flip", "top-5 with flip"]
        console.print(_table("By size", columns[: len(rows[0])], rows))
    if not found.confusions:
        console.print("no mistakes")
        return
    rows = [[one.name, f"{one.images:,}", f"{one.top1:.2f} %"] for one in worst(found.classes, MOST)]
    console.print(_table("Worst classes", ["class", "images", "top-1"], rows))
    rows = [[one.true, one.predicted, f"{one.count:,}", f"{100 * one.share:.1f} %"] for one in found.confusions[:MOST]]
    console.print(_table("Most confused", ["true", "taken for", "count", "of the class"], rows))


def _table(title: str, columns: list[str], rows: list[list[str]]) -> Table:
    """Return a table of names in the first column and right-aligned figures in the others."""
    table = Table(title=title, title_justify="left", show_header=any(columns))
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    for row in rows:
        # Class names are data, not markup.
        table.add_row(*(cell.replace("[", r"\[") for cell in row))
    return table
