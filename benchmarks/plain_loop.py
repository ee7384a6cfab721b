"""Compare main.py's accuracy with that of a hand-written loop.

    python -m benchmarks.plain_loop --seeds 10

The loop uses torchvision's transforms, torch's shuffling and SGD, and the baseline's learning rates. Both sides train
from each initialization of `model.init`, to separate the effects of the loop and of the initialization.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torchvision import transforms
from torchvision.datasets import ImageFolder

from common import command
from config import ConfigError, load
from config.read import ROOT
from loaders.images.transforms import CHANNEL_MEAN, CHANNEL_STD
from loaders.storage.digits import make_digits
from model import build_composer_resnet
from tools.compare import __main__ as compare
from tools.records.groups import Spread

SIZE, BATCH = 32, 64  # pixels and images, as in yamls/digits.yaml
INITS = ("mosaic", "torchvision")
LR, MOMENTUM, DECAY = 0.064, 0.875, 5e-4
FLOATS = transforms.Compose([transforms.ToTensor(), transforms.Normalize(CHANNEL_MEAN, CHANNEL_STD)])
AUGMENTED = transforms.Compose([transforms.RandomResizedCrop(SIZE, scale=(0.5, 1.0)), FLOATS])


def rate(step: int, warmup: int, total: int) -> float:
    """Return the fraction of the peak learning rate at a step: linear warm-up, then half a cosine to 0."""
    if step < warmup:
        return step / warmup
    return (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2


def by_hand(data: Path, init: str, seed: int, epochs: int) -> float:
    """Train a ResNet-18 in a loop that uses only our initial weights, and return its top-1 in percent."""
    torch.manual_seed(seed)
    train = [(image.copy(), label) for image, label in ImageFolder(data / "train")]
    network = build_composer_resnet("resnet18", num_classes=10, init=init).module
    parameters: list[torch.Tensor] = list(network.parameters())
    optimizer = torch.optim.SGD(parameters, lr=LR, momentum=MOMENTUM)
    steps = len(train) // BATCH
    for step in range(epochs * steps):
        if step % steps == 0:
            order = torch.randperm(len(train)).tolist()
        chosen = [train[number] for number in order[step % steps * BATCH :][:BATCH]]
        images = torch.stack([AUGMENTED(image) for image, _ in chosen])
        labels = torch.tensor([label for _, label in chosen])
        fraction = rate(step, steps, epochs * steps)
        optimizer.param_groups[0]["lr"] = LR * fraction
        loss = nn.functional.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        with torch.no_grad():  # decoupled weight decay, which torch.optim.SGD does not have
            torch._foreach_mul_(parameters, 1 - DECAY * fraction)
        optimizer.step()
    network.eval()
    held_out = [(FLOATS(image), label) for image, label in ImageFolder(data / "val")]
    with torch.no_grad():
        classes = network(torch.stack([image for image, _ in held_out])).argmax(1)
    right = classes == torch.tensor([label for _, label in held_out])
    return 100 * right.double().mean().item()


def by_main(data: Path, init: str, seed: int, epochs: int) -> float:
    """Train the same network with main.py, and return its top-1 in percent."""
    from main import main as train

    words = [f"{section}.path={data}" for section in ("train_dataset", "eval_dataset")]
    words += [f"model.init={init}", f"seed={seed}", f"max_duration={epochs}ep", f"runs_folder={data.parent}/runs"]
    trainer = train(load([str(ROOT / "yamls/digits.yaml"), *words, "save_folder=null", "device=cpu"]))
    top1 = 100 * trainer.state.eval_metrics["eval"]["MulticlassAccuracy"].compute().item()
    trainer.close()
    return top1


def in_words(top1: list[float]) -> str:
    """Format the mean, the standard deviation and each value."""
    each = ", ".join(f"{value:.2f}" for value in top1)
    return f"{statistics.fmean(top1):.2f} +- {statistics.stdev(top1):.2f} % ({each})"


def apart(pair: list[list[float]], step: float) -> str:
    """Format the difference of two means with its 95 % interval; `step` is one image in percentage points."""
    a, b = (Spread(len(top1), statistics.fmean(top1), statistics.stdev(top1)) for top1 in pair)
    return compare.difference(a, b, step).text(2)


def main(argv: Sequence[str] | None = None) -> int:
    """Train, print the comparisons, and return 0."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.plain_loop",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, default=10, help="runs per side and initialization (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=4, help="epochs per run (default: %(default)s)")
    given = parser.parse_args(argv)
    if given.seeds < 2 or given.epochs < 2:
        raise ConfigError(f"--seeds {given.seeds} --epochs {given.epochs}: give at least 2 of each")
    sides = {"main.py": by_main, "by hand": by_hand}
    seeds = range(1, given.seeds + 1)
    results: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        data = make_digits(Path(folder) / "digits")
        step = 100 / len(ImageFolder(data / "val"))
        for init, name in itertools.product(INITS, sides):
            top1 = [sides[name](data, init, seed, given.epochs) for seed in seeds]
            print(f"{name}, model.init={init}: {in_words(top1)}")
            for key in (init, f"{name} {init}"):
                results[key] = [*results.get(key, []), *top1]
    for init in INITS:
        both = [results[f"{name} {init}"] for name in sides]
        print(f"{' - '.join(sides)}, model.init={init}: {apart(both, step)}")
    print(f"{' - '.join(INITS)}, both sides: {apart([results[init] for init in INITS], step)}")
    return 0


if __name__ == "__main__":
    sys.exit(command.run(main))
