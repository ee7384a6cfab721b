"""Code and YAMLs written for the published Mosaic ResNet example run unchanged."""

from pathlib import Path

import pytest
import torch
from composer.models import ComposerClassifier
from omegaconf import OmegaConf

from main import main
from model import build_composer_resnet
from tests.image_files import make_imagefolder
from tests.runs import ROOT

pytestmark = pytest.mark.slow

# Overrides that the published example's smoke tests merge over the YAML. They include each recipe's block: as in the
# published example, a block takes precedence over a configuration merged by the caller.
SMOKE = {
    "max_duration": "1ba",
    "device_train_microbatch_size": None,
    "train_dataset": {"is_streaming": False, "crop_size": 16, "batch_size": 2},
    "eval_dataset": {"is_streaming": False, "resize_size": 32, "crop_size": 16, "batch_size": 2},
    "mild": {"max_duration": "1ba"},
    "medium": {"max_duration": "1ba"},
    "hot": {"max_duration": "1ba"},
    "save_interval": "1ba",
    "save_num_checkpoints_to_keep": 1,
    "load_path": None,
}


@pytest.mark.parametrize("recipe_name", [None, "mild", "medium", "hot"])
def test_one_batch_then_reload(recipe_name: str | None, workdir: Path) -> None:
    config = OmegaConf.merge(OmegaConf.load(ROOT / "yamls/resnet50.yaml"), SMOKE)
    images = make_imagefolder(workdir / "images")
    config.train_dataset.path = config.eval_dataset.path = config.save_folder = str(images)
    config.recipe_name = recipe_name

    trained = main(config)
    weights = trained.state.model.module
    trained.state.dataloader._iterator._shutdown_workers()  # as the published tests do

    assert trained.state.timestamp.batch == 1
    checkpoint = images / "ep0-ba1-rank0.pt"
    assert checkpoint.is_file()

    config.load_path = str(checkpoint)
    config.is_train = False
    config.seed += 10
    loaded = main(config).state.model.module
    for one, other in zip(weights.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("model_name", "loss_name", "num_classes"),
    [
        ("resnet18", "binary_cross_entropy", 10),
        ("resnet34", "cross_entropy", 100),
        ("resnet50", "binary_cross_entropy", 100),
        ("resnet101", "cross_entropy", 10),
        ("resnet152", "cross_entropy", 10),
    ],
)
def test_model(model_name: str, loss_name: str, num_classes: int) -> None:
    model = build_composer_resnet(model_name, loss_name, num_classes)
    assert isinstance(model, ComposerClassifier)
    batch = torch.randn(1, 3, 64, 64), torch.randint(0, num_classes, (1,))
    with torch.no_grad():
        output = model(batch)
        loss = model.loss(output, batch)
    assert output.shape == (1, num_classes)
    assert output.dtype == torch.float
    assert torch.isfinite(loss)


def test_published_yaml_blocks(workdir: Path) -> None:
    """The published example's YAML, with its dotted override blocks, still trains as it says."""
    images = make_imagefolder(workdir / "images")
    config = OmegaConf.create(
        {
            "run_name": "old_style",
            "model": {"name": "resnet18", "loss_name": "cross_entropy", "num_classes": 3},
            "train_dataset": {"path": str(images), "crop_size": 16, "batch_size": 4},
            "eval_dataset": {"path": str(images), "resize_size": 16, "crop_size": 16, "batch_size": 4},
            "grad_accum": "auto",
            "recipe_name": "mild",
            "mild": {"model.loss_name": "binary_cross_entropy", "train_dataset.crop_size": 24, "max_duration": "1ba"},
            "save_folder": None,
        }
    )
    trainer = main(config)
    assert trainer.state.timestamp.batch == 1
    assert {type(algorithm).__name__ for algorithm in trainer.state.algorithms} >= {"BlurPool", "EMA", "LabelSmoothing"}
    assert trainer.state.model._loss_fn.__name__ == "binary_cross_entropy_with_logits"
    assert trainer.state.train_dataloader.dataset.pipeline.crop_size == 24
