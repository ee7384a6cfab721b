"""Fixture of the algorithms' tests: one thread and fixed seeds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def same_start() -> Iterator[None]:
    """One thread, and the same random numbers for each test."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(17)
    np.random.seed(17)
    yield
    torch.set_num_threads(threads)
