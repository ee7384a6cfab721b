"""A misspelled hook raises an error instead of being ignored."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from composer.core import Algorithm

from config.load import as_shipped, recipe_files
from config.schema import Config
from recipes.algorithms._base import RecipeAlgorithm, check_hooks
from recipes.algorithms.sam import SAM
from recipes.optimizers import AccumAdam
from training import build


def made(base: type[Algorithm], **attributes: Any) -> type[Algorithm]:
    """Build a class as a user would write it."""
    return type("Mine", (base,), {"match": None, "apply": None, "__init__": lambda _: None, **attributes})


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("image_transforms", "image_transform"),
        ("size_in_loaders", "size_in_loader"),
        ("required_onload", "required_on"),
        ("BOUND", "BOUNDS"),
    ],
)
def test_a_misspelled_hook(name: str, meant: str) -> None:
    """In a class when it is defined, on an instance when its run is built."""
    words = f"Mine.{name} is not a hook.*use {meant}"
    with pytest.raises(TypeError, match=words):
        made(RecipeAlgorithm, **{name: None})
    algorithm = made(RecipeAlgorithm)()
    check_hooks(algorithm)
    setattr(algorithm, name, lambda *_: None)
    with pytest.raises(TypeError, match=words):
        check_hooks(algorithm)


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match=r"^rho: -1 given, but it must be at least 0$"):
        SAM(rho=-1)
    with pytest.raises(ValueError, match=r"^betas: \(0\.9, 1\.0\) given"):
        AccumAdam([torch.nn.Parameter(torch.zeros(1))], betas=(0.9, 1.0))


def test_a_hook_of_an_algorithm_that_has_none() -> None:
    """Nothing would call it."""
    algorithm = made(Algorithm, image_transform=print)()
    with pytest.raises(TypeError, match="derive the class from RecipeAlgorithm"):
        check_hooks(algorithm)


def test_a_transform_that_is_not_declared() -> None:
    """Without the declaration, a dry run with storage=dali would not report the conflict."""
    with pytest.raises(TypeError, match=r"PER_IMAGE is 'False', but Mine.* has an image_transform"):
        check_hooks(made(RecipeAlgorithm, image_transform=print)())
    check_hooks(made(RecipeAlgorithm, image_transform=print, PER_IMAGE="True")())
    with pytest.raises(TypeError, match=r"PER_IMAGE is 'True', but Mine.* has no image_transform"):
        check_hooks(made(RecipeAlgorithm, PER_IMAGE="True")())


@pytest.mark.parametrize("recipe", recipe_files())
def test_the_recipes_algorithms_pass(recipe: str) -> None:
    build.algorithms(Config(algorithms=as_shipped(recipe)["algorithms"]))
