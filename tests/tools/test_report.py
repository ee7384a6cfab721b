"""The report: its contents, its self-contained files, and its treatment of incomplete runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from config import load
from main import main as train
from tests.runs import small_yaml
from tests.tools.checked_page import Checked
from tests.tools.left_runs import A10G, DIGITS, ROOT, leave_run
from tools.report.__main__ import run
from tools.report.charts import pareto
from tools.report.drawing import spread_labels
from tools.report.words import letter

pytestmark = pytest.mark.slow  # each test draws a report


def report(*words: str) -> Checked:
    """Write the HTML report and return it parsed."""
    assert run([*words, "-o", "page.html"]) == 0
    return Checked(Path("page.html").read_text())


@pytest.fixture
def runs(workdir: Path) -> Path:
    """Three runs of mild, one of baseline, one of onecycle on another machine, with ImageNet's sizes."""
    for seed, top1 in enumerate((76.0, 77.0, 78.5)):
        words = ("recipe_name=mild", "scale_schedule_ratio=0.8888889", f"seed={seed}")
        leave_run(workdir / f"runs/mild-{seed}", *words, top1=top1, epoch_seconds=50)
    leave_run(workdir / "runs/base-0", top1=76.5)
    leave_run(workdir / "runs/cycle-0", "recipe_name=onecycle", top1=75.0, epoch_seconds=2103, machine=A10G)
    return workdir / "runs"


def test_the_page_is_self_contained(runs: Path) -> None:
    page = report("runs")
    assert "script" not in page.tags and "link" not in page.tags
    assert all(address.startswith("#") for address in page.addresses), page.addresses
    assert page.tags.count("svg") == page.tags.count("figure") == 6 + 2 * len(("top1", "top5"))
    assert len(page.ids) == len(set(page.ids)), "two figures share an id"
    content = Path("page.html").read_text()
    assert set(re.findall(r"https?://[^\s\"<)]+", content)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert "prefers-color-scheme: dark" in content and "@media print" in content
    assert not re.search(r"<svg[^>]* width=\"\d+pt", content) and "#0072b2;" not in content.split("</style>")[1]


def test_figures(runs: Path) -> None:
    """Means and deviations by hand (test_records), minutes, speed, cost at list price, published figures."""
    page = report("runs").text
    assert "5 runs: 5 finished." in page
    assert "mild, 32ep 8x NVIDIA A100-SXM4-40GB 3 77.17 ± 1.26" in page
    assert "26.7 ± 0.0 32.0 ± 0.0 25,623 ± 0" in page  # 32 epochs of 50 s; a fifth more in all
    assert f"{32 / 60 * 21.957642:.2f} ± 0.00" in page
    assert "76.6 (here +0.57) Composer docs, tutorial train_resnet50_on_aws" in page
    assert re.search(r"baseline, 90ep 8x NVIDIA A100-SXM4-40GB 1 76\.50 (\S+ )*?93\.00 ", page)
    assert "Mean ± standard deviation (ddof = 1) over n runs" in page
    assert "Cost: p4d.24xlarge at $21.9576/h on-demand." in page
    assert "bands two standard deviations (ddof = 1)" in page
    assert "Hollow marks are published figures, never measured here" in page
    assert "Training loss is BCE, summed over classes, where model.loss_name=binary_cross_entropy" in page


def test_each_run(runs: Path) -> None:
    """Its changes from this report's baseline run, where it ran, and the command that repeats it."""
    page = report("runs").text
    assert re.search(r"mild-0 : finished \(top-1 76.00 %, .*?top-5 93.00 %, .*?32.0 min, \$11.71\)", page)
    assert "Against the run base-0" in page and "eval_dataset.resize_size 232 256" in page
    assert "algorithms.ema.half_life 100ba -" in page
    assert "python main.py yamls/resnet50.yaml recipe_name=mild scale_schedule_ratio=0.8888889 seed=1" in page
    assert "Against recipe baseline of yamls/resnet50.yaml" in page  # of base-0 itself
    assert "packages torch" in page and "commit c0ffee" in page


def test_compared_with_a_baseline_that_was_not_run(workdir: Path) -> None:
    """Without baseline.yaml, today's baseline of the run's YAML; if the YAML is unknown, the published baseline."""
    (leave_run(workdir / "runs/a", "recipe_name=mild", yaml="digits", data=DIGITS) / "baseline.yaml").unlink()
    other = leave_run(workdir / "runs/b", "recipe_name=mild", "seed=3", yaml="digits", data=DIGITS)
    (other / "baseline.yaml").unlink()
    environment = other / "environment.json"
    environment.write_text(environment.read_text().replace("yamls/digits.yaml", "mine.yaml"))
    page = report("runs").text
    first, second = page.split("Runs a : finished")[1].split("b : finished")
    today = "as of today's checkout: the run recorded none"
    assert f"Against recipe baseline of yamls/digits.yaml, {today}" in first and "max_duration 8ep 10ep" in first
    assert "model.name" not in first and "model.name resnet18 resnet50" in second
    assert f"Against the published baseline (recipes/baseline.yaml on the defaults), {today}" in second


def test_compared_with_the_baseline_of_its_time(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changing a recipe after a run started does not change the run's report."""
    folder = leave_run(workdir / "runs/a", "recipe_name=mild", yaml="digits", data=DIGITS)
    monkeypatch.setattr("tools.report.content.baseline_of", lambda _words: ("another baseline", {"seed": 3}))
    first = report("runs").text
    assert "Against recipe baseline of yamls/digits.yaml key here there" in first
    assert "model.name" not in first and "max_duration 8ep 10ep" in first
    (folder / "baseline.yaml").write_text("{")
    damaged = report("runs").text
    assert "baseline.yaml cannot be read" in damaged and "Against another baseline, as of today's checkout" in damaged


def test_markdown(runs: Path) -> None:
    assert run(["runs", "-o", "out/report.md", "-o", "out/both.html"]) == 0
    text = Path("out/report.md").read_text()
    images = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    assert len(images) == len(set(images)) == 6 + 2 * len(("top1", "top5"))
    for image in images:
        assert Path("out", image).read_bytes().startswith(b"\x89PNG")
    assert "| 1 | mild, 32ep | 8x NVIDIA A100-SXM4-40GB | 3 | 77.17 ± 1.26 |" in text
    tables = re.findall(r"((?:^\|.*\n)+)", text, re.MULTILINE)
    for table in tables:  # tables are contiguous, with equal numbers of cells per line
        lines = table.replace("\\|", "").splitlines()
        assert len({line.count("|") for line in lines}) == 1 and set(lines[1]) == {"|", "-"}
    assert Path("out/both.html").is_file()


def test_no_torch(runs: Path) -> None:
    code = "import sys; from tools.report.__main__ import run; s = run(sys.argv[1:]); print(s, 'torch' in sys.modules)"
    words = [sys.executable, "-c", code, str(runs), "-o", str(runs.parent / "page.html")]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "0 False", done.stderr


def test_runs_in_no_table(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Crashed, killed, unreadable: listed with how they ended and what they had cost, in the terminal too."""
    leave_run(runs / "crashed", "recipe_name=hot", epochs=3, ended="failed: the loss is nan")
    leave_run(runs / "killed", "recipe_name=hot", epochs=6, ended=None)
    broken = leave_run(runs / "broken")
    (broken / "config.yaml").write_text("model: [")
    (runs / "empty").mkdir()
    page = report("runs").text
    assert "9 runs: 5 finished, 1 failed, 1 unfinished, 2 unreadable." in page
    assert "Runs in no table" in page and "crashed : failed: the loss is nan (top-1 3.33 %" not in page
    assert "crashed : failed: the loss is nan (top-1" in page and "6.0 min, $2.20)" in page
    assert "killed : no summary at step 3,750, after 6 evaluations: it is still running, or was killed" in page
    assert "broken : config.yaml cannot be read" in page and "empty : not a run: it holds none of" in page
    assert "in no table: killed: no summary" in capsys.readouterr().out


def test_broken_records(runs: Path) -> None:
    """Readable parts are used, and faults are listed below the table and with the run."""
    with (runs / "mild-0/metrics.csv").open("a") as file:
        file.write("33,2062")
    (runs / "mild-1/environment.json").write_text("{")
    page = report("runs").text
    assert page.count("mild-0: metrics.csv is cut off in line 34: '33,2062' is not used.") == 1
    assert "mild-1: environment.json cannot be read" in page
    assert "unknown hardware" in page and "Cost: no price for unknown hardware in prices.yaml" in page


def test_nothing_finished(workdir: Path) -> None:
    leave_run(workdir / "runs/killed", epochs=6, ended=None)
    page = report("runs")
    assert "No run has finished, so there is nothing to compare." in page.text and "figure" not in page.tags


def test_data_sets_have_separate_tables(runs: Path) -> None:
    """Published figures are shown only with ImageNet's table."""
    leave_run(runs / "digits-0", yaml="digits", data=DIGITS, top1=97.0)
    page = report("runs").text
    assert "resnet50 on ImageNet-1k: 1,281,167 images, 50,000 to evaluate, 1000 classes" in page
    digits = page.split("resnet18 on data/digits: 1,438 images, 359 to evaluate, 10 classes")[-1]
    assert "97.00" in digits and "not comparable" in digits
    assert "Hollow marks" not in digits.split("Published figures")[0]


def test_five_classes_have_no_top5(workdir: Path) -> None:
    """In the table, charts, runs and evaluations; six classes have one."""
    for classes in (5, 6):
        run_name, data = f"runs/{classes}", DIGITS | {"classes": classes}
        folder = leave_run(workdir / run_name, f"model.num_classes={classes}", data=data) / "evaluation"
        folder.mkdir()
        (folder / "summary.json").write_text('{"top1": 76.0, "top5": 100.0}')
        rows = "".join(f"{n},50,{n},100\n" for n in range(classes))
        (folder / "per_class.csv").write_text("class,images,top1,top5\n" + rows)
        (folder / "sizes.csv").write_text("size,top1,top5,flip_top1,flip_top5\n32,76,100,76,100\n")
        for page in ("page.html", "page.md"):
            assert run([run_name, "-o", page]) == 0
            text = Path(page).read_text().split("Published figures")[0].lower()
            assert "76.00" in text and ("top-5" in text) == (classes > 5) and "loss is bce" not in text


def test_a_machine_without_a_price(runs: Path) -> None:
    leave_run(runs / "a40", "recipe_name=adam", machine={"device": "NVIDIA A40", "world_size": 4, "nodes": 1})
    page = report("runs").text
    assert "Cost: no on-demand price for 4xA40 (a university's cluster) in prices.yaml: give --price." in page
    assert "Cost: $0.97/h as given." in report("runs", "--price", "0.97").text
    assert "and 390 GB at $0.08 per GB and month" in report("runs", "--storage=390", "--storage-price=0.08").text


def test_many_groups(runs: Path) -> None:
    """Six have a color and a number in the charts, the others are gray; a note says so."""
    for number in range(6):
        leave_run(runs / f"lr-{number}", f"optimizer.lr={number + 1}.5", top1=70 + number)
    page = report("runs")
    assert "The charts color and number the first 6 groups; the others are gray." in page.text
    assert "baseline, 90ep, optimizer.lr=3.5" in page.text


def test_names_are_text(workdir: Path) -> None:
    leave_run(workdir / "runs/<b>&amp;|x", "max_duration=2ep")
    assert "<b>&amp;|x : finished" in report("runs").text
    assert run(["runs", "-o", "page.md"]) == 0


def test_evaluation(runs: Path) -> None:
    """All files of tools.evaluate; a missing or broken one does not affect the others."""
    folder = runs / "mild-0/evaluation"
    folder.mkdir()
    summary = {"top1": 76.0, "top5": 93.0, "loss": 1.0, "calibration_error": 4.0, "images": 50000}
    (folder / "summary.json").write_text(json.dumps(summary | {"flip": {"top1": 76.4, "top5": 93.2, "loss": 0.98}}))
    classes = "".join(f"class {n},50,{50 + n},90\n" for n in range(12))
    (folder / "per_class.csv").write_text("class,images,top1,top5\n" + classes)
    (folder / "confusions.csv").write_text("true,predicted,count,share\nmug,cup,20,0.4\ncup,mug,25,0.5\n")
    (folder / "sizes.csv").write_text("size,top1,top5,flip_top1,flip_top5\n160,74,92,74.3,92.1\n224,76,93,,\n")
    (folder / "reliability.csv").write_text(
        "bin_low,bin_high,images,confidence,accuracy\n0,0.5,10,0.3,0.2\n0.5,1,0,,\n"
    )
    (folder / "mistakes.png").write_bytes(b"\x89PNG\r\n\x1a\n images")
    other = runs / "base-0/evaluation"
    other.mkdir()
    (other / "summary.json").write_text("{")
    (other / "per_class.csv").write_text("class,images,top1,top5\nmug,50,80,95\ncu")
    page = report("runs")
    assert (
        "mild-0 : top-1 76.00 %, top-5 93.00 %, loss 1.0000, calibration error 4.00 points, 50,000 images; "
        in page.text
    )
    assert "mirrored too: top-1 76.40 %" in page.text
    assert "Hardest 10 of 12 classes class images top-1, % top-5, % class 0 50 50 90" in page.text
    assert "is taken for times of its class cup mug 25 50.0 % mug cup 20 40.0 %" in page.text
    assert "160 74 92 74.30 92.10" in page.text
    assert [a[:33] for a in page.addresses if not a.startswith("#")] == ["data:image/png;base64,iVBORw0KGgo"]
    assert "base-0 : no summary evaluation/summary.json cannot be read" in page.text
    assert "evaluation/per_class.csv cannot be read (line 3 is not whole)" in page.text
    assert run(["runs", "-o", "page.md"]) == 0
    assert Path("page/mistakes-1.png").read_bytes() == b"\x89PNG\r\n\x1a\n images"
    assert "| 0 | 0.50 | 10 | 0.30 | 0.20 |" in Path("page.md").read_text()


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["nowhere"], 1, "nowhere: no such folder"),
        (["empty"], 1, "empty: no run found; a run leaves config.yaml"),
        (["runs", "-o", "page.pdf"], 2, "-o page.pdf: must end in .html (one file) or .md"),
        (["runs", "-o", "/proc/page.html"], 1, "-o /proc/page.html: cannot be written"),
        (["runs", "-o", "folder.html"], 1, "-o folder.html: cannot be written (it is a folder)"),
        (["runs", "-o", "file/page.html"], 1, "-o file/page.html: cannot be written"),
        (["runs", "--price", "-1"], 2, "--price -1: must be 0 or more"),
        (["runs", "--price", "nan"], 2, "--price nan: must be 0 or more"),
        (["runs", "--storage", "390"], 2, "--storage and --storage-price: give both"),
    ],
)
def test_mistakes(
    workdir: Path, capsys: pytest.CaptureFixture[str], words: list[str], status: int, sentence: str
) -> None:
    for name in ("runs", "empty", "folder.html"):
        Path(name).mkdir()
    Path("file").touch()
    assert run(words) == status
    assert sentence in capsys.readouterr().err
    assert sorted(path.name for path in workdir.iterdir()) == ["empty", "file", "folder.html", "runs"]


def test_report_of_real_runs(workdir: Path, image_folder: Path) -> None:
    for seed in (1, 2):
        train(load([str(small_yaml(workdir, image_folder)), f"seed={seed}", f"run_name=s{seed}"])).close()
    page = report("runs").text
    assert "2 runs: 2 finished." in page
    assert "48 images, 21 to evaluate, 3 classes" in page and "baseline, 2ep CPU" in page
    assert "Cost: no price for CPU" in page


def test_pareto() -> None:
    """By hand: cheaper and at least as good."""
    assert pareto([(3, 78), (1, 76), (2, 75), (2, 77), (4, 78)]) == [(1, 76), (2, 77), (3, 78)]
    assert pareto([]) == []


def test_labels_do_not_overlap() -> None:
    assert spread_labels([0.2, 0.9], 0.1) == [0.2, 0.9]
    assert spread_labels([0.5, 0.5], 0.1) == pytest.approx([0.45, 0.55])
    assert spread_labels([1.0, 0.99, 0.2], 0.1) == pytest.approx([1.0, 0.9, 0.2])
    assert spread_labels([], 0.1) == []


def test_letters() -> None:
    assert [letter(place) for place in (0, 25, 26, 51, 52)] == ["a", "z", "aa", "az", "ba"]
