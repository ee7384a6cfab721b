"""Callbacks that measure a run: clocks, a row per evaluation, the summary at the end; accuracy per training batch."""

import time
from typing import Any

import torch
from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist

from config.schema import METRICS, MIRRORED
from recipes.algorithms._base import at_own_pace
from training.classes import named_classes
from training.data_wait import DataWait
from training.devices import say
from training.earlier_run import MEASURED, plain
from training.mirrored import Mirrored
from training.param_groups import learning_rate, trained, trained_line
from training.record import RunFolder, command, describe
from training.secrets import redacted
from training.weights import Loaded, show


class Recorder(Callback):
    """Measure training, evaluation and total time, and write metrics.csv and summary.json.

    All clocks continue after a resume. Training time includes waiting for data, but no evaluation and no saving; top-1
    and top-5 are percentages, with eval_dataset.flip_tta also those with mirror images; losses are as Composer logs
    them, samples per second are over the row's interval. Total time counts from `started`, in time.monotonic();
    `data_wait` must run before this callback.
    """

    def __init__(self, folder: RunFolder, started: float, data_wait: DataWait, loaded: Loaded | None = None) -> None:
        self.folder = folder
        self.loaded = loaded
        self.weights = loaded.given.record if loaded else {}  # kept in checkpoints
        self.data_wait = data_wait
        config = folder.run.config
        self.mirrored = Mirrored(config.model.classes) if config.eval_dataset.flip_tta else None
        self._started = started
        self._total_before = 0.0  # seconds taken by earlier processes of this run
        self._train_seconds = self._eval_seconds = 0.0
        self._batch_mark = self._eval_mark = 0.0
        self._loss_sum = self._loss_count = 0.0
        self._row_seconds = self._row_samples = 0.0
        self._image_size = 0
        self._last_row: dict[str, Any] = {}

    def init(self, state: State, logger: Logger) -> None:
        """Send the configuration to the trackers."""
        logger.log_hyperparameters(plain(self.folder.run))

    def after_load(self, state: State, logger: Logger) -> None:
        """Write the run's first files, now that all its checks have passed, and show its pretrained weights."""
        if self.loaded:
            show(self.loaded, self.folder.run.config.eval_dataset, state.model)
        config, step = self.folder.run.config, state.timestamp.batch.value
        if (facts := trained(state.model, config)) and config.is_train:
            say(trained_line(facts))
        if config.is_train and not self.folder.is_finished(step):
            if config.autoresume:
                self._total_before = max(self._total_before, self.folder.seconds_paid())
            else:
                self.folder.start_over()
            evaluation: Any = state.evaluators[0].dataloader.dataloader  # Evaluator > DataSpec > loader
            both = state.train_dataloader.dataset, evaluation.dataset  # type: ignore[union-attr]
            self.folder.write_start(describe(*both), named_classes(*both), self.weights, facts)
            self.folder.load_rows(step - 1 if self.is_evaluation_due else step)
        self._start_interval(state)

    def before_dataloader(self, state: State, logger: Logger) -> None:
        """Start the batch clock, which includes waiting for data."""
        self._batch_mark = time.monotonic()

    def before_backward(self, state: State, logger: Logger) -> None:
        """Note the image size in training."""
        self._image_size = state.batch[0].shape[-1]

    def batch_end(self, state: State, logger: Logger) -> None:
        """Add this batch's time and loss."""
        self._train_seconds += time.monotonic() - self._batch_mark
        self._loss_sum += state.total_loss_dict["loss/train/total"]
        self._loss_count += 1

    def eval_start(self, state: State, logger: Logger) -> None:
        """Start the evaluation clock; sum the ranks' losses if they do not wait for each other."""
        self._eval_mark = time.monotonic()
        if self.mirrored:
            self.mirrored.start(state)
        if at_own_pace(state):
            sums = torch.tensor([self._loss_sum, self._loss_count], dtype=torch.float64)
            sums = state.device.tensor_to_device(sums)
            dist.all_reduce(sums)
            self._loss_sum, self._loss_count = sums.tolist()

    def eval_after_forward(self, state: State, logger: Logger) -> None:
        """Evaluate the mirror images of a batch, if asked to."""
        if self.mirrored:
            self.mirrored.add(state)

    def eval_end(self, state: State, logger: Logger) -> None:
        """Stop the evaluation clock and write a row."""
        self._eval_seconds += time.monotonic() - self._eval_mark
        self._last_row = row = self._row(state)
        logger.log_metrics({f"metrics/eval/{column}": row[column] / 100 for column in MIRRORED if column in row})
        if self.folder.run.config.is_train and state.timestamp.batch.value:
            self.folder.add_row(row)
        self._start_interval(state)

    def seconds(self) -> dict[str, float]:
        """Return the seconds of training, evaluation, waiting for data and in total, earlier processes included."""
        return {
            "train_seconds": self._train_seconds,
            "eval_seconds": self._eval_seconds,
            "wait_seconds": self.data_wait.seconds,
            "total_seconds": self._total_before + time.monotonic() - self._started,
        }

    @property
    def is_evaluation_due(self) -> bool:
        """Whether batches have been trained since the last evaluation."""
        return self._loss_count > 0

    def summary(self, state: State, ended: str) -> dict[str, Any]:
        """Return the content of summary.json: the last evaluation's figures, the clocks, and how the run ended."""
        clocks = self.seconds()
        last = self._last_row or (self.folder.rows[-1] if self.folder.rows else {})
        columns = ("train_loss", *MEASURED, *(MIRRORED if self.mirrored else ()))
        return {
            "run_name": self.folder.name,
            "recipe": self.folder.run.recipe_name,
            "ended": redacted(ended),
            "epoch": state.timestamp.epoch.value,
            "step": state.timestamp.batch.value,
            **{key: float(last[key]) if last.get(key, "") != "" else None for key in columns},
            "best_top1": max((float(row["top1"]) for row in self.folder.rows), default=None),
            **{key: round(value, 3) for key, value in clocks.items()},
            "wait_seconds": round(max(self.data_wait.seconds, self.data_wait.so_far), 3),
            "samples_per_second": round(state.timestamp.sample.value / (clocks["train_seconds"] or 1.0), 1),
            "peak_gpu_mib": _peak_gpu_mib(self.folder.run.machine.device),
            **({"weights": self.weights} if self.weights else {}),
            "command": command(self.folder.run),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the clocks and the next row's sums, so that a resumed run reports as an uninterrupted one."""
        return {
            "seconds": self.seconds(),
            "loss": (self._loss_sum, self._loss_count),
            "image_size": self._image_size,
            "weights": self.weights,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore state_dict(), unless the run only evaluates: it has its own clocks."""
        if not self.folder.run.config.is_train:
            return
        seconds = state["seconds"]
        self._train_seconds, self._eval_seconds = seconds["train_seconds"], seconds["eval_seconds"]
        self._total_before = seconds["total_seconds"]
        self._loss_sum, self._loss_count = state["loss"]
        self._image_size = state.get("image_size", 0)
        self.weights = state.get("weights", {})

    def _row(self, state: State) -> dict[str, Any]:
        measured = {}
        for name, (column, _, unit) in METRICS.items():
            value = float(state.eval_metrics["eval"][name].compute())
            measured[column] = round(100 * value, 4) if unit else round(value, 6)
        extra = self.mirrored.figures() if self.mirrored else {}
        clocks = self.seconds()
        seconds = clocks["train_seconds"] - self._row_seconds
        samples = state.timestamp.sample.value - self._row_samples
        return {
            "epoch": state.timestamp.epoch.value,
            "step": state.timestamp.batch.value,
            "train_loss": round(self._loss_sum / self._loss_count, 6) if self._loss_count else "",
            **measured,
            "lr": learning_rate(state.optimizers[0]) if state.optimizers else "",
            "image_size": self._image_size,
            **{key: round(value, 3) for key, value in clocks.items()},
            "samples_per_second": round(samples / seconds, 1) if seconds > 0 else "",
            **extra,
        }

    def _start_interval(self, state: State) -> None:
        if state.eval_timestamp.batch.value:
            self._loss_sum = self._loss_count = 0.0
        self._row_seconds = self._train_seconds
        self._row_samples = state.timestamp.sample.value


def _peak_gpu_mib(device: str) -> float | None:
    """Return the most memory that this process has had in use on its GPU; None on a CPU."""
    return round(torch.cuda.max_memory_allocated() / 2**20, 1) if device == "gpu" else None


class TrainAccuracy(Callback):
    """Log metrics/train/MulticlassAccuracy, the top-1 accuracy of each training batch, 0 to 1.

    Composer's train metric gives the same number, but switches the whole model between train and eval mode in every
    step (about 1 ms for a ResNet) and makes a dozen reductions over the ranks; this makes one. Augmented images are
    scored against their original labels; with SAM, the second pass counts. When ranks do not wait for each other,
    each rank logs the accuracy of its own images.
    """

    def __init__(self) -> None:
        self.accuracy = float("nan")
        self._labels: torch.Tensor | None = None
        self._counts: list[torch.Tensor] = []

    def before_train_batch(self, state: State, logger: Logger) -> None:
        """Reset the counts; called once per pass over the batch."""
        self._counts = []

    def before_forward(self, state: State, logger: Logger) -> None:
        """Keep the labels before MixUp, CutMix or label smoothing change them."""
        self._labels = state.batch[1]

    def after_forward(self, state: State, logger: Logger) -> None:
        """Count correct predictions of a microbatch, on its device."""
        assert self._labels is not None
        assert isinstance(state.outputs, torch.Tensor)
        right = state.outputs.detach().argmax(dim=1) == self._labels
        self._counts.append(torch.stack([right.sum(), torch.full_like(right.sum(), len(right))]))

    def batch_end(self, state: State, logger: Logger) -> None:
        """Log the accuracy, over all ranks if they wait for each other."""
        counts = torch.stack(self._counts).sum(dim=0)
        if not at_own_pace(state):
            dist.all_reduce(counts, "SUM")
        right, images = counts.tolist()
        self.accuracy = right / images
        logger.log_metrics({"metrics/train/MulticlassAccuracy": self.accuracy})
