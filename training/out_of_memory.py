"""Recognize a full GPU by all its errors, so that device_train_microbatch_size=auto halves the microbatch."""

import warnings
from typing import Any

import torch
from composer.trainer import trainer as composer_trainer

# What a full GPU says besides the texts that Composer knows (strings of torch 2.7's libraries and of cuDNN 9).
# CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED, once ALLOC_FAILED, is about the host's memory.
TEXTS = (
    # torch tries cuDNN's plans one after another and drops their errors, even when all of them are out of memory.
    "FIND was unable to find an engine to execute this computation",  # with torch.backends.cudnn.benchmark
    "GET was unable to find an engine to execute this computation",  # without
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",  # no memory is left for cuBLAS's handle and workspace
    "CUDA driver error: out of memory",  # with PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True
)

_by_composer, _by_torch = composer_trainer._is_cuda_oom, torch.cuda.memory_stats


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether an error means that the GPU is full; warn where its text does not say so."""
    if isinstance(error, torch.OutOfMemoryError) or _by_composer(error):
        return True
    if not any(text in str(error) for text in TEXTS):
        return False
    # At a microbatch of one image, Composer's own error would hide another cause.
    warnings.warn(f"taken for a full GPU: {error}", RuntimeWarning, stacklevel=2)
    return True


def memory_stats(device: Any = None) -> dict[str, Any]:
    """Return torch's statistics, with the entry that Composer reads after each batch on any machine with a GPU.

    torch has no entry as long as nothing uses the GPU, which is so in a run with device=cpu.
    """
    return {"num_alloc_retries": 0, **_by_torch(device)}


def install() -> None:
    """Make Composer's Trainer ask `is_out_of_memory` and `memory_stats`."""
    torch.cuda.memory_stats = memory_stats
    composer_trainer._is_cuda_oom = is_out_of_memory  # type: ignore[assignment]
