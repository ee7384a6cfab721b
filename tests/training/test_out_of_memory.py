"""device_train_microbatch_size=auto halves the microbatch for each error of a full GPU, and for no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from composer import Trainer
from composer.core import Callback

from config import load
from main import main
from tests.runs import small_yaml

FULL = [
    RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    # With PYTORCH_CUDA_ALLOC_CONF=backend:cudaMallocAsync
    torch.OutOfMemoryError("Allocation on device 0 would exceed allowed memory. (out of memory)"),
    RuntimeError("FIND was unable to find an engine to execute this computation"),
    RuntimeError("GET was unable to find an engine to execute this computation after trying 12 plans."),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA driver error: out of memory"),
]
OTHER = [
    RuntimeError("cuDNN error: CUDNN_STATUS_BAD_PARAM"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
]


class FullGPU(Callback):
    """Makes training on a CPU, where auto is not allowed, fail for more than three images as on a GPU."""

    def __init__(self, error: RuntimeError) -> None:
        self.error = error

    def fit_start(self, state, logger) -> None:
        state.auto_microbatching = True
        forward = state.model.forward

        def small_only(batch: Any) -> torch.Tensor:
            if state.model.training and len(batch[0]) > 3:
                raise self.error
            return forward(batch)

        state.model.forward = small_only


@pytest.fixture
def train(workdir: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Train two batches of 12 through main.py, with an error for microbatches of more than three images."""

    def run(error: RuntimeError) -> Trainer:
        monkeypatch.setattr("training.build.callbacks", lambda _config: [FullGPU(error)])
        yaml = small_yaml(workdir, image_folder, train_dataset__num_workers=0, eval_dataset__num_workers=0)
        return main(load([str(yaml), "device=cpu", "max_duration=2ba", "save_folder=null"]))

    return run


@pytest.mark.slow
@pytest.mark.parametrize("error", FULL, ids=str)
def test_a_full_gpu_halves_the_microbatch(error: RuntimeError, train) -> None:
    with pytest.warns(RuntimeWarning) as said:
        trainer = train(error)
    assert trainer.state.timestamp.batch == 2 and trainer.state.device_train_microbatch_size == 3
    halved = [str(one.message) for one in said if "will be decreased from" in str(one.message)]
    assert len(halved) == 2, "12, 6, 3"
    if "out of memory" not in str(error):
        assert any(f"taken for a full GPU: {error}" == str(one.message) for one in said)


@pytest.mark.slow
@pytest.mark.parametrize("error", OTHER, ids=str)
def test_other_errors_end_the_run(error: RuntimeError, train) -> None:
    with pytest.raises(RuntimeError) as raised:
        train(error)
    assert error in (raised.value, raised.value.__cause__)
