"""The schema of a run: every key of a run's YAML, with its type and its default. Imports no torch.

The defaults are the published baseline: ResNet-50, 90 epochs, a batch of 2048, DecoupledSGDW at 2.048 / 0.875 / 5e-4.
A key that is not here is a mistake, and is reported with the closest key that is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

MODELS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
INITS = ("mosaic", "torchvision")
LOSSES = {"cross_entropy": ("loss", "val loss"), "binary_cross_entropy": ("BCE", "val CE")}
"""Each loss with the labels of its figures in training and validation, which is measured by cross entropy always."""
METRICS = ("CrossEntropy", "MulticlassAccuracy", "MulticlassTop5Accuracy")  # of each evaluation
MOST_WITHOUT_TOP5 = 5  # classes; of so few the five likeliest always hold the right one
PRECISIONS = ("fp32", "amp_bf16", "amp_fp16")
DEVICES = ("cpu", "gpu")
FULL = "full"  # for dry_run
OPEN_SECTIONS = {"algorithms": "algorithm", "callbacks": "callback", "loggers": "logger"}
"""Sections whose keys are names of classes, with the registry's word for what they name."""


@dataclass(slots=True)
class Model:
    """Which network, and what it minimises."""

    name: str = "resnet50"  # one of MODELS, torchvision's and never pretrained, or package.module:Class
    loss_name: str = "cross_entropy"  # one of LOSSES; the binary one is summed over classes, averaged over the batch
    init: str = "mosaic"  # one of INITS; how weights are drawn before training
    num_classes: int = 1000  # must be the number of class folders in the data


@dataclass(slots=True)
class Dataset:
    """Images, and how they are cut."""

    is_streaming: bool = False  # True: MosaicML Streaming shards; False: a folder train/<class>/<image>
    path: str | None = None  # a folder, or a remote such as s3://bucket/folder; has no default
    local: str | None = None  # the folder that caches streamed shards; needed when is_streaming
    cache_limit: int | str | None = None  # bytes of shards to keep there, as a number or as in 200gb; None: all
    storage: str | None = None  # a kind of loaders.storage.kinds; None: streaming or imagefolder, as is_streaming says
    decoder: str = "auto"  # one of loaders.images.decoders; auto: native where it is built, else torchvision
    preload: str | None = None  # a folder on a fast disk that the data are copied to before training
    pack_size: int | None = None  # for storage packed: short side in pixels that images are kept at; None: all pixels
    resize_size: int = -1  # shorter side in pixels before the random crop; -1: no such resize
    crop_size: int = 224  # side in pixels of the square that the network sees
    batch_size: int = 2048  # images per step over ALL devices
    num_workers: int | None = None  # loader processes per device, which share its cores; None: one a core, at most 8
    prefetch_factor: int | None = None  # batches that each worker holds ready; None: PyTorch's default


@dataclass(slots=True)
class TrainDataset(Dataset):
    """The images to learn from: a random crop of each."""

    min_crop_area: float = 0.08  # the smallest part of an image's area that a crop may show, 0 to 1
    hflip: bool = True  # mirror every other image; False for what has a left and a right, such as writing


@dataclass(slots=True)
class EvalDataset(Dataset):
    """The images to measure with: resized to 256 before the central crop."""

    resize_size: int = 256  # shorter side in pixels before the central crop; -1: no resize


WEIGHT_DECAY_ON = "weight_decay_on"
"""A key of the optimizer section that is no argument of its class: all, or weights."""


def default_optimizer() -> dict[str, Any]:
    """The published baseline's optimizer."""
    return {"name": "decoupled_sgdw", "lr": 2.048, "momentum": 0.875, "weight_decay": 5.0e-4}


@dataclass(slots=True)
class Scheduler:
    """How the learning rate runs over the training."""

    name: str = "cosine_with_warmup"  # one of recipes.schedules.SCHEDULES, or package.module:function
    t_warmup: str = "8ep"  # length of the linear rise to optimizer.lr
    alpha_i: float = 0.0  # the fraction of optimizer.lr where the rise begins
    alpha_f: float = 0.0  # the fraction of optimizer.lr where the curve ends
    eta_min: float | None = None  # the learning rate where the curve ends, in place of alpha_f
    scale_warmup: bool = True  # whether scale_schedule_ratio shortens the warm-up too
    pct_start: float = 0.3  # one_cycle: the part of the run that rises
    div_factor: float = 25.0  # one_cycle: begins at optimizer.lr divided by this
    final_div_factor: float = 1.0e4  # one_cycle: ends at the beginning divided by this
    base_momentum: float | None = 0.85  # one_cycle: the momentum at the peak; None leaves optimizer.momentum alone
    max_momentum: float = 0.95  # one_cycle: the momentum at both ends


@dataclass(slots=True)
class Config:
    """A whole run."""

    run_name: str | None = None  # names the folder under runs_folder; None: made from the recipe, model and time
    is_train: bool = True  # False: evaluate only
    seed: int = 17  # of weights, order and augmentation
    max_duration: str = "90ep"  # length of training
    scale_schedule_ratio: float = 1.0  # multiplies the length of any recipe
    device_train_microbatch_size: int | str | None = None  # images per forward pass on one device; auto; None: all
    grad_accum: int | str | None = None  # old name: a number of microbatches per step, or auto
    precision: str | None = None  # one of PRECISIONS; None: chosen by the device
    device: str | None = None  # one of DEVICES; None: gpu if there is one
    compile: bool = False  # torch.compile the model
    deterministic: bool = False  # only kernels that give the same bits every time; slower
    model: Model = field(default_factory=Model)
    train_dataset: TrainDataset = field(default_factory=TrainDataset)
    eval_dataset: EvalDataset = field(default_factory=EvalDataset)
    optimizer: dict[str, Any] = field(default_factory=default_optimizer)
    scheduler: Scheduler = field(default_factory=Scheduler)
    algorithms: dict[str, Any] = field(default_factory=dict)  # name -> arguments, in the order they run
    callbacks: dict[str, Any] = field(default_factory=dict)  # name -> arguments
    loggers: dict[str, Any] = field(default_factory=lambda: {"progress_bar": {}})  # name -> arguments
    recipe_name: str | None = None  # a name from recipes/, or a path to a YAML
    eval_interval: str = "1ep"  # how often to evaluate
    save_folder: str | None = "{runs_folder}/{run_name}/checkpoints"  # local or s3://; None: no checkpoints
    save_interval: str = "1ep"  # how often to save
    save_num_checkpoints_to_keep: int = 2  # the newest so many; -1: all
    save_overwrite: bool = False  # whether an existing checkpoint of the same name may be replaced
    load_path: str | None = None  # a checkpoint to start from
    load_unsafe_pickle: bool = False  # True: run the code in a checkpoint that is more than data; only if you trust it
    load_weights_only: bool = False  # True: take the weights and leave optimizer, epoch and the rest
    autoresume: bool = False  # go on from the newest checkpoint of the same run_name, if there is one
    runs_folder: str = "runs"  # where each run leaves its record
    dry_run: bool | str = False  # True: print the run, build nothing; FULL: with every value, not only changed ones
    python_log_level: str | None = None  # debug, info, warning, error or critical
    dist_timeout: float = 600.0  # seconds after which a silent rank is given up

    def checkpoint_folder(self, run_name: str) -> str | None:
        """Return save_folder with its placeholders filled in."""
        folder = self.save_folder
        return folder and folder.replace("{run_name}", run_name).replace("{runs_folder}", self.runs_folder)

    def section(self, name: str) -> Dataset:
        """train_dataset or eval_dataset, by its name."""
        return {"train_dataset": self.train_dataset, "eval_dataset": self.eval_dataset}[name]

    def sections(self) -> dict[str, Dataset]:
        """The data sections that the run reads, by name: evaluation alone reads no training data."""
        return {name: self.section(name) for name in ("train_dataset", "eval_dataset")[not self.is_train :]}
