"""Checks of decentralized training on four ranks: `python four_ranks.py FOLDER IMAGES PORT`.

Each check returns its rank's figures and small tensors. They are written to FOLDER/results-RANK.pt, which
test_decentralized.py asserts, so that one start serves all checks. The ranks are forks of one process, because imports
alone take four processes ten seconds.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

import composer.algorithms  # noqa: F401  # otherwise each rank's first Trainer imports it
import torch
import torch.nn.functional as F
import torchvision
from composer.core import Event
from composer.loggers import InMemoryLogger
from composer.utils import dist
from decent_dp.ddp import DecentralizedDataParallel
from torch import Tensor
from torchvision.models.resnet import BasicBlock, ResNet

from benchmarks.links import end, start
from common.folders import LocalFolder
from config import load
from main import main as run_main
from recipes.algorithms.decentralized import Decentralized
from recipes.algorithms.ema import EMA
from tests.algorithms.tiny import Recorder
from tests.algorithms.toy_ranks import (
    OPTIMIZERS,
    WORLD,
    Counter,
    Losses,
    Scatter,
    digest,
    everything,
    loader,
    network,
    own_weights,
    put_back,
    row,
    trainer,
    weights,
)
from tests.runs import small_yaml
from training import build, checkpoints, data_wait, guards
from training.interrupt import Interrupted, StopRequest
from training.recorder import TrainAccuracy

PARITY = [(topology, optimizer) for topology in ("ring", "one_peer_exp", "complete") for optimizer in ("sgd", "adam")]


def consensus() -> list[Tensor]:
    """Return the weights after each of three steps at learning rate 0, from different weights on each rank."""
    look = Recorder(Event.BATCH_END, weights)
    still = {"lr": 0.0}
    trainer([Decentralized("one_peer_exp")], batches=3, optimizer_args=still, callbacks=[Scatter(), look]).fit()
    return look.found


def parity() -> dict[tuple[str, str], float]:
    """Return the largest difference from decent-dp's weights after seven steps, per topology and optimizer."""
    found = {}
    for topology, optimizer in PARITY:
        run = trainer([Decentralized(topology)], optimizer)
        theirs = DecentralizedDataParallel(
            network(),
            lambda named, optimizer=optimizer: OPTIMIZERS[optimizer]([p for _, p in named]),
            topology=topology.replace("_", "-"),
        )
        # The package starts with the second round of the cycle and then skips one; ours starts with the first. Make the
        # package use the same rounds, with its own groups.
        edges = theirs._topo._edges
        theirs._topo.get_edge = lambda step, edges=edges: edges[max(0, step - 2) % len(edges)]
        run.fit()
        theirs.train()
        for images, labels in loader(7):
            F.cross_entropy(theirs(images), labels).backward()
        found[topology, optimizer] = float((own_weights(run) - row(theirs.parameters())).abs().max())
    return found


def evaluation(with_ema: bool) -> dict[str, Any]:
    """Return the weights before, during and after an evaluation in mid-training, and the logged distance."""
    before, inside, after = (Recorder(e, weights) for e in (Event.BATCH_END, Event.EVAL_BATCH_START, Event.EVAL_END))
    statistics = Recorder(Event.EVAL_BATCH_START, lambda state: row(state.model.buffers()))
    ema = EMA("2ba", update_interval="1ba")
    logged = InMemoryLogger()
    average = Recorder(Event.BATCH_END, lambda _: row(ema._parameters.values()))
    run = trainer(
        [ema, Decentralized("ring")] if with_ema else [Decentralized("ring")],
        callbacks=[guards.CommonBatchNorm(), before, inside, after, statistics, *([average] if with_ema else [])],
        eval_dataloader=loader(1),
        loggers=logged,
        eval_interval="3ba",
    )
    run.fit()
    return {
        "before": before.found[2],
        "evaluated": (average if with_ema else before).found[2],
        "inside": inside.found[0],
        "statistics": statistics.found[0],
        "after": after.found[0],
        "end": weights(run.state),
        "logged": float(
            logged.get_timeseries("decentralized/consensus_distance")["decentralized/consensus_distance"][0]
        ),
    }


def collectives() -> dict[bool, tuple[int, int, Tensor]]:
    """Return, with and without lockstep: reductions over all ranks in three steps, samples in total, the weights.

    Includes the callbacks that each run with trackers has, with one window of data_wait per step.
    """
    found = {}
    data_wait.WINDOW, data_wait._START_UP = 1, 0
    for lockstep in (True, False):
        counter = Counter()
        callbacks = [counter, TrainAccuracy(), data_wait.DataWait(None)]
        run = trainer([Decentralized("ring", lockstep=lockstep)], callbacks=callbacks)
        run.fit()
        found[lockstep] = (counter.calls, run.state.timestamp.sample.value, own_weights(run))
    return found


def out_of_memory() -> tuple[int, int]:
    """Rank 1 runs out of memory in its fourth batch; return this rank's number of steps and its last microbatch."""
    run = trainer([Decentralized("ring")], device_train_microbatch_size=2)
    run.state.auto_microbatching = True
    passes: list[int] = []

    def fail(_: Tensor) -> None:
        passes.append(1)
        if len(passes) == 8 and dist.get_global_rank() == 1:  # in the backward pass of the second microbatch
            raise RuntimeError("CUDA out of memory")

    run.state.model.module.module[0].weight.register_hook(fail)
    steps: list[int] = []
    run.state.optimizers[0].register_step_post_hook(lambda *_: steps.append(1))
    run.fit()
    return len(steps), run.state.device_train_microbatch_size


def resumed(folder: Path) -> dict[str, bool]:
    """Return, per optimizer, whether resuming reproduces the last four of seven steps on this rank."""
    found = {}
    for optimizer, with_ema in (("sgd", False), ("accum_adam", True)):
        ends = []
        for again in (False, True):
            place = LocalFolder(str(folder / optimizer))
            saver = checkpoints.Checkpoints(place, "3ba", -1, StopRequest())
            look = Recorder(Event.BATCH_END, everything)
            run = trainer(
                [*([EMA("2ba", update_interval="1ba")] if with_ema else []), Decentralized("one_peer_exp")],
                optimizer,
                callbacks=[guards.CommonBatchNorm(), saver, look],
                load_path=str(place.path / "ep0-ba3-rank0.pt") if again else None,
            )
            if again:
                saver.source = place
                saver.restore_ranks(run.state)
            run.fit()
            assert len(look.found) == (4 if again else 7)
            ends.append(look.found[-1])
        found[optimizer] = torch.equal(*ends)
    return found


def stopped_by_a_signal(folder: Path) -> tuple[int, int, list[str]]:
    """Rank 1 alone gets a SIGTERM in its fourth batch; return this rank's exit status, last batch and saved files."""
    place = folder / "stopped"
    saver = checkpoints.Checkpoints(LocalFolder(str(place)), "1000ba", -1, StopRequest())
    kill = Recorder(Event.BATCH_START, lambda s: s.timestamp.batch == 3 and os.kill(os.getpid(), signal.SIGTERM))
    callbacks = [saver, kill] if dist.get_global_rank() == 1 else [saver]
    run = trainer([Decentralized("ring")], batches=30, callbacks=callbacks)
    status = 0
    try:
        with saver.stop:
            run.fit()
    except Interrupted as interrupted:
        status = int(str(interrupted.code))
    dist.barrier()
    return status, run.state.timestamp.batch.value, sorted(os.listdir(place))


def through_main(folder: Path, image_folder: str) -> dict[str, Any]:
    """Compare a whole run by main() with its resumed last third, and with a start without the ranks' own files."""
    os.chdir(folder)
    yaml = folder / "small.yaml"
    if dist.get_global_rank() == 0:
        alone = {"train_dataset__num_workers": 0, "eval_dataset__num_workers": 0}
        small_yaml(folder, Path(image_folder), optimizer__lr=0.01, eval_interval="3ba", **alone)
    dist.barrier()
    words = [str(yaml), "algorithms.decentralized={}", "save_interval=2ba", "save_num_checkpoints_to_keep=-1"]
    middle = Path("runs/whole/checkpoints/ep0-ba2-rank0.pt")
    again = [f"load_path={middle}", "save_folder=null"]
    still = ["optimizer.lr=0", "optimizer.weight_decay=0"]
    # A ResNet-10, half the size: four ranks share the memory.
    torchvision.models.resnet18 = lambda **given: ResNet(BasicBlock, [1, 1, 1, 1], **given)
    ends, own, losses = {}, {}, {}
    for name, more in {"whole": [], "again": again, "mean": [*still, *again]}.items():
        if name == "mean":
            Path(str(middle).replace("rank0", f"own{dist.get_global_rank()}-of-4")).unlink()
        losses[name] = Losses()
        build.callbacks = lambda _config, noted=losses[name]: [noted]
        run = run_main(load([*words, "max_duration=3ba", *more, f"run_name={name}"]))
        ends[name] = digest(run.state.model.parameters())
        put_back(run)
        own[name] = digest(run.state.model.parameters())
        names = [name.removeprefix("module.") for name, _ in run.state.model.named_parameters()]
        run.close()
    saved = torch.load(middle, weights_only=False)["state"]["model"]
    return {
        "the same to the bit": own["whole"] == own["again"] and ends["whole"] == ends["again"],
        "weights of its own": own["whole"] != ends["whole"],
        "started from the mean": own["mean"] == digest(saved[name] for name in names),
        "losses": losses["whole"].found,
    }


def rank(number: int, folder: Path, image_folder: str, port: str) -> None:
    """Run every check and write this rank's results."""
    names = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": WORLD, "LOCAL_WORLD_SIZE": WORLD, "NODE_RANK": 0}
    os.environ.update({name: str(value) for name, value in names.items()}, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    warnings.simplefilter("ignore")
    dist.initialize_dist("cpu", timeout=300)
    results = {
        "consensus": consensus(),
        "parity": parity(),
        "evaluation": evaluation(with_ema=False),
        "evaluation with ema": evaluation(with_ema=True),
        "collectives": collectives(),
        "out of memory": out_of_memory(),
        "resumed": resumed(folder),
        "told to stop": stopped_by_a_signal(folder),
        "main": through_main(folder, image_folder),
    }
    torch.save(results, folder / f"results-{number}.pt")


def main(folder: Path, image_folder: str, port: str) -> int:
    """Fork the ranks, which exit with this process, and wait for them; if one fails, kill the others."""
    children = {start(rank, number, folder, image_folder, port) for number in range(WORLD)}
    while children:
        child, status = os.wait()
        children.remove(child)
        if status:
            for other in children:
                end(other)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
