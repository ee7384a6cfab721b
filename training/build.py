"""Build the Trainer's arguments from a configuration: data, model, optimizer, schedule, algorithms, callbacks."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from composer.core import Algorithm, Callback, DataSpec, Evaluator
from composer.loggers import LoggerDestination
from composer.models import ComposerClassifier
from composer.utils import dist

from common.durations import parse
from config import ConfigError, Run, durations_of
from config.check_network import sizes_that_differ
from config.run import milestones_of
from config.schema import AUTO, GROUPING, Config, EvalDataset, TrainDataset
from data import build_imagenet_dataspec
from loaders.dataset import ImageDataset
from loaders.errors import BatchTooLarge, in_section
from loaders.images.decoders import described
from loaders.sampler import EpochSampler
from loaders.storage.digits import is_made_on_demand, make_digits
from loaders.workers import WorkerLoader
from model import build_composer_resnet
from recipes import networks, registry, schedules
from recipes.algorithms._base import RecipeAlgorithm, check_hooks, ours
from training import small_data
from training.classes import check_labels, settle_classes
from training.clock import Clock, GoesOn
from training.devices import on_local_leaders, say
from training.effects import Watch
from training.param_groups import Grouping, freeze, set_hyperparameters
from training.trackers import Tracked, arguments


def algorithms(config: Config) -> list[Algorithm]:
    """Build the recipe's algorithms in its order, each wrapped in a Watch: an algorithm without effect is an error."""
    built = [registry.build("algorithm", name, args) for name, args in config.algorithms.items()]
    for algorithm, (name, args) in zip(built, config.algorithms.items(), strict=True):
        check_hooks(algorithm)
        Watch(name, args, algorithm)
    return built


def callbacks(config: Config) -> list[Callback]:
    """Build the configured callbacks."""
    return [registry.build("callback", name, args) for name, args in config.callbacks.items()]


def loggers(config: Config, tracked: Tracked | None = None) -> list[LoggerDestination]:
    """Build the configured loggers, except the progress bar (see training.progress)."""
    named = {name: args for name, args in config.loggers.items() if name != registry.PROGRESS_BAR}
    return [registry.build("logger", name, arguments(name, args, tracked)) for name, args in named.items()]


def model(config: Config) -> ComposerClassifier:
    """Build the model at its published initialization, frozen as configured, in channels_last as the batches are."""
    values = config.model
    if values.num_classes == AUTO:  # in a program that builds the network alone
        raise ConfigError(
            "model.num_classes: auto needs the data, which are not open here; type model.num_classes=NUMBER"
        )
    threshold, size = values.target_threshold, config.train_dataset.crop_size
    built = build_composer_resnet(values.name, values.loss_name, values.classes, values.init, threshold, size)
    if registry.is_outside(values.name):
        _check_logits(built, values.name, values.classes, config.eval_dataset.crop_size)
    elif networks.is_timms(values.name):
        if networks.takes_one_size(values.name) and (problems := sizes_that_differ(config)):
            raise ConfigError(*problems)
        with networks.unfit(values.name, config.eval_dataset.crop_size):
            _check_logits(built, values.name, values.classes, config.eval_dataset.crop_size)
    freeze(built, config)
    return built.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _check_logits(model: ComposerClassifier, name: str, num_classes: int, side: int) -> None:
    """Check the output shape of a user's model on two images: on a GPU, too few logits abort the process."""
    with torch.no_grad():
        logits = model.eval().module(torch.zeros(2, 3, side, side))
    model.train()
    given = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if given != [2, num_classes]:
        raise ConfigError(f"model.name: {name} returns {given} for 2 images; it must return logits, [2, {num_classes}]")


def optimizer(config: Config, model: torch.nn.Module) -> torch.optim.Optimizer:
    """Build the optimizer of the parameters that are trained, in groups of the same rate and weight decay."""
    args = {key: value for key, value in config.optimizer.items() if key not in ("name", *GROUPING)}
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    built = registry.build("optimizer", config.optimizer["name"], args, parameters)
    Grouping(config, model, built).split(model)
    set_hyperparameters(built, config)
    return built


def image_dataset(spec: DataSpec) -> ImageDataset:
    """Return the data set of a DataSpec that this module built."""
    return loader_of(spec).dataset  # type: ignore[return-value]


def loader_of(spec: DataSpec) -> WorkerLoader:
    """Return the loader of a DataSpec that this module built."""
    return cast(WorkerLoader, spec.dataloader)


@dataclass(frozen=True)
class Data:
    """The training data (None when only evaluating) and the evaluation data."""

    train: DataSpec | None
    evaluation: DataSpec

    @property
    def batches_per_epoch(self) -> int:
        """Batches per training epoch; 0 when only evaluating."""
        return len(loader_of(self.train)) if self.train else 0

    @property
    def classes(self) -> list[str] | None:
        """The names of the classes, by label; None if the data have none."""
        return image_dataset(self.train or self.evaluation).classes

    @property
    def eval_samples(self) -> int:
        """Images in the evaluation set."""
        return len(image_dataset(self.evaluation))


@dataclass(frozen=True)
class Schedule:
    """The run's length as a Composer time string, and the optimizer's settings for each batch, counted from 0."""

    max_duration: str
    batches: int  # the same length
    multiplier: Callable[[float], float]  # of the learning rate
    momentum: Callable[[float], float] | None  # None: constant
    clock: Clock  # converts a timestamp to a batch


def schedule(run: Run, data: Data) -> Schedule:
    """Build the schedule: length and learning-rate curve, both scaled by scale_schedule_ratio.

    A warm-up that takes the whole run is accepted only when lenient, as in the published example.
    """
    config = run.config
    length, warmup = durations_of(config)
    per_epoch, batch_size = data.batches_per_epoch, config.train_dataset.batch_size
    total = length.batches(per_epoch, batch_size)
    warmup_batches = warmup.batches(per_epoch, batch_size, total)
    milestones = [(time.batches(per_epoch, batch_size, total), factor) for time, factor in milestones_of(config)]
    epoch = max(1, per_epoch)
    if config.is_train and warmup_batches >= total and not run.lenient:
        raise ConfigError(
            f"scheduler.t_warmup: a warm-up of {warmup} is {warmup_batches:g} batches, but the run of {length} has "
            f"only {total:g}; make the run longer, or type scheduler.t_warmup={small_data.WARMUP:g}dur"
        )
    peak = config.optimizer["lr"]
    multiplier = schedules.learning_rate(config.scheduler, peak, total, warmup_batches, epoch, milestones)
    train_images = image_dataset(data.train).epoch_size if data.train else 0
    advice = small_data.warning(config, train_images, per_epoch, dist.get_world_size())
    if advice and config.is_train and not run.lenient:
        say(f"warning: {advice}")
    clock = Clock(length.unit, per_epoch, batch_size, train_images)
    momentum = schedules.momentum(config.scheduler, total, epoch)
    return Schedule(f"{int(length.value)}{length.unit}", math.ceil(total), multiplier, momentum, clock)


def goes_on(config: Config, schedule: Schedule, data: Data) -> list[Callback]:
    """Build the callback that converts a checkpoint's position to this run; none when only evaluating."""
    if data.train is None:
        return []
    return [GoesOn(schedule.clock, config, cast(EpochSampler, loader_of(data.train).sampler))]


def data(run: Run, algorithms: list[Algorithm]) -> Data:
    """Build the data sets with the algorithms' transforms; count the classes, or check them against num_classes."""
    config = run.config
    for section in config.sections().values():
        if section.path and is_made_on_demand(section.path):
            on_local_leaders(make_digits, Path(section.path))
    with in_section("train_dataset"):
        try:
            train = _dataspec(config, "train_dataset", algorithms) if config.is_train else None
        except BatchTooLarge as error:
            raise small_data.explain(error, config) from error
    with in_section("eval_dataset"):
        evaluation = _dataspec(config, "eval_dataset")
    for decoder in dict.fromkeys(run.decoders.values()):
        say(described(decoder))
    for remark in filter(None, (image_dataset(spec).remark() for spec in (train, evaluation) if spec)):
        say(remark)
    settle_classes(run, image_dataset(train).classes if train else None, image_dataset(evaluation).classes)
    for spec in (train, evaluation):
        if spec is not None and image_dataset(spec).labels_are_free:
            spec.batch_transforms = functools.partial(check_labels, config.model.classes)
    return Data(train, evaluation)


def evaluator(run: Run, spec: DataSpec) -> Evaluator:
    """Build the Evaluator, with a microbatch no larger than the training microbatch."""
    train_size = run.machine.microbatch
    per_rank = run.config.eval_dataset.batch_size // dist.get_world_size()
    size = train_size if isinstance(train_size, str) else min(train_size, per_rank)
    return Evaluator(label="eval", dataloader=spec, device_eval_microbatch_size=size)


def _dataspec(config: Config, name: str, algorithms: Sequence[Algorithm] = ()) -> DataSpec:
    dataset, is_train = config.section(name), name == "train_dataset"
    path, local = dataset.path or "", dataset.local  # random images have no path
    if dataset.preload:
        from loaders.transport.preload import preload_once_per_node

        path = str(preload_once_per_node(path, dataset.preload, ["train" if is_train else "val"]))
        local = path if dataset.is_streaming else None
    given: dict[str, Any] = {"num_workers": dataset.num_workers, "prefetch_factor": dataset.prefetch_factor}
    if isinstance(dataset, TrainDataset):
        given |= {key: getattr(dataset, key) for key in ("min_crop_area", "hflip", "repeats")}
    if isinstance(dataset, EvalDataset):
        given["crop_ratio"] = dataset.crop_ratio
    size_in_loader = _size_in_loader(config, algorithms)
    spec = build_imagenet_dataspec(
        path,
        dataset.is_streaming,
        dataset.batch_size // dist.get_world_size(),
        local=local,
        is_train=is_train,
        drop_last=is_train,
        shuffle=is_train,
        resize_size=dataset.resize_size,
        crop_size=dataset.crop_size,
        seed=config.seed,
        storage=dataset.storage,
        pack_size=dataset.pack_size,
        cache_limit=dataset.cache_limit,
        decoder=dataset.decoder,
        interpolation=dataset.interpolation,
        device=config.device,
        image_transforms=[a.image_transform for a in ours(algorithms) if a.image_transform is not None],
        **{key: value for key, value in given.items() if value is not None},
    )
    if size_in_loader is not None:
        loader = loader_of(spec)
        whole = parse(config.max_duration).batches(len(loader), dataset.batch_size)
        for algorithm in ours(algorithms):
            algorithm.epochs = whole / len(loader)
        cast(EpochSampler, loader.sampler).size_at = functools.partial(size_in_loader, len(loader))
    return spec


def _size_in_loader(config: Config, algorithms: Sequence[Algorithm]) -> Callable[[int, int, int], int] | None:
    """Return the image size as a function of (batches per epoch, epoch, batch in epoch); None if it is constant.

    Algorithms that resize are chained, last one first: each gives the size it needs to produce the next one's input.
    """
    steps = [a for a in ours(algorithms) if type(a).size_in_loader is not RecipeAlgorithm.size_in_loader]
    crop_size, length = config.train_dataset.crop_size, durations_of(config)[0]
    if not steps:
        return None
    for algorithm in steps:
        algorithm.crop_size = crop_size

    def size_at(batches_per_epoch: int, epoch: int, batch: int) -> int:
        # As in Composer, the elapsed part of a run whose length is in epochs changes only at the end of an epoch.
        batch = 0 if length.unit == "ep" else batch
        done = epoch * batches_per_epoch + batch
        elapsed = done / length.batches(batches_per_epoch, config.train_dataset.batch_size)
        size = crop_size
        for step in reversed(steps):
            size = step.size_in_loader(size, crop_size, elapsed)
        return size

    return size_at
