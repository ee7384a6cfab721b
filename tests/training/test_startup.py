"""The start of a run: what is not imported for it, and what works nevertheless."""

import subprocess
import sys

import cpuinfo
import pytest

from training.startup import UNUSED, processor

PROGRAM = f"""
import importlib, sys
from training.startup import import_composer
import_composer()
from training import build, checkpoints, devices, effects, guards, record
import torch
from torchmetrics.classification import MulticlassAccuracy
accuracy = MulticlassAccuracy(3, average="micro")(torch.tensor([0, 1, 2, 1]), torch.tensor([0, 1, 1, 1]))
print([name for name in {UNUSED} if name in sys.modules], float(accuracy))
print([importlib.import_module(name).__name__ for name in {UNUSED}])
from lightning_utilities.core.imports import RequirementCache, package_available
print(package_available("scipy"), bool(RequirementCache("scipy>=1.8.0")))
"""


@pytest.mark.slow
def test_unused_packages_are_not_imported_but_can_be() -> None:
    lines = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout
    assert lines.splitlines() == ["[] 0.75", str([*UNUSED]), "True True"]


@pytest.mark.slow
def test_the_processor_is_named_as_composer_names_it() -> None:
    assert processor() == cpuinfo.get_cpu_info().get("brand_raw", "CPU")
