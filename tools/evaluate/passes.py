"""One pass over the evaluation data per size: the run's own Trainer evaluates, and a callback listens."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import torch
from composer import Trainer
from composer.core import Callback, DataSpec, State, get_precision_context
from composer.loggers import Logger
from rich.console import Console

from config import ConfigError, DataError, Run, TrainingError
from config.schema import Config
from loaders.images.transforms import EvaluationPipeline
from loaders.loader import build_loader
from recipes.algorithms._base import unwrapped
from tools.convert.meter import ImageMeter
from tools.evaluate.figures import Answers, Pass
from training import build, guards
from training.fit import make_trainer
from training.saved import Saved


class Listener(Callback):
    """Keeps what the network says of each image: four numbers, not its logits, of which ImageNet's take 200 MB.

    Args:
        flip: whether to show it each image's mirror image too.
    """

    def __init__(self, flip: bool) -> None:
        self.flip = flip
        self.seen: Callable[[int], None] = lambda _images: None  # told how many images are done
        self._labels: list[torch.Tensor] = []
        self._said: list[list[torch.Tensor]] = []

    def eval_start(self, state: State, logger: Logger) -> None:  # noqa: ARG002
        """Forget the pass before."""
        self._labels, self._said = [], [[], []]

    def eval_after_forward(self, state: State, logger: Logger) -> None:  # noqa: ARG002
        """Keep the answers to a batch."""
        images, labels = state.batch
        logits = state.outputs
        assert isinstance(logits, torch.Tensor)
        self._labels.append(labels.cpu())
        self._said[0].append(answers(logits, labels))
        if self.flip:
            with get_precision_context(state.precision, state.precision_config):
                mirrored = unwrapped(state.model).eval_forward((images.flip(-1), labels))  # type: ignore[operator]
            self._said[1].append(answers(mean_of_probabilities(logits, mirrored), labels))
        self.seen(sum(map(len, self._labels)))

    def result(self, size: int) -> Pass:
        """The pass that has ended, over images of that size.

        Raises:
            TrainingError: if the network's outputs are no numbers.
        """
        plain, *flipped = (_columns(part) for part in self._said if part)
        if broken := int((~np.isfinite(plain.losses)).sum()):
            raise TrainingError(
                f"the network's outputs are not finite numbers for {broken} of {len(plain.losses)} images at "
                f"{size} px: its weights have diverged; evaluate another one: --checkpoint PATH"
            )
        return Pass(size, torch.cat(self._labels).numpy(), plain, flipped[0] if flipped else None)


def answers(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Predicted class, its probability, whether the true one is in the top 5, and the loss: float64 [4, B] on the CPU.

    Args:
        scores: logits, or logarithms of probabilities, [B, classes].
        labels: the true classes, int64 [B].
    """
    # The order is that of the scores as they are: equal to what the run's own metrics count, ties included.
    top = scores.topk(min(5, scores.shape[1]), dim=1).indices
    log_p = scores.float().log_softmax(dim=1)
    predicted = scores.argmax(dim=1)
    confidence = log_p.gather(1, predicted[:, None])[:, 0].exp()
    loss = -log_p.gather(1, labels[:, None])[:, 0]
    return torch.stack([t.double() for t in (predicted, confidence, (top == labels[:, None]).any(dim=1), loss)]).cpu()


def mean_of_probabilities(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The logarithm of the mean of two softmaxes, float32 [B, classes], of two batches of logits."""
    return torch.logaddexp(one.float().log_softmax(dim=1), other.float().log_softmax(dim=1)) - math.log(2)


def _columns(batches: list[torch.Tensor]) -> Answers:
    predicted, confidence, in_top5, losses = torch.cat(batches, dim=1).numpy()
    return Answers(predicted.astype(np.int64), confidence, in_top5.astype(bool), losses)


def resize_for(config: Config, size: int) -> int:
    """The short side that images are resized to before a crop of `size` pixels: in the run's own ratio; -1 for none.

    Args:
        config: of the run.
        size: side of the square that the network sees, in pixels.
    """
    dataset = config.eval_dataset
    return dataset.resize_size if dataset.resize_size == -1 else round(size * dataset.resize_size / dataset.crop_size)


def at_size(config: Config, spec: DataSpec, size: int) -> DataSpec:
    """The same data in images of another size, opened no second time."""
    dataset, section = build.image_dataset(spec), config.eval_dataset
    dataset.pipeline = EvaluationPipeline(resize_for(config, size), size)
    given = {"num_workers": section.num_workers, "prefetch_factor": section.prefetch_factor}
    given = {key: value for key, value in given.items() if value is not None}
    again = copy.copy(spec)
    again.dataloader = build_loader(
        section.storage, dataset, section.batch_size, False, False, {**given, "persistent_workers": False}
    )
    return again


def open_data(run: Run) -> build.Data:
    """The evaluation data alone.

    Raises:
        DataError: they are not there, or hold more or fewer classes than the model knows.
    """
    try:
        return build.data(run, [])
    except ConfigError as error:  # of the number of classes, which main.py would have the user change
        dataset, wanted = run.config.eval_dataset, run.config.model.num_classes
        raise DataError(
            f"{dataset.path}: does not hold the {wanted} classes that this run was trained on; give a data set "
            "with the same ones: --data PATH"
        ) from error


def make_listening(run: Run, data: build.Data, saved: Saved, listener: Listener) -> Trainer:
    """The Trainer with which main.py would evaluate this checkpoint, without its record of a run."""
    config = run.config
    model = build.model(config)
    trainer = make_trainer(
        run,
        run_name="evaluate",
        model=model,
        data=data,
        optimizers=build.optimizer(config, model),
        max_duration=build.schedule(run, data).max_duration,
        algorithms=build.algorithms(config),
        callbacks=[guards.WholeEpochs(0, data.eval_samples)],
        saved=saved,
    )
    trainer.state.callbacks.append(listener)  # now: Composer would miss its state in the checkpoint
    return trainer


def evaluate(
    run: Run, data: build.Data, saved: Saved, sizes: list[int], flip: bool, console: Console
) -> dict[int, Pass]:
    """Look at all images once per size: first at the run's own, then at the others.

    Args:
        run: prepared (training.devices), only evaluating.
        data: of `open_data`.
        saved: the checkpoint.
        sizes: sides of the square that the network sees, in pixels.
        flip: whether to look at the mirror images too.
        console: for the progress.

    Raises:
        UserError: as an evaluation by main.py would.
    """
    own, listener = run.config.eval_dataset.crop_size, Listener(flip)
    trainer = make_listening(run, data, saved, listener)
    passes: dict[int, Pass] = {}
    try:
        for size in dict.fromkeys([own, *sizes]):
            if size != own:
                trainer.state.evaluators[0].dataloader = at_size(run.config, data.evaluation, size)
            with ImageMeter(console, f"{size} px", data.eval_samples) as listener.seen:
                trainer.eval()
            passes[size] = listener.result(size)
    finally:
        trainer.close()
    build.image_dataset(data.evaluation).pipeline = EvaluationPipeline(resize_for(run.config, own), own)
    return passes
