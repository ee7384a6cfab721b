"""A hook whose name is misspelt is an error, not silence."""

from __future__ import annotations

import pytest
from composer.core import Algorithm

from config.load import read_recipe, recipe_files
from config.schema import Config
from recipes.algorithms._base import RecipeAlgorithm, check_hooks
from training import build


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("image_transforms", "image_transform"),
        ("size_in_loaders", "size_in_loader"),
        ("required_onload", "required_on"),
    ],
)
def test_misspelt(name: str, meant: str) -> None:
    algorithm: Algorithm = type("Mine", (RecipeAlgorithm,), {"match": None, "apply": None})()
    check_hooks(algorithm)
    setattr(algorithm, name, lambda *_: None)
    with pytest.raises(TypeError, match=f"Mine.{name} is not a hook.*say {meant}"):
        check_hooks(algorithm)


@pytest.mark.parametrize("recipe", recipe_files())
def test_ours_have_none(recipe: str) -> None:
    algorithms = read_recipe(recipe).changes.get("algorithms") or {}
    build.algorithms(Config(algorithms=algorithms))
