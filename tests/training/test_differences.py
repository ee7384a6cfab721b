"""A run may be resumed by a later version with keys that its config.yaml lacks."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from config import load
from training.earlier_run import differences, plain


@pytest.mark.parametrize(("recipe", "expected"), [("baseline", []), ("sgd", ["model.init: mosaic -> torchvision"])])
def test_a_key_that_the_old_run_lacks_has_its_default(recipe: str, expected: list[str]) -> None:
    now = plain(load(["yamls/digits.yaml", f"recipe_name={recipe}", "dry_run=true"]))
    old = OmegaConf.create(now)
    del old.model.init
    assert differences(old, now) == expected
    old.optimizer.lr = 0.5
    assert f"optimizer.lr: 0.5 -> {now['optimizer']['lr']}" in differences(old, now)
