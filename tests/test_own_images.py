"""docs/own-images.md: its commands, typed in order, lead from a folder of classes to a top-1 figure."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from data import build_imagenet_dataspec
from loaders.storage.inspection import main as look
from main import cli
from tests.pages import DOCS, blocks, commands
from tests.runs import summary
from tools.evaluate.__main__ import run as evaluate
from tools.export.__main__ import run as export
from tools.predict.__main__ import run as predict
from tools.split.__main__ import run as split

PAGE = DOCS / "own-images.md"
TINY = [
    "max_duration=2ep",
    "model.name=resnet18",
    *(
        f"{section}.{word}"
        for section in ("train_dataset", "eval_dataset")
        for word in ("crop_size=32", "num_workers=0")
    ),
    "eval_dataset.resize_size=32",
]


@pytest.mark.slow
@pytest.mark.usefixtures("few_channels")
def test_from_a_folder_to_a_figure(
    workdir: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The words are the page's, with a smaller network, smaller images and fewer epochs."""
    (workdir / "yamls").symlink_to(DOCS.parent / "yamls")
    monkeypatch.setattr("loaders.storage.inspection.MEASURED", 0.01)
    left = commands(PAGE)

    def typed(beginning: str) -> list[str]:
        """Return the words after the beginning of the page's next command of this kind."""
        while not left[0].startswith(beginning):
            left.pop(0)
        capfd.readouterr()
        return shlex.split(left.pop(0).removeprefix(beginning))

    typed("python crops.py")
    exec(compile(blocks(PAGE, "python")[0], "crops.py", "exec"), {})
    assert split([*typed("python -m tools.split "), "--workers=1"]) == 0
    said = capfd.readouterr().out
    assert said.split("\n")[0] in PAGE.read_text(), "what the page shows is not what is printed"
    table = {line.split()[0]: int(line.split()[2]) for line in said.split("\n") if re.search(r"^\w+ +\d+ +\d+$", line)}
    assert len(table) == 3
    assert look([*typed("python data.py "), "--workers=0"], build_imagenet_dataspec) == 0
    assert cli([*typed("composer main.py "), *TINY]) == 0
    figure = summary(workdir / "runs/crops")
    assert figure["ended"] == "finished" and 0 <= figure["top1"] <= 100
    assert evaluate(typed("python -m tools.evaluate ")) == 0
    said = capfd.readouterr().out
    assert re.search(rf"top-1\W+{figure['best_top1']:.2f} %", said) and "top-5" not in said  # 100 % of three classes
    assert predict(typed("python -m tools.predict ")) == 0
    assert "crops/flower/0-0.jpg" in capfd.readouterr().out
    assert export(typed("python -m tools.export ")) == 0
    assert (workdir / "runs/crops/export/crops.onnx").is_file() and "0 with another top-1" in capfd.readouterr().out
