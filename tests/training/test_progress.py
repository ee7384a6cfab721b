"""What a run tells of its progress."""

from __future__ import annotations

from pathlib import Path

import pytest

from main import cli
from tests.runs import small_yaml

pytestmark = pytest.mark.slow


def test_epochs_of_a_run_in_batches(workdir: Path, pictures: Path, capfd: pytest.CaptureFixture) -> None:
    """Six batches, four to an epoch: two epochs, of which the second is only begun."""
    yaml = small_yaml(workdir, pictures, max_duration="6ba", save_folder=None)
    assert cli([str(yaml)]) == 0
    said = capfd.readouterr().out
    assert "epoch   1/2  " in said and "epoch   2/2  " in said
