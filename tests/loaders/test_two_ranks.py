"""Two ranks of a node share a cache, and each image is read once."""

import json
import subprocess
import sys
from pathlib import Path

from tests.runs import bare_shell
from tests.s3 import upload

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import json, sys
from composer.utils import dist
from data import build_imagenet_dataspec

dist.initialize_dist("cpu", timeout=300)
remote, cache, out = sys.argv[1:]
seen = []
for is_train in (True, False):
    spec = build_imagenet_dataspec(
        remote, True, 4, local=cache, is_train=is_train, shuffle=is_train, drop_last=is_train, crop_size=16,
        num_workers=1, seed=1,
    )
    for epoch in (0, 1):
        spec.dataloader.sampler.set_epoch(epoch)
        indices = [index for _, index in spec.dataloader.sampler]
        batches = sum(len(labels) for _, labels in spec.dataloader)
        seen.append([indices, batches])
    del spec
with open(f"{out}/{dist.get_global_rank()}.json", "w") as file:
    json.dump(seen, file)
"""


def test_two_ranks_share_a_cache(s3_server: str, compressed: Path, tmp_path: Path) -> None:
    remote = upload(compressed, "images", "set")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    launcher = [sys.executable, "-m", "composer.cli.launcher", "-n", "2"]
    done = subprocess.run(
        [*launcher, str(program), remote, str(tmp_path / "cache"), str(tmp_path)],
        env=bare_shell(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    for (left, count), (right, other) in zip(first, second, strict=True):
        assert sorted(left + right) == list(range(60))
        assert count == other
    assert [count for _, count in first] == [28, 28, 30, 30], "whole batches in training, all images in evaluation"
