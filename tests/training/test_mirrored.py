"""eval_dataset.flip_tta: accuracy with mirror images, next to that of the single crop."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from composer.core import Precision
from composer.devices import DeviceCPU

from tests.image_files import make_imagefolder
from tests.runs import COMPOSER, run_main, small_yaml
from training.mirrored import Mirrored


def test_the_logits_are_added_not_the_probabilities() -> None:
    """Two images of class 0: a sure mirror image outweighs the image; the probabilities would say otherwise."""
    logits = torch.tensor([[2.0, 3.0, -9.0], [0.0, 6.0, 0.0]])
    mirrored = torch.tensor([[4.0, 2.9, -9.0], [8.0, 0.0, 7.9]])
    shown = []

    def eval_forward(batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        shown.append(batch[0])
        return mirrored

    images = torch.arange(2 * 3 * 2 * 4.0).reshape(2, 3, 2, 4)
    state = SimpleNamespace(
        batch=(images, torch.zeros(2, dtype=torch.int64)),
        outputs=logits,
        model=SimpleNamespace(eval_forward=eval_forward),
        precision=Precision.FP32,
        precision_config=None,
        device=DeviceCPU(),
    )
    measured = Mirrored(3)
    for _ in range(2):  # the second evaluation forgets the first
        measured.start(state)
        measured.add(state)
        assert measured.figures() == {"top1_tta": 100.0, "top5_tta": 100.0}
    assert torch.equal(shown[0], images.flip(-1))
    assert (logits.softmax(1) + mirrored.softmax(1)).argmax(1).tolist() == [0, 1]


@pytest.mark.slow
def test_a_run_reports_both_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On two ranks with 21 images, each counted once: equal to tools.evaluate in one process, also on paper."""
    from tools.evaluate.__main__ import run as evaluate
    from tools.report.__main__ import run as report

    data = make_imagefolder(tmp_path / "data", classes=("a", "b", "c"), per_class=7, size=40)
    yaml = small_yaml(tmp_path, data, max_duration="3ep", eval_dataset__flip_tta=True, scheduler__t_warmup="0ba")
    crop = ("eval_dataset.resize_size=-1", "eval_dataset.crop_ratio=0.875", "eval_dataset.interpolation=bicubic")
    done = run_main(yaml, "run_name=two", *crop, cwd=tmp_path, launcher=(COMPOSER, "-n", "2"))
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "runs/two"
    *_, row = csv.DictReader((folder / "metrics.csv").read_text().splitlines())
    assert float(row["top1_tta"]) * 21 / 100 == pytest.approx(round(float(row["top1_tta"]) * 21 / 100), abs=1e-3)
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["top1_tta"], summary["top5_tta"]) == (float(row["top1_tta"]), 100.0)
    assert f"mirrored too {float(row['top1_tta']):.2f} %" in done.stdout and "top-1 with mirror images" in done.stdout
    monkeypatch.chdir(tmp_path)
    assert evaluate([str(folder), "--checkpoint=latest"]) == 0
    found = json.loads((folder / "evaluation/summary.json").read_text())
    assert found["top1"] == pytest.approx(float(row["top1"]), abs=1e-3)
    assert found["flip"]["top1"] == pytest.approx(float(row["top1_tta"]), abs=1e-3)
    assert report(["runs/two", "-o", "report.md"]) == 0
    assert "top-1 with mirror images, %" in (tmp_path / "report.md").read_text()
