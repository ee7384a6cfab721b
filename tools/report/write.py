"""Write a report as one self-contained HTML file, or as Markdown with a folder of images."""

from __future__ import annotations

import base64
import html
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from common.errors import ConfigError, UserError
from common.whole_files import write_whole
from tools.report import drawing
from tools.report.charts import Chart
from tools.report.content import Page, Part
from tools.report.words import letter

HTML, MARKDOWN = (".html", ".htm"), (".md",)
MOST_BYTES = 24 * 2**20  # of images to embed in a page; base64 makes them a third larger
METHOD = (
    "Mean ± standard deviation (ddof = 1) over n runs that differ in nothing but their seed. Accuracy is that of the "
    "last evaluation, not of the best. Training time has the waiting for data in it, not the evaluations; img/s are "
    "over that time; “in all” is the wall clock, evaluations and restarts included."
)
CAPTIONS = (
    "Lines are means, bands two standard deviations (ddof = 1) to either side; one run has none. Over time, runs are "
    "interpolated to common times. The thin staircase is the Pareto front of the measured groups."
)
PUBLISHED = ("recipe", "variant", "top1", "top5", "epochs", "minutes", "hardware", "n", "sd", "resolution", "protocol")


def check(target: Path) -> None:
    """Check, before the work, that a report can be written.

    Raises:
        ConfigError: its suffix is neither HTML's nor Markdown's.
        UserError: it cannot be written.
    """
    if target.suffix not in HTML + MARKDOWN:
        raise ConfigError(f"-o {target}: must end in .html (one file) or .md (with images in a folder next to it)")
    try:
        if target.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=target.parent).close()
        if target.suffix in MARKDOWN:
            images_of(target).mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"-o {target}: cannot be written ({error.strerror}); name another file") from error


def images_of(target: Path) -> Path:
    """Return the folder of a Markdown report's images: report/ for report.md."""
    return target.with_suffix("")


def write(page: Page, target: Path) -> None:
    """Write a report in the form of the file's suffix."""
    render = render_markdown if target.suffix in MARKDOWN else render_html
    # A damaged file may hold half of a surrogate pair, which UTF-8 cannot encode.
    write_whole(target, render(page, target).encode(errors="backslashreplace"))


def render_html(page: Page, _target: Path) -> str:
    """Render the page as HTML, with its charts as SVG and images embedded up to MOST_BYTES."""
    left = MOST_BYTES
    for part in looked_at(page):
        path = part.evaluation.mistakes  # type: ignore[union-attr]
        size = path.stat().st_size if path else 0
        if path and size <= left:
            left -= size
            content = base64.b64encode(path.read_bytes()).decode()
            part.evaluation.image = f"data:image/png;base64,{content}"  # type: ignore[union-attr]
    dark = {"series": drawing.DARK_SERIES}
    light = {"series": drawing.SERIES, "ink": drawing.INK, "muted": drawing.MUTED}
    light |= {"grid": drawing.GRID, "rest": drawing.REST}

    def svg(chart: Chart, salt: str) -> Markup:
        return Markup(drawing.svg(chart.draw(), salt + chart.name))

    return _template("page.html.j2").render(page=page, light=light, dark=dark, svg=svg, **_common(page))


def render_markdown(page: Page, target: Path) -> str:
    """Render the page as Markdown, and write its images into their folder."""
    folder = images_of(target)
    for number, part in enumerate(looked_at(page), 1):
        if path := part.evaluation.mistakes:  # type: ignore[union-attr]
            write_whole(folder / f"mistakes-{number}.png", path.read_bytes())
            part.evaluation.image = _address(f"{folder.name}/mistakes-{number}.png")  # type: ignore[union-attr]

    def png(chart: Chart, section: int) -> str:
        name = f"{letter(section)}-{chart.name}.png"
        write_whole(folder / name, drawing.png(chart.draw()))
        return _address(f"{folder.name}/{name}")

    return _template("page.md.j2", as_text).render(page=page, png=png, **_common(page))


def _address(path: str) -> Markup:
    """Return a path as an address in a Markdown page."""
    return Markup(quote(path, errors="surrogateescape"))


def looked_at(page: Page) -> list[Part]:
    """Return the runs that have an evaluation/ folder."""
    parts = [part for section in page.sections for part in section.parts] + page.left_out
    return [part for part in parts if part.evaluation]


def _common(page: Page) -> dict[str, Any]:
    rows = [
        (
            mark,
            *(getattr(row, key) for key in PUBLISHED),
            f"{row.source} ({'; '.join(filter(None, (row.verified, row.note)))})",
        )
        for mark, row in page.published
    ]
    head = ("", *PUBLISHED, "source")
    return {"method": METHOD, "captions": CAPTIONS, "published_head": head, "published_rows": rows}


def _template(name: str, finalize: Callable[[Any], Any] | None = None) -> Any:
    """Return a template that escapes its values with `finalize`, or else for HTML."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code"] = lambda text: Markup(" ".join(str(text).replace("`", "'").split()))
    return environment.get_template(name)


# Starts of lines with a meaning in Markdown: lists, rules, underlines, definitions.
_AT_START = re.compile(r"^(?:[-+](?=[-+\s]|$)|[=:]|\d{1,9}(?=[.)](?:\s|$)))")
# What has a meaning anywhere, except the _ inside a name; and what turns an address into a link.
_WITHIN = re.compile(r"[\\`*\[\]|~#$^{}!@]|_(?![^\W_])|(?<![^\W_])_|(?<=\w):(?=//)|(?<=\bwww)\.", re.IGNORECASE)


def as_text(value: Any) -> Markup:
    """Escape a value to plain text in one line, at the start of a Markdown line, within it, or in a table.

    Markup, which is the page's own, is returned as it is.
    """
    if isinstance(value, Markup):
        return value
    text = _WITHIN.sub(r"\\\g<0>", " ".join(str(value).split()))
    start = _AT_START.match(text)
    if start:  # a backslash before a digit would be printed
        at = start.end() if text[0].isdigit() else 0
        text = f"{text[:at]}\\{text[at:]}"
    return Markup(html.escape(text, quote=False))
