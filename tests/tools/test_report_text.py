"""Foreign text in a Markdown report stays text for a CommonMark parser with GitHub's tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.tools.left_runs import leave_run
from tools.report.__main__ import run
from tools.report.write import as_text

PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
TEXTS = (
    "# h, > q, - x, -, ---, - - -, -\tx, + x, +, ===, =, ~~~, ```, `x`, 1. x, 1) x, 12., _x_, __x__, *x*, **x**, : x,"
    "a\u2028# h,a\u2029- x,a\u0085- x,a\n\n# h,a\n---,a\n===,\x1c# h,\x0b# h,\xa0# h,    code,\tcode,a  ,a\n    b, x #,"
    "http://a.b/c,HTTPS://a.b,ftp://a.b,www.a.b,a@b.c,<http://a.b>,<script>x</script>,<!-- x,<a href='x'>,&lt;b&gt;,"
    "&#35;,| a | b,a | b\\,\\|,\\,\\\\,a\\\nb,[x]: http://a,[x](y),![x](y),[^1]: x,- [ ] x,~x~,~~x~~,$x$"
).split(",")
LINES = ("{}\n", "before\n\n{}\n", "before\n{}\n", "#### {}\n", "* {}\n", "| a | b |\n|---|---|\n| {} | c |\n")


def shape(tokens: list[Token]) -> list[tuple[str, str]]:
    """Return the tokens that a parser sees, without text."""
    inner = [shape(token.children or []) for token in tokens]
    own = [[(token.type, token.tag)] if not token.type.startswith("text") else [] for token in tokens]
    return [kind for pair in zip(own, inner, strict=True) for kinds in pair for kind in kinds]


def text(tokens: list[Token]) -> str:
    """Return all text that is shown, one line per block."""
    return "\n".join("".join(child.content for child in token.children or []) or token.content for token in tokens)


@pytest.mark.parametrize("given", TEXTS)
def test_nothing_but_text(given: str) -> None:
    for line in LINES:
        tokens = PARSER.parse(line.format(as_text(given)))
        assert shape(tokens) == shape(PARSER.parse(line.format("word"))), line
        assert " ".join(given.split()) in text(tokens), line


@pytest.mark.parametrize("address", ["http://a.b", "https://a.b", "www.a.b"])
def test_no_address_is_live(address: str) -> None:
    """GitHub turns bare addresses into links."""
    assert address not in as_text(address)


@pytest.mark.parametrize(
    "given", ["76.07 ± 0.13", "-0.28", "+0.12", "1,281,167", "train_dataset.crop_size", "(2 of 3 runs)"]
)
def test_harmless_text_stays_readable(given: str) -> None:
    assert as_text(given) == given


def test_a_whole_report(workdir: Path) -> None:
    """With such texts in each field from a run's files, the page differs from one with plain words only in text."""
    runs = [TEXTS[at : at + 5] for at in range(0, len(TEXTS) - 4, 5)]
    for number in range(len(runs)):
        leave_run(workdir / f"runs/{number:02}", epochs=1)
    pages = []
    for words in (runs, [["word"] * 5] * len(runs)):
        for number, (ended, device, python, commit, name) in enumerate(words):
            folder = workdir / f"runs/{number:02}"
            said = json.loads((folder / "environment.json").read_text())
            said |= {"recipe": "x", "device": device, "python": python, "command": device, "packages": {commit: commit}}
            (folder / "environment.json").write_text(json.dumps(said))
            (folder / "summary.json").write_text(json.dumps({"step": 625, "ended": f"{ended} !"}))
            (folder / "evaluation").mkdir(exist_ok=True)
            (folder / "evaluation/per_class.csv").write_text(f'class,images\n"{name}",1\n')
        assert run(["runs", "-o", "page.md"]) == 0
        pages.append(PARSER.parse(Path("page.md").read_text()))
    assert shape(pages[0]) == shape(pages[1])
    assert all(" ".join(given.split()) in text(pages[0]) for given in TEXTS[: 5 * len(runs)])
