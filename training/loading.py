"""Load a checkpoint that was read and checked into a Trainer, instead of letting Composer unpickle the file.

Composer 0.32.1 reads with `weights_only=False`, evaluates the algorithms' reprs, unpacks archives, and ignores missing
weights. We therefore replace its `load_checkpoint` while the Trainer is built.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from composer.core import State
from composer.loggers import Logger
from composer.utils import checkpoint, dist

from config import UserError
from config.schema import Config
from training.devices import on_all_ranks
from training.fitting import check_fits
from training.saved import CheckpointError, Saved

ADVICE = "Use load_weights_only=true to load only its weights, or give the recipe_name and the optimizer of its run"
# In the errors of gloo and NCCL when another rank has died.
LOST_RANK = re.compile(r"closed by peer|reset by peer|NCCL|Timed out waiting")


@contextmanager
def loads(saved: Saved | None, config: Config, classes: list[str] | None) -> Iterator[None]:
    """Make any Trainer that is built inside with a load_path load this checkpoint.

    Args:
        saved: the checkpoint, if any.
        config: of the run.
        classes: of the data, by label, if known.

    Raises:
        CheckpointError: on every rank, if it does not fit the model, its recipe or the data.
    """
    anew = bool(config.is_train and config.load_weights_only)

    def load_checkpoint(path: str, state: State, logger: Logger, **_: Any) -> list[dict[str, Any]] | None:
        assert saved is not None, path
        on_all_ranks(_explained, saved, check_fits, saved, state.model, state.algorithms, classes, anew)
        return _explained(saved, _load, saved, state, logger, config.load_weights_only)

    if saved is not None and not anew:
        _check_classes(saved, config, classes)
    stock = checkpoint.load_checkpoint
    checkpoint.load_checkpoint = load_checkpoint  # type: ignore[assignment]
    try:
        yield
    finally:
        checkpoint.load_checkpoint = stock


def _load(saved: Saved, state: State, logger: Logger, weights_only: bool) -> list[dict[str, Any]] | None:
    """Do as Composer's _restore_checkpoint, but load the model strictly and do not evaluate the algorithms' reprs."""
    if not weights_only:
        # Composer reads `_model` as an old name of `model`.
        rest = {key: value for key, value in saved.state.items() if key != "model" and not key.startswith("_")}
        state.load_state_dict(rest, logger)
    # After the optimizer: torch creates its state by a step, which decays the weights at a learning rate of 0.
    state.load_model_state({"model": saved.state["model"]}, logger, strict=True)
    if weights_only:
        return None
    if len(set(dist.all_gather_object(state.timestamp.batch.value))) > 1:
        raise CheckpointError(f"{saved.address} is a different file on each node", "Give a folder that all nodes share")
    return saved.content.get("rng")


def _explained(saved: Saved, do: Any, *arguments: Any) -> Any:
    """Call `do`, turning the errors of torch and Composer about a checkpoint into a CheckpointError."""
    try:
        return do(*arguments)
    except UserError:
        raise
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, torch.OutOfMemoryError) or LOST_RANK.search(str(error)):
            raise
        why = " ".join(str(error).split())[:400]
        raise CheckpointError(
            f"{saved.address} does not fit this model and recipe: {type(error).__name__}: {why}",
            ADVICE,
        ) from error


def _check_classes(saved: Saved, config: Config, classes: list[str] | None) -> None:
    """Reject data whose labels stand for other classes than the checkpoint's."""
    trained = ((saved.state.get("dataset_state") or {}).get("train") or {}).get("classes")
    if trained is None or classes is None or list(trained) == list(classes):
        return
    label = next((n for n, (was, now) in enumerate(zip(trained, classes, strict=False)) if was != now), None)
    label = min(len(trained), len(classes)) if label is None else label
    was, now = (names[label] if label < len(names) else "nothing" for names in (trained, classes))
    advice = f"Give the data set with its {len(trained)} classes"
    if len(trained) == len(classes):
        # Starting from weights alone takes a new run: autoresume would load the whole checkpoint again.
        new_run = f"autoresume=false run_name=ANOTHER load_path={saved.address} " if config.autoresume else ""
        to_train = "" if config.is_train else "is_train=true "
        advice += f", or train its weights on the new classes: {to_train}{new_run}load_weights_only=true"
    raise CheckpointError(
        f"the checkpoint {saved.address} was trained on other classes: "
        f"label {label} was {was!r} and is {now!r} in this data set",
        advice,
    )
