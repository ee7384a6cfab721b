"""Evaluate all images once per size, with the run's own Trainer and a callback that keeps the answers."""

import copy
from collections.abc import Callable

import numpy as np
import torch
from composer.core import Callback, DataSpec, State, get_precision_context
from composer.loggers import Logger
from rich.console import Console

from common.terminal import ImageMeter
from config import ConfigError, DataError, Run, TrainingError
from config.schema import Config
from loaders.images.transforms import EvaluationPipeline
from loaders.loader import build_loader
from recipes.algorithms._base import unwrapped
from tools.evaluate.figures import Answers, Pass
from training import build, guards
from training.fit import make_trainer
from training.saved import Saved


class Listener(Callback):
    """Keeps four numbers of the network's answer to each image; ImageNet's logits would take 200 MB."""

    def __init__(self, flip: bool) -> None:
        self.flip = flip  # evaluate each image's mirror image too
        self.seen: Callable[[int], None] = lambda _images: None  # called with the number of images done
        self._labels: list[torch.Tensor] = []
        self._answers: list[list[torch.Tensor]] = []

    def eval_start(self, state: State, logger: Logger) -> None:  # noqa: ARG002
        """Forget the previous pass."""
        self._labels, self._answers = [], [[], []]

    def eval_after_forward(self, state: State, logger: Logger) -> None:  # noqa: ARG002
        """Keep the answers to a batch."""
        images, labels = state.batch
        logits = state.outputs
        assert isinstance(logits, torch.Tensor)
        self._labels.append(labels.cpu())
        self._answers[0].append(answers(logits, labels))
        if self.flip:
            with get_precision_context(state.precision, state.precision_config):
                mirrored = unwrapped(state.model).eval_forward((images.flip(-1), labels))  # type: ignore[operator]
            self._answers[1].append(answers((logits + mirrored) / 2, labels))
        self.seen(sum(map(len, self._labels)))

    def result(self, size: int) -> Pass:
        """Return the pass that has ended, over images of that size; TrainingError for outputs that are not finite."""
        return collected(size, self._labels, self._answers)


def collected(size: int, labels: list[torch.Tensor], batches_of_answers: list[list[torch.Tensor]]) -> Pass:
    """Return a pass from its batches' labels and `answers`, with those to mirror images in a second list."""
    plain, *flipped = (_columns(batches) for batches in batches_of_answers if batches)
    if broken := int((~np.isfinite(plain.losses)).sum()):
        raise TrainingError(
            f"the network's outputs are not finite numbers for {broken} of {len(plain.losses)} images at "
            f"{size} px: its weights have diverged; evaluate another one: --checkpoint PATH, or --model FILE"
        )
    return Pass(size, torch.cat(labels).numpy(), plain, flipped[0] if flipped else None)


def answers(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return predicted class, its probability, whether the true one is in the top 5, and loss: float64 [4, B], CPU.

    `scores` are logits or logarithms of probabilities, [B, classes]; `labels` the true classes, int64 [B].
    """
    # Ranked by the scores as they are, as the run's own metrics do, so that ties count the same.
    top = scores.topk(min(5, scores.shape[1]), dim=1).indices
    log_p = scores.float().log_softmax(dim=1)
    predicted = scores.argmax(dim=1)
    confidence = log_p.gather(1, predicted[:, None])[:, 0].exp()
    loss = -log_p.gather(1, labels[:, None])[:, 0]
    return torch.stack([t.double() for t in (predicted, confidence, (top == labels[:, None]).any(dim=1), loss)]).cpu()


def _columns(batches: list[torch.Tensor]) -> Answers:
    predicted, confidence, in_top5, losses = torch.cat(batches, dim=1).numpy()
    return Answers(predicted.astype(np.int64), confidence, in_top5.astype(bool), losses)


def resize_for(config: Config, size: int) -> int:
    """Return the short side that images are resized to before a crop of `size` pixels, in the run's ratio; -1: none."""
    dataset = config.eval_dataset
    return dataset.resize_size if dataset.resize_size == -1 else round(size * dataset.resize_size / dataset.crop_size)


def pipeline_for(config: Config, size: int) -> EvaluationPipeline:
    """Return the run's evaluation pipeline at another image size."""
    section = config.eval_dataset
    how = section.decoder, section.interpolation, section.crop_ratio
    return EvaluationPipeline(resize_for(config, size), size, *how)


def at_size(config: Config, spec: DataSpec, size: int) -> DataSpec:
    """Return the same data at another image size, without opening them again."""
    dataset, section = build.image_dataset(spec), config.eval_dataset
    dataset.pipeline = pipeline_for(config, size)
    given = {"num_workers": section.num_workers, "prefetch_factor": section.prefetch_factor}
    options = {key: value for key, value in given.items() if value is not None} | {"persistent_workers": False}
    again = copy.copy(spec)
    size_and_order = section.batch_size, False, False
    again.dataloader = build_loader(section.storage, dataset, *size_and_order, options, config.device)
    return again


def open_data(run: Run) -> build.Data:
    """Return the evaluation data; DataError if they do not have the model's number of classes."""
    try:
        return build.data(run, [])
    except ConfigError as error:  # about num_classes, which main.py advises to change
        dataset, wanted = run.config.eval_dataset, run.config.model.classes
        raise DataError(
            f"{dataset.path}: does not hold the {wanted} classes that this run was trained on; give a data set "
            "with the same ones: --data PATH"
        ) from error


def evaluate(
    run: Run, data: build.Data, saved: Saved, sizes: list[int], flip: bool, console: Console
) -> dict[int, Pass]:
    """Evaluate all images at the run's own size, then at each of the others; `run` is prepared (training.devices)."""
    config, listener = run.config, Listener(flip)
    own, model = config.eval_dataset.crop_size, build.model(config)
    trainer = make_trainer(  # with which main.py would evaluate this checkpoint, without a run's record
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
    trainer.state.callbacks.append(listener)  # after loading: Composer would miss its state in the checkpoint
    passes: dict[int, Pass] = {}
    try:
        for size in dict.fromkeys([own, *sizes]):
            if size != own:
                trainer.state.evaluators[0].dataloader = at_size(config, data.evaluation, size)
            stored = build.image_dataset(data.evaluation).stored_bytes
            with ImageMeter(console, f"{size} px", data.eval_samples, size=stored) as listener.seen:
                trainer.eval()
            passes[size] = listener.result(size)
    finally:
        trainer.close()
    build.image_dataset(data.evaluation).pipeline = pipeline_for(config, own)
    return passes
