"""torchvision_v2, rsb_a1, rsb_a2, rsb_a3 and their variants: the published values, once merged."""

from __future__ import annotations

from typing import Any

import pytest

from config import durations_of
from config.schema import Config
from recipes.schedules import learning_rate
from tests.test_recipe_files import run_of

IMAGES = 1_281_167
FAMILY = {
    "torchvision_v2": (600, 176, 4),
    "torchvision_v2_176": (600, 176, 1),
    "torchvision_v2_224": (600, 224, 1),
    "rsb_a1": (600, 224, 3),
    "rsb_a2": (300, 224, 3),
    "rsb_a3": (100, 160, 1),
}
"""Recipe -> epochs, side of the training images in pixels, repetitions of an image."""
TORCHVISION = [name for name in FAMILY if name.startswith("torchvision")]
RSB: dict[str, dict[str, Any]] = {
    "rsb_a1": {"lr": 5e-3, "decay": 0.01, "mixup": 0.2, "magnitude": 7, "threshold": None},
    "rsb_a2": {"lr": 5e-3, "decay": 0.02, "mixup": 0.1, "magnitude": 7, "threshold": 0.2},
    "rsb_a3": {"lr": 8e-3, "decay": 0.02, "mixup": 0.1, "magnitude": 6, "threshold": 0.2},
}
RATES = {
    **{name: {0: 0.005, 4: 0.401, 5: 0.5, 300: 0.2532998965, 599: 3.4848e-6} for name in TORCHVISION},
    "rsb_a1": {0: 1e-4, 4: 0.00402, 5: 0.004999143484, 599: 1.034263e-6},
    "rsb_a2": {0: 1e-4, 5: 0.004996574522, 299: 1.137049e-6},
    "rsb_a3": {0: 1e-4, 4: 0.00642, 5: 0.007950759518, 50: 0.0040005, 99: 2.973512e-6},
}
"""Recipe -> epoch -> learning rate, of the sources' own schedulers."""


def merged(recipe: str) -> Config:
    return run_of(recipe).config


@pytest.mark.parametrize("recipe", FAMILY)
def test_lengths_data_and_learning_rates(recipe: str) -> None:
    config = merged(recipe)
    data, per_epoch = config.train_dataset, 1251 if recipe in TORCHVISION else 625
    length, warmup = durations_of(config)
    assert (length.value, data.crop_size, data.repeats) == FAMILY[recipe]
    assert IMAGES // 256 * 256 // data.batch_size == IMAGES // data.batch_size == per_epoch
    peak, total = config.optimizer["lr"], length.batches(per_epoch, data.batch_size)
    curve = learning_rate(config.scheduler, peak, total, warmup.batches(per_epoch, data.batch_size), per_epoch)
    for epoch, rate in RATES[recipe].items():
        for step in (0, per_epoch - 1):
            assert peak * curve(epoch * per_epoch + step) == pytest.approx(rate, rel=1e-4 if rate < 1e-5 else 1e-9)


@pytest.mark.parametrize("recipe", TORCHVISION)
def test_torchvisions_values(recipe: str) -> None:
    config = merged(recipe)
    assert (config.model.init, config.model.loss_name) == ("torchvision", "cross_entropy")
    assert config.optimizer == {
        "name": "sgd",
        "lr": 0.5,
        "momentum": 0.9,
        "weight_decay": 2e-5,
        "weight_decay_on": "not_norm",
    }
    evaluation = config.eval_dataset
    assert (evaluation.resize_size, evaluation.crop_size, evaluation.interpolation) == (232, 224, "bilinear")
    assert config.algorithms == {
        "trivial_augment_wide": {},
        "random_erasing": {"p": 0.1, "scale": [0.02, 0.33], "ratio": [0.3, 3.3]},
        "mix": {"mixup_alpha": 0.2, "cutmix_alpha": 1.0, "switch_prob": 0.5, "prob": 1.0, "partners": "roll"},
        "label_smoothing": {"smoothing": 0.1},
        "ema": {
            "half_life": None,
            "smoothing": None,
            "ema_start": "0.00833dur",
            "update_interval": "32ba",
            "decay": 0.99998,
        },
    }
    assert list(config.algorithms)[:3] == ["trivial_augment_wide", "random_erasing", "mix"]
    assert 4 / 600 < 0.00833 <= 5 / 600, "the average starts with epoch 5"


@pytest.mark.parametrize("recipe", RSB)
def test_the_values_of_resnet_strikes_back(recipe: str) -> None:
    config, own = merged(recipe), RSB[recipe]
    model, training, evaluation = config.model, config.train_dataset, config.eval_dataset
    assert (model.init, model.loss_name) == ("zero_last", "mean_binary_cross_entropy")
    assert model.target_threshold == own["threshold"]
    assert (evaluation.resize_size, evaluation.crop_size) == (int(224 / 0.95), 224)
    assert (training.interpolation, evaluation.interpolation) == ("bicubic", "bicubic")
    assert config.optimizer == {
        "name": "lamb",
        "lr": own["lr"],
        "betas": [0.9, 0.999],
        "eps": 1e-6,
        "weight_decay": own["decay"],
        "weight_decay_on": "weights",
        "max_grad_norm": 1.0,
    }
    mix = {"mixup_alpha": own["mixup"], "cutmix_alpha": 1.0, "switch_prob": 0.5, "prob": 1.0, "partners": "flip"}
    augmentation = {"magnitude": own["magnitude"], "std": 0.5, "num_ops": 2, "prob": 0.5}
    wanted: dict[str, Any] = {"timm_randaugment": augmentation, "mix": mix, "channels_last": {}}
    wanted |= {"label_smoothing": {"smoothing": 0.1}} if recipe == "rsb_a1" else {}
    wanted |= {"drop_path": {"rate": 0.05}} if recipe != "rsb_a3" else {}
    assert config.algorithms == wanted
