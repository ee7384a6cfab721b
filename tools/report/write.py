"""The two forms of a report: one HTML file that needs nothing else, and Markdown with a folder of images."""

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
MOST_BYTES = 24 * 2**20  # of images in a page: each is a third larger there
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
    """Refuse a place that cannot be written, before the work.

    Raises:
        ConfigError: its ending says neither HTML nor Markdown.
        UserError: it cannot be written.
    """
    if target.suffix not in HTML + MARKDOWN:
        raise ConfigError(f"-o {target}: must end in .html (one file) or .md (with images in a folder beside it)")
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
    """The folder of a Markdown report's images: report/ beside report.md."""
    return target.with_suffix("")


def write(page: Page, target: Path) -> None:
    """Write a report in the form that the file's ending says."""
    render = render_markdown if target.suffix in MARKDOWN else render_html
    # What no UTF-8 can hold (half of a surrogate pair, out of a damaged file) is shown by its number.
    write_whole(target, render(page, target).encode(errors="backslashreplace"))


def render_html(page: Page, _target: Path) -> str:
    """The page as one HTML text; charts are drawn into it, images embedded up to MOST_BYTES."""
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
    """The page as Markdown; its images are written into the folder beside it."""
    folder = images_of(target)
    for number, part in enumerate(looked_at(page), 1):
        if path := part.evaluation.mistakes:  # type: ignore[union-attr]
            write_whole(folder / f"mistakes-{number}.png", path.read_bytes())
            part.evaluation.image = _address(f"{folder.name}/mistakes-{number}.png")  # type: ignore[union-attr]
    names: dict[int, str] = {
        id(chart): f"{letter(place)}-{chart.name}.png"
        for place, section in enumerate(page.sections)
        for chart in section.charts
    }

    def png(chart: Chart, _place: int) -> str:
        write_whole(folder / names[id(chart)], drawing.png(chart.draw()))
        return _address(f"{folder.name}/{names[id(chart)]}")

    return _template("page.md.j2", as_text).render(page=page, png=png, **_common(page))


def _address(path: str) -> Markup:
    """A path as an address in a Markdown page."""
    return Markup(quote(path, errors="surrogateescape"))


def looked_at(page: Page) -> list[Part]:
    """The runs that have an evaluation/ folder."""
    parts = [part for section in page.sections for part in section.parts] + page.left_out
    return [part for part in parts if part.evaluation]


def _common(page: Page) -> dict[str, Any]:
    rows = [(mark, *(getattr(row, key) for key in PUBLISHED), _source(row)) for mark, row in page.published]
    head = ("", *PUBLISHED, "source")
    return {"method": METHOD, "captions": CAPTIONS, "published_head": head, "published_rows": rows}


def _source(row: Any) -> str:
    return f"{row.source} ({'; '.join(filter(None, (row.verified, row.note)))})"


def _template(name: str, finalize: Callable[[Any], Any] | None = None) -> Any:
    """A template; whatever it is given is escaped: by `finalize`, else for HTML."""
    folder = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=folder,
        autoescape=True,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code"] = lambda text: Markup(" ".join(str(text).replace("`", "'").split()))
    return environment.get_template(name)


# What a line may begin with to be more than text: a list, with numbers too, a rule, what underlines, a definition.
_AT_START = re.compile(r"^(?:[-+](?=[-+\s]|$)|[=:]|\d{1,9}(?=[.)](?:\s|$)))")
# What Markdown or GitHub gives a meaning to anywhere, but the _ inside a name; and what makes an address a link.
_WITHIN = re.compile(r"[\\`*\[\]|~#$^{}!@]|_(?![^\W_])|(?<![^\W_])_|(?<=\w):(?=//)|(?<=\bwww)\.", re.IGNORECASE)


def as_text(value: Any) -> Markup:
    """Any value for a Markdown page as text alone, in one line: at the start of a line, within it, or in a table.

    Markup, which is the page's own, stays as it is.
    """
    if isinstance(value, Markup):
        return value
    text = _WITHIN.sub(r"\\\g<0>", " ".join(str(value).split()))
    start = _AT_START.match(text)
    if start:  # a backslash before a digit would be one
        at = start.end() if text[0].isdigit() else 0
        text = f"{text[:at]}\\{text[at:]}"
    return Markup(html.escape(text, quote=False))
