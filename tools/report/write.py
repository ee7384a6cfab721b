"""Write a report as one self-contained HTML file, or as Markdown with a folder of images."""

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
from tools.records.measured import HEAD
from tools.report import drawing
from tools.report.charts import Chart
from tools.report.content import Page
from tools.report.evaluation import Evaluation
from tools.report.words import letter

HTML, MARKDOWN = (".html", ".htm"), (".md",)
MOST_BYTES = 24 * 2**20  # of images to embed in a page; base64 makes them a third larger
METHOD = (
    "Mean ± standard deviation (ddof = 1) over n runs that differ in nothing but their seed. Accuracy is that of the "
    "last evaluation, not of the best. Training time has the waiting for data in it, not the evaluations; img/s are "
    "over that time; “total” is the wall clock, evaluations and restarts included."
)
CAPTIONS = (
    "Lines are means, bands two standard deviations (ddof = 1) to either side; one run has none. Over time, runs are "
    "interpolated to common times. The thin staircase is the Pareto front of the measured groups."
)
PUBLISHED = tuple(
    "recipe model variant top1 top5 epochs minutes hardware inferred_minutes n sd resolution protocol".split()
)


def check(target: Path) -> None:
    """Check, before the work, that a report can be written; ConfigError for an unknown suffix, otherwise UserError."""
    if target.suffix not in HTML + MARKDOWN:
        raise ConfigError(f"-o {target}: must end in .html (one file) or .md (with images in a folder next to it)")
    try:
        if target.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=target.parent).close()
        if target.suffix in MARKDOWN:
            target.with_suffix("").mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"-o {target}: cannot be written ({error.strerror}); name another file") from error


def write(page: Page, target: Path) -> None:
    """Write a report in the form of the file's suffix."""
    render = render_markdown if target.suffix in MARKDOWN else render_html
    # A damaged file may hold half of a surrogate pair, which UTF-8 cannot encode.
    write_whole(target, render(page, target).encode(errors="backslashreplace"))


def render_html(page: Page, _target: Path) -> str:
    """Render the page as HTML, with its charts as SVG and images embedded up to MOST_BYTES."""
    left = MOST_BYTES
    for evaluation in _evaluations(page):
        path = evaluation.mistakes
        size = path.stat().st_size if path else 0
        if path and size <= left:
            left -= size
            evaluation.image = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"

    def svg(chart: Chart, salt: str) -> Markup:
        return Markup(drawing.svg(chart.draw(), salt + chart.name))

    return _render("page.html.j2", page, None, look=drawing, svg=svg)


def render_markdown(page: Page, target: Path) -> str:
    """Render the page as Markdown, and write its images into a folder: report/ for report.md."""
    folder = target.with_suffix("")

    def written(name: str, content: bytes) -> Markup:
        write_whole(folder / name, content)
        return Markup(quote(f"{folder.name}/{name}", errors="surrogateescape"))

    for number, evaluation in enumerate(_evaluations(page), 1):
        if path := evaluation.mistakes:
            evaluation.image = written(f"mistakes-{number}.png", path.read_bytes())

    def png(chart: Chart, section: int) -> Markup:
        return written(f"{letter(section)}-{chart.name}.png", drawing.png(chart.draw()))

    return _render("page.md.j2", page, as_text, png=png)


def _evaluations(page: Page) -> list[Evaluation]:
    parts = [part for section in page.sections for part in section.parts] + page.left_out
    return [part.evaluation for part in parts if part.evaluation]


def _render(name: str, page: Page, finalize: Callable[[Any], Any] | None, **more: Any) -> str:
    """Render a template that escapes its values with `finalize`, or else for HTML."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code"] = lambda text: Markup(" ".join(str(text).replace("`", "'").split()))
    rows = [
        (
            mark,
            *(getattr(row, key) for key in PUBLISHED),
            f"{row.source} ({'; '.join(filter(None, (row.verified, row.note)))})",
        )
        for mark, row in page.published
    ]
    head = ("", *PUBLISHED, "source")
    more |= {"method": METHOD, "captions": CAPTIONS, "measured_head": HEAD}
    more |= {"published_head": head, "published_rows": rows}
    return environment.get_template(name).render(page=page, **more)


# Starts of lines that are markup in Markdown: lists, rules, underlines, definitions.
_AT_START = re.compile(r"^(?:[-+](?=[-+\s]|$)|[=:]|\d{1,9}(?=[.)](?:\s|$)))")
# Markup anywhere in a line, except the _ inside a name; and what turns an address into a link.
_WITHIN = re.compile(r"[\\`*\[\]|~#$^{}!@]|_(?![^\W_])|(?<![^\W_])_|(?<=\w):(?=//)|(?<=\bwww)\.", re.IGNORECASE)


def as_text(value: Any) -> Markup:
    """Escape a value to plain text on one line of Markdown or in a table; Markup, the page's own, stays as it is."""
    if isinstance(value, Markup):
        return value
    text = _WITHIN.sub(r"\\\g<0>", " ".join(str(value).split()))
    start = _AT_START.match(text)
    if start:  # a backslash before a digit would be printed
        at = start.end() if text[0].isdigit() else 0
        text = f"{text[:at]}\\{text[at:]}"
    return Markup(html.escape(text, quote=False))
