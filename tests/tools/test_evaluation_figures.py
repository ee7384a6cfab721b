"""tools.evaluate's figures, checked by hand and against torchmetrics."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from config import TrainingError
from tools.evaluate import figures, files
from tools.evaluate.figures import Answers, Pass
from tools.evaluate.passes import Listener, answers

# True classes a a a b b c, out of the classes a b c d.
MADE_UP = Pass(
    32,
    np.array([0, 0, 0, 1, 1, 2]),
    Answers(
        predicted=np.array([0, 1, 1, 1, 0, 0]),
        confidence=np.array([0.95, 0.9, 0.5, 0.2, 1.0, 0.2]),
        in_top5=np.array([True, True, False, True, True, True]),
        losses=np.array([0.1, 1.0, 2.0, 0.3, 3.0, 0.4]),
    ),
    None,
)


def test_figures_by_hand() -> None:
    found = figures.findings(MADE_UP, list("abcd"))
    (plain,) = found.result.accuracies
    assert (plain.top1, plain.top5, plain.loss) == pytest.approx((100 / 3, 500 / 6, 6.8 / 6))
    assert [(one.name, one.images) for one in found.classes] == [("a", 3), ("b", 2), ("c", 1), ("d", 0)]
    assert [one.top1 for one in found.classes] == [pytest.approx(100 / 3), 50.0, 0.0, None]
    assert [one.top5 for one in found.classes] == [pytest.approx(200 / 3), 100.0, 100.0, None]
    assert [(one.true, one.predicted, one.count) for one in found.confusions] == [
        ("a", "b", 2),
        ("c", "a", 1),
        ("b", "a", 1),
    ]
    assert [one.share for one in found.confusions] == pytest.approx([2 / 3, 1.0, 0.5])
    assert [one.name for one in figures.worst(found.classes, 9)] == ["c", "a", "b"]
    assert figures.mistakes(MADE_UP, 3) == [4, 1, 2] and figures.mistakes(MADE_UP, 0) == []


def test_calibration_by_hand() -> None:
    """A confidence on a bin's edge belongs to the lower bin, and a confidence of 1 to the last bin."""
    bins = figures.findings(MADE_UP, list("abcd")).bins
    filled = {number: b for number, b in enumerate(bins) if b.images}
    assert {number: b.images for number, b in filled.items()} == {2: 2, 7: 1, 13: 1, 14: 2}
    assert (bins[2].low, bins[2].high) == pytest.approx((2 / 15, 3 / 15))
    assert (filled[2].confidence, filled[2].accuracy) == pytest.approx((0.2, 0.5))
    assert (filled[14].confidence, filled[14].accuracy) == pytest.approx((0.975, 0.5))
    assert bins[0].confidence is None and bins[0].accuracy is None
    expected = (2 * 0.3 + 1 * 0.5 + 1 * 0.9 + 2 * 0.475) / 6
    assert figures.calibration_error(bins) == pytest.approx(100 * expected)


def test_calibration_equals_torchmetrics() -> None:
    from torchmetrics.functional.classification import multiclass_calibration_error

    draw = torch.Generator().manual_seed(0)
    logits, labels = 3 * torch.randn(997, 7, generator=draw), torch.randint(0, 7, (997,), generator=draw)
    predicted, confidence, _, _ = answers(logits, labels).numpy()
    ours = figures.calibration_error(figures.reliability(confidence, predicted == labels.numpy()))
    theirs = multiclass_calibration_error(logits.softmax(1), labels, num_classes=7, n_bins=15, norm="l1")
    assert ours == pytest.approx(100 * float(theirs), abs=1e-3)


def test_answers_by_hand() -> None:
    """With fewer than five classes, all are in the top 5."""
    both = torch.tensor([[0.5, 0.2, 0.3], [0.2, 0.7, 0.1]]).log() + 5
    labels = torch.tensor([2, 1])
    predicted, confidence, in_top5, losses = answers(both, labels).numpy()
    np.testing.assert_allclose(predicted, [0, 1])
    np.testing.assert_allclose(confidence, [0.5, 0.7], rtol=1e-5)
    np.testing.assert_allclose(losses, -np.log([0.3, 0.7]), rtol=1e-5)
    assert in_top5.tolist() == [1, 1]
    five = answers(torch.arange(7.0)[None].repeat(2, 1), torch.tensor([1, 2]))[2]
    assert five.tolist() == [0, 1]


def test_outputs_that_are_not_finite() -> None:
    listener = Listener(flip=False)
    listener.eval_start(None, None)
    listener.eval_after_forward(
        SimpleNamespace(batch=(None, torch.tensor([0, 1])), outputs=torch.tensor([[1.0, 2.0], [torch.nan, 1.0]])), None
    )
    with pytest.raises(TrainingError, match="not finite numbers for 1 of 2 images at 32 px"):
        listener.result(32)


def test_no_mistakes(capsys) -> None:
    from rich.console import Console

    right = Answers(np.array([1]), np.array([0.5]), np.array([True]), np.array([0.7]))
    result = Pass(32, np.array([1]), right, right)
    files.show(Console(width=100), figures.findings(result, ["[b]", "c"]), {32: result}, "[it]")
    assert "no mistakes" in capsys.readouterr().out
