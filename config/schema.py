"""The schema of a run: every key of a run's YAML with its type and default. Imports no torch.

The defaults are the published baseline: ResNet-50, 90 epochs, a batch of 2048, DecoupledSGDW at 2.048 / 0.875 / 5e-4.
"""

from __future__ import annotations

import functools
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from common.outside import is_outside

MODELS = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2"),
)
"""torchvision's ResNets, for which every recipe and tool is made."""
INITS = ("mosaic", "torchvision", "zero_last", "goyal", "nvidia")  # see model.build_composer_resnet
HEADS = ("auto", "new", "keep")
MEAN_BCE = "mean_binary_cross_entropy"
LOSSES = {"cross_entropy": ("loss", "val loss"), "binary_cross_entropy": ("BCE", "val CE"), MEAN_BCE: ("BCE", "val CE")}
"""Loss -> the labels of its training and validation figures; validation always measures cross entropy."""
METRICS = {  # of each evaluation -> (column of metrics.csv, its name in print, its unit)
    "CrossEntropy": ("val_loss", "validation loss", ""),
    "MulticlassAccuracy": ("top1", "top-1", "%"),
    "MulticlassTop5Accuracy": ("top5", "top-5", "%"),
}
MIRRORED = {"top1_tta": "top-1 with mirror images", "top5_tta": "top-5 with mirror images"}
"""Further columns, in %, with eval_dataset.flip_tta -> their names in print."""
MOST_WITHOUT_TOP5 = 5  # classes; with this many or fewer, top-5 accuracy is always 100 %
PRECISIONS = ("fp32", "amp_bf16", "amp_fp16")
DEVICES = ("cpu", "gpu")
FULL = "full"  # value of dry_run
AUTO = "auto"  # value of compile, model.num_classes, model.head and model.freeze_batchnorm
OPEN_SECTIONS = {"algorithms": "algorithm", "callbacks": "callback", "loggers": "logger"}
"""Sections whose keys name classes -> the registry's word for the kind of class."""


@dataclass(slots=True)
class Model:
    """The network and its loss."""

    name: str = "resnet50"  # one of MODELS, another of torchvision's, timm:NAME, or package.module:Class
    loss_name: str = "cross_entropy"  # one of LOSSES; binary_cross_entropy is summed over classes, MEAN_BCE averaged
    target_threshold: float | None = None  # MEAN_BCE: targets above it count as 1, others as 0; None: as they are
    init: str = "mosaic"  # one of INITS; how weights are initialized
    num_classes: int | str = 1000  # the number of class folders in the data; AUTO: counted there
    weights: str | None = None  # pretrained: a file, a folder, or torchvision[:NAME] (config/weights.py); None: none
    head: str = AUTO  # one of HEADS; what becomes of the weights' last layer
    freeze: str | list | bool | None = None  # what is not trained (config/stages.py); text or None once checked
    freeze_batchnorm: bool | str = AUTO  # AUTO: of what is frozen; True: every one; False: only weights, not statistics

    @property
    def is_resnet(self) -> bool:
        """Whether it is one of torchvision's ResNets, or a user's network, which may be."""
        return self.name in MODELS or is_outside(self.name)

    @property
    def classes(self) -> int:
        """The number of classes, of a model that is built."""
        assert isinstance(self.num_classes, int), "the data give the number: training.build.data comes first"
        return self.num_classes


@dataclass(slots=True)
class Dataset:
    """A data set and its image sizes."""

    is_streaming: bool = False  # True: MosaicML Streaming shards; False: a folder train/<class>/<image>
    path: str | None = None  # a folder, or a remote such as s3://bucket/folder; required
    local: str | None = None  # cache folder for streamed shards or archives in S3; required if is_streaming
    cache_limit: int | str | None = None  # bytes of shards to keep in the cache, a number or 200gb; None: all
    storage: str | None = None  # a kind in loaders.storage.kinds; None: streaming or imagefolder, by is_streaming
    decoder: str = "auto"  # one of loaders.images.decoders; auto: native if it is built, else torchvision
    preload: str | None = None  # a folder on a fast disk to which the data are copied before training
    pack_size: int | None = None  # storage packed: short side of the images in memory, in pixels; None: full size
    resize_size: int = -1  # short side in pixels before the random crop; -1: no resize
    crop_size: int = 224  # side in pixels of the square input of the network
    interpolation: str = "bilinear"  # filter of a resize, one of loaders.images.decoders.INTERPOLATIONS
    batch_size: int = 2048  # images per step over ALL devices
    num_workers: int | None = None  # loader processes per device; None: one per core of the device's share, at most 8
    prefetch_factor: int | None = None  # batches that each worker prepares in advance; None: PyTorch's default


@dataclass(slots=True)
class TrainDataset(Dataset):
    """The training data: a random crop of each image."""

    min_crop_area: float = 0.08  # smallest fraction of an image's area that a crop covers
    hflip: bool = True  # mirror images with probability 1/2; False where left and right differ, as in writing
    repeats: int = 1  # how often an epoch shows each of its images, cropped anew; it has as many fewer images


@dataclass(slots=True)
class EvalDataset(Dataset):
    """The evaluation data: a central crop of each image."""

    resize_size: int = 256  # short side in pixels before the central crop; -1: no resize
    flip_tta: bool = False  # also measure the sum of the logits of each image and its mirror image
    crop_ratio: float | None = None  # central square / short side, resized to crop_size; None: resize_size decides


WEIGHT_DECAY_ON, HEAD_LR_MULTIPLIER, LAYER_DECAY = "weight_decay_on", "head_lr_multiplier", "layer_decay"
GROUPING = (WEIGHT_DECAY_ON, HEAD_LR_MULTIPLIER, LAYER_DECAY)
"""Keys of the optimizer section that are not arguments of its class: they divide its parameters into groups."""
DECAYED = ("all", "weights", "not_norm", "not_named_bn")
"""Values of weight_decay_on: every parameter; weights alone, without those of normalization layers, biases, and a
transformer's embeddings; all but normalization layers; those without "bn" in the name, as in sources that thus decay
the shortcuts' BatchNorms of torchvision's ResNets."""


OPTIMIZER = {"name": "decoupled_sgdw", "lr": 2.048, "momentum": 0.875, "weight_decay": 5.0e-4}


@dataclass(slots=True)
class Scheduler:
    """The learning rate schedule."""

    name: str = "cosine_with_warmup"  # one of recipes.schedules.SCHEDULES, or package.module:function
    every: str = "step"  # one of recipes.schedules.EVERY: how often the rate changes; epoch: held from its first step
    t_warmup: str = "8ep"  # length of the linear warm-up to optimizer.lr
    alpha_i: float = 0.0  # initial learning rate, as a fraction of optimizer.lr
    alpha_f: float = 0.0  # final learning rate, as a fraction of optimizer.lr
    eta_min: float | None = None  # final learning rate, absolute; replaces alpha_f
    scale_warmup: bool = True  # whether scale_schedule_ratio applies to the warm-up too
    power: float = 2.0  # polynomial_with_warmup
    milestones: list = field(default_factory=list)  # multistep_, piecewise_with_warmup: [time, fraction of lr]
    pct_start: float = 0.3  # one_cycle: fraction of the run in which the learning rate rises
    div_factor: float = 25.0  # one_cycle: the initial learning rate is optimizer.lr divided by this
    final_div_factor: float = 1.0e4  # one_cycle: the final learning rate is the initial one divided by this
    base_momentum: float | None = 0.85  # one_cycle: momentum at the peak; None keeps optimizer.momentum throughout
    max_momentum: float = 0.95  # one_cycle: momentum at the start and the end


@dataclass(slots=True)
class Config:
    """The configuration of a run."""

    run_name: str | None = None  # name of the folder under runs_folder; None: built from the recipe, model and time
    is_train: bool = True  # False: evaluate only
    seed: int = 17  # for weights, order and augmentation
    max_duration: str = "90ep"  # length of training
    scale_schedule_ratio: float = 1.0  # multiplies the length of any recipe
    device_train_microbatch_size: int | str | None = None  # images per forward pass on one device, or auto; None: all
    grad_accum: int | str | None = None  # old name: microbatches per step, or auto
    precision: str | None = None  # one of PRECISIONS; None: chosen by device
    device: str | None = None  # one of DEVICES; None: gpu if there is one
    compile: bool | str | None = False  # torch.compile the model; AUTO or null: on a GPU, if there is a C compiler
    deterministic: bool = False  # use only deterministic kernels; slower
    model: Model = field(default_factory=Model)
    train_dataset: TrainDataset = field(default_factory=TrainDataset)
    eval_dataset: EvalDataset = field(default_factory=EvalDataset)
    optimizer: dict[str, Any] = field(default_factory=OPTIMIZER.copy)
    scheduler: Scheduler = field(default_factory=Scheduler)
    algorithms: dict[str, Any] = field(default_factory=dict)  # name -> arguments, in the order they run
    callbacks: dict[str, Any] = field(default_factory=dict)  # name -> arguments
    loggers: dict[str, Any] = field(default_factory=lambda: {"progress_bar": {}})  # name -> arguments
    recipe_name: str | None = None  # a name from recipes/, or a path to a YAML
    eval_interval: str = "1ep"  # how often to evaluate
    save_folder: str | None = "{runs_folder}/{run_name}/checkpoints"  # local or s3://; None: no checkpoints
    save_interval: str = "1ep"  # how often to save
    save_num_checkpoints_to_keep: int = 2  # number of newest checkpoints to keep; -1: all
    save_overwrite: bool = False  # whether an existing checkpoint of the same name may be replaced
    load_path: str | None = None  # a checkpoint to start from
    load_unsafe_pickle: bool = False  # True: run the code in a checkpoint that is more than data; only if you trust it
    load_weights_only: bool = False  # True: load the weights, but not the optimizer, epoch and the rest
    autoresume: bool = False  # continue from the newest checkpoint of the same run_name, if there is one
    runs_folder: str = "runs"  # parent of the run folders
    dry_run: bool | str = False  # True: print what the run changes, build nothing; FULL: print every value
    python_log_level: str | None = None  # debug, info, warning, error or critical
    dist_timeout: float = 600.0  # seconds after which an unresponsive rank ends the run

    def checkpoint_folder(self, run_name: str) -> str | None:
        """Return save_folder with its placeholders filled in."""
        folder = self.save_folder
        return folder and folder.replace("{run_name}", run_name).replace("{runs_folder}", self.runs_folder)

    def section(self, name: str) -> Dataset:
        """Return train_dataset or eval_dataset by name."""
        return {"train_dataset": self.train_dataset, "eval_dataset": self.eval_dataset}[name]

    def sections(self) -> dict[str, Dataset]:
        """Return the data sections that the run reads, by name; evaluation alone does not read training data."""
        return {name: self.section(name) for name in ("train_dataset", "eval_dataset")[not self.is_train :]}


@functools.cache
def hints_of(cls: Callable[..., Any]) -> dict[str, Any]:
    """Return the type of each field of a dataclass of this module."""
    return typing.get_type_hints(cls)
