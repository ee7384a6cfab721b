"""Random images that are already on the device, to measure training speed without data loading."""

from typing import Any

import torch

from loaders.dataset import ImageDataset, split_key
from loaders.images.transforms import Pipeline
from loaders.sampler import EpochSampler
from loaders.workers import WorkerLoader

SAMPLES = {"train": 12_811, "val": 500}
"""A hundredth of ImageNet's."""


class SyntheticDataset(ImageDataset):
    """Noise labeled with classes 0 and 1, which every model has."""

    labels_are_free = False  # checking them would make the host wait for the GPU

    def __init__(self, split: str, pipeline: Pipeline, seed: int) -> None:
        super().__init__(pipeline, seed)
        self.split = split

    def __len__(self) -> int:
        return SAMPLES[self.split]

    def name_of(self, index: int) -> str:
        return f"synthetic image {index}"

    def read(self, index: int) -> tuple[Any, int]:
        raise NotImplementedError("synthetic images are only made in batches")


class SyntheticLoader(WorkerLoader):
    """Loader that repeats one batch, made once per size: (uint8 [B, 3, S, S] channels_last, int64 [B]); no workers.

    The sampler defines the batches of an epoch, their sizes, and where to resume.
    """

    dataset: SyntheticDataset
    sampler: EpochSampler

    def __init__(
        self,
        dataset: SyntheticDataset,
        batch_size: int,
        sampler: EpochSampler,
        drop_last: bool,
        _num_workers: int | None = None,
        device: str = "cpu",
    ) -> None:
        super().__init__(dataset, batch_size, sampler=sampler, drop_last=drop_last, num_workers=0)
        self._images = batch_size
        self._made: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._device = torch.device("cuda", torch.cuda.current_device()) if device == "gpu" else "cpu"

    def _get_iterator(self) -> Any:
        for keys in self.batch_sampler:  # type: ignore[union-attr]
            size = split_key(keys[0]).size or self.dataset.pipeline.crop_size
            images, labels = self._batch(size)
            yield images[: len(keys)], labels[: len(keys)]

    def _batch(self, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        if size not in self._made:
            draw = torch.Generator().manual_seed(self.dataset.seed)
            images = torch.randint(0, 256, (self._images, size, size, 3), dtype=torch.uint8, generator=draw)
            labels = torch.randint(0, 2, (self._images,), generator=draw)
            self._made[size] = images.to(self._device).permute(0, 3, 1, 2), labels.to(self._device)
        return self._made[size]
