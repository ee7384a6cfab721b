"""Reports of foreign run folders: no file outside of them is read, and none of their text is markup."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from tests.tools.checked_page import Checked
from tests.tools.left_runs import leave_run
from tools.compare.__main__ import run as compare
from tools.evaluate.__main__ import run as evaluate
from tools.records.reading import FILES, read_run, read_runs
from tools.report.__main__ import run

pytestmark = pytest.mark.slow  # each test draws a report

SECRET = "aws_secret_access_key"
TABLES = ("summary.json", "per_class.csv", "confusions.csv", "sizes.csv", "reliability.csv", "mistakes.png")


@pytest.fixture
def folder(workdir: Path) -> Path:
    """A finished run with an empty evaluation/, next to a file with a secret."""
    (workdir / "credentials").write_text(f"{SECRET}=1\n")
    leave_run(workdir / "runs/one")
    (workdir / "runs/one/evaluation").mkdir()
    return workdir / "runs/one"


def reported() -> str:
    """Return both forms of the report and the files of the Markdown one."""
    assert run(["runs", "-o", "page.html", "-o", "page.md"]) == 0
    others = b"".join(path.read_bytes() for path in Path("page").iterdir())
    return Path("page.html").read_text() + Path("page.md").read_text() + others.decode(errors="replace")


@pytest.mark.parametrize("form", ["absolute", "relative", "hidden"])
@pytest.mark.parametrize("name", [*FILES, *(f"evaluation/{name}" for name in TABLES)])
def test_links_out_of_a_run_are_not_followed(name: str, form: str, folder: Path, workdir: Path) -> None:
    """Directly, or through a folder of the run that is a link."""
    file = folder / name
    file.unlink(missing_ok=True)
    target = workdir / "credentials"
    if form == "hidden":
        (folder / "up").symlink_to(workdir)
        target = folder / "up/credentials"
    file.symlink_to(os.path.relpath(target, file.parent) if form == "relative" else target)
    said = reported() if name != "config.yaml" else str(read_run(folder).remarks)
    assert SECRET not in said
    assert "a link that leads out of the run" in said


def test_an_evaluation_folder_that_is_a_link(folder: Path, workdir: Path) -> None:
    (folder / "evaluation").rmdir()
    (workdir / "elsewhere").mkdir()
    (workdir / "elsewhere/summary.json").write_text(json.dumps({"top1": 12.345678}))
    (folder / "evaluation").symlink_to(workdir / "elsewhere")
    said = reported()
    assert "top-1 12.3" not in said and "a link that leads out of the run" in said


@pytest.mark.parametrize("name", ["runs/two", "runs/.hidden/../two", "runs/holder", "runs/deep/er/holder"])
def test_runs_that_are_links(name: str, folder: Path, workdir: Path) -> None:
    """Whether the run or its parent is a link: it is listed, but neither run nor evaluation is read."""
    (workdir / "runs/.hidden").mkdir()
    elsewhere = leave_run(workdir / "elsewhere/mine", "optimizer.lr=0.123456")
    (elsewhere / "evaluation").mkdir()
    (elsewhere / "evaluation/summary.json").write_text(json.dumps({"top1": 12.345678}))
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).symlink_to(elsewhere if name.endswith("two") else elsewhere.parent)
    said = reported()
    assert "0.123456" not in said and "top-1 12.3" not in said
    assert "a link that leads out of the folder that it is in is not followed" in said and "1 unreadable" in said


def test_links_inside_or_named_by_the_user(folder: Path, workdir: Path) -> None:
    """A link to another run in the folder is that run, listed once; the user may name a link."""
    leave_run(workdir / "runs/.store/two")
    (workdir / "runs/a-link").symlink_to("one")
    (workdir / "runs/two").symlink_to(".store/two")
    (workdir / "typed").symlink_to("runs")
    (workdir / "typed-run").symlink_to("runs/one")
    for place in ("runs", "typed"):
        assert [record.name for record in read_runs([place])] == ["one", "two"]
    assert [(record.name, record.summary["ended"]) for record in read_runs(["typed-run"])] == [("one", "finished")]
    assert read_runs(["runs"])[0].folder == Path("runs/one")


def test_compare_and_evaluate_follow_no_link_out(folder: Path, workdir: Path, capsys: pytest.CaptureFixture) -> None:
    leave_run(workdir / "elsewhere/mine")
    (workdir / "runs/two").symlink_to(workdir / "elsewhere/mine")
    assert compare(["two", "one"]) == 1
    assert f"runs/two: leads out of runs; name the folder itself: {workdir}/elsewhere/mine" in capsys.readouterr().err
    assert compare(["runs/two", "one"]) == 0, "a folder that the user names may be a link"
    (folder / "config.yaml").rename(workdir / "config.yaml")
    (folder / "config.yaml").symlink_to(workdir / "config.yaml")
    assert evaluate([str(folder)]) == 2
    assert "config.yaml: a link that leads out of the run's folder is not followed; put" in capsys.readouterr().err
    (folder / "config.yaml").unlink()
    (workdir / "config.yaml").rename(folder / "config.yaml")
    (folder / "evaluation").rmdir()
    (folder / "evaluation").symlink_to(workdir / "elsewhere")
    (workdir / "named").symlink_to(folder)
    assert evaluate(["named"]) == 2
    said = capsys.readouterr().err
    assert f"named/evaluation: leads out of the run; name the folder to write to: -o {workdir}/elsewhere" in said


def test_a_link_inside_the_run_is_followed(folder: Path) -> None:
    (folder / "summary.json").rename(folder / "summary-1.json")
    (folder / "summary.json").symlink_to("summary-1.json")
    record = read_run(folder)
    assert record.summary and not record.remarks


def test_only_images_are_embedded(folder: Path) -> None:
    (folder / "evaluation/mistakes.png").write_text(SECRET)
    said = reported()
    assert SECRET not in said and "mistakes.png cannot be read (it is not a PNG)" in said


@pytest.mark.parametrize("name", [*FILES, *(f"evaluation/{name}" for name in TABLES)])
def test_a_huge_file_is_not_read(name: str, folder: Path) -> None:
    """It takes no space in an archive, but all memory to read."""
    (folder / name).touch()
    os.truncate(folder / name, 2**40)
    said = reported() if name != "config.yaml" else str(read_run(folder).remarks)
    assert "it has more than 67,108,864 bytes" in said


def test_a_pipe_does_not_block(folder: Path) -> None:
    (folder / "metrics.csv").unlink()
    os.mkfifo(folder / "metrics.csv")
    os.mkfifo(folder / "evaluation/mistakes.png")
    assert reported().count("it is not a file") >= 2


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[x](javascript:alert(1))",
        "![x](http://a.test/x.png)",
        "a\n\n# heading",
        "a | zwei | c",
        "`<b>`",
        "\ud800",
    ],
)
def test_text_of_a_run_is_shown_as_it_is(text: str, folder: Path) -> None:
    """In the summary, the environment, the command, and a table of the evaluation."""
    summary = json.loads((folder / "summary.json").read_text())
    # An unfinished run shows how it ended.
    (folder / "summary.json").write_text(json.dumps(summary | {"ended": f"failed: {text}", "command": text}))
    environment = json.loads((folder / "environment.json").read_text())
    (folder / "environment.json").write_text(json.dumps(environment | {"device": text, "python": text}))
    (folder / "evaluation/per_class.csv").write_text("class,images,top1,top5\n" + f'"{text}",1,2,3\n', errors="replace")
    leave_run(Path("runs/two"))
    assert run(["runs", "-o", "page.html", "-o", "page.md"]) == 0
    page = Checked(Path("page.html").read_text())
    assert not {"script", "img"} & set(page.tags) and not any("javascript" in a for a in page.addresses)
    markdown = re.sub(r"`[^`\n]*`|^    .*$", "", Path("page.md").read_text(), flags=re.MULTILINE)  # code is inert
    assert not re.search(r"<(script|img|b)\b|(?<!\\)\]\((javascript|http)|^# heading", markdown, re.MULTILINE)
    assert "| zwei |" not in markdown


@pytest.mark.parametrize("table", ["bin_low,bin_high\n0,1\n", "bin_low,bin_high,images,confidence,inf\n0,1,2,3,4\n"])
def test_a_column_that_is_missing(table: str, folder: Path) -> None:
    (folder / "evaluation/reliability.csv").write_text(table)
    assert "1 finished" in reported()
