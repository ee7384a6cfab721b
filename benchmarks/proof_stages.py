"""The stages of benchmarks.gpu_proof: each runs programs of this project in processes of their own, and checks them.

`train_twice`, `steps` and `images` are what some of those processes run.
"""

from __future__ import annotations

import json
import math
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.proof_session import Check, Ended, Session, batch_of
from config.load import as_shipped, read_recipe, recipe_files

SEVERAL_GPUS = "decentralized"  # the recipe that needs them; NCCL refuses two ranks on one
SAVED = "baseline"  # the recipe whose weights those start from that need any
HALF = ("baseline", "medium", "schedulefree_adamw")  # trained in fp16 too; medium has SAM
ABOVE_CHANCE = 20.0  # percent of the ten digits, after 4 epochs
SYNTHETIC = ("yamls/resnet50.yaml", "train_dataset.storage=synthetic", "eval_dataset.storage=synthetic")
SHORT = ("scheduler.t_warmup=0ba", "save_folder=null")


def environment(session: Session) -> Iterator[Check]:
    """Versions, the native decoder, a compiler."""
    found = session.machine
    said = ", ".join(f"{key} {value}" for key, value in found.items())
    yield Check("fault" not in found, found.get("fault", said))


def ops(session: Session) -> Iterator[Check]:
    """Every operation of a training step under DDP with deterministic algorithms, and the collectives that we call."""
    ended = session.call("proof_stages.train_twice", limit=120)
    print_of = re.search(r"^TWICE (.*)$", ended.text, re.MULTILINE)
    same = bool(print_of) and print_of[1].endswith("bit-identical")  # type: ignore[index]
    yield Check(not ended.fault and same, (ended.fault or (print_of[1] if print_of else "no result")) + ended.warned)


def train_twice() -> None:
    """Train a ResNet-50 for three steps under DDP, twice, and print whether the weights are the same bits."""
    import torch
    import torch.distributed as td
    from composer.utils import reproducibility

    import model
    from recipes.algorithms._base import dense_targets

    cuda = torch.cuda.is_available()
    device, backend = ("cuda", "nccl") if cuda else ("cpu", "gloo")
    batch, size = (32, 160) if cuda else (2, 64)
    reproducibility.configure_deterministic_mode()
    weights = []
    with tempfile.TemporaryDirectory() as folder:
        td.init_process_group(backend, init_method=f"file://{folder}/store", world_size=1, rank=0)
        for _ in range(2):
            torch.manual_seed(0)
            network = model.build_composer_resnet("resnet50", "binary_cross_entropy", 1000)
            network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            parallel = torch.nn.parallel.DistributedDataParallel(network)
            optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
            images = torch.rand(batch, 3, size, size, device=device).to(memory_format=torch.channels_last)
            labels = torch.arange(batch, device=device)
            for _ in range(3):
                with torch.autocast(device, torch.bfloat16, enabled=cuda):
                    logits = parallel((images, labels))
                    loss = network.loss(logits, (images, dense_targets(logits, labels)))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            weights.append([tensor.cpu() for tensor in network.state_dict().values()])
        td.all_reduce(torch.ones(5, dtype=torch.float64, device=device))
        td.broadcast_object_list([None, ("a", 1)], 0)
        td.all_reduce(torch.tensor(3, device=device), td.ReduceOp.MAX, async_op=True).wait()
        td.destroy_process_group()
    same = all(map(torch.equal, *weights))
    print(f"TWICE resnet50, {backend}, deterministic: {'bit-identical' if same else 'different weights'}")


def recipes(session: Session) -> Iterator[Check]:
    """Every recipe not based on another one in bf16, some in fp16, on the digits; in fp32 without a GPU."""
    names = [name for name in recipe_files() if name != SEVERAL_GPUS and read_recipe(name).parent is None]
    tuned = [name for name in names if starts_from_weights(name)]
    own = "amp_bf16" if session.has_gpu else "fp32"
    pairs = [(name, own) for name in names if name not in tuned]
    pairs += [(name, "amp_fp16") for name in HALF if session.has_gpu]
    at_once = max(1, min(4, session.machine.get("cores", 1) // 4))
    groups = [pairs[first : first + at_once] for first in range(0, len(pairs), at_once)]
    length = f"max_duration={4 if session.has_gpu else 2}ep"
    for group in [*groups, [(name, own) for name in tuned]]:
        started = []
        for recipe, precision in group:
            name = f"{recipe}-{precision}"
            words = [*session.digits(), f"recipe_name={recipe}", f"precision={precision}", length]
            words += [f"model.weights={session.runs}/{SAVED}-{own}"] if recipe in tuned else []
            words += ["save_folder=null"] if recipe != SAVED else []
            started.append((name, session.start(*session.main(name, *words))))
        for name, child in started:
            yield trained(session, name, child.wait(120))
    yield Check(True, f"{SEVERAL_GPUS} needs several GPUs")


def starts_from_weights(recipe: str) -> bool:
    """Whether a recipe names pretrained weights, which this machine may not have."""
    return bool(as_shipped(recipe)["model"]["weights"])


def trained(session: Session, name: str, ended: Ended) -> Check:
    """Check that a run ended well, with a finite loss and, after its epochs on a GPU, better than chance."""
    if ended.fault:
        return Check(False, f"{name}: {ended.fault}")
    last = session.rows(name)[-1]
    is_right = math.isfinite(last["train_loss"]) and (not session.has_gpu or last["top1"] > ABOVE_CHANCE)
    return Check(is_right, f"{name}: loss {last['train_loss']:.3f}, top-1 {last['top1']:.1f} %{ended.warned}")


def resume(session: Session) -> Iterator[Check]:
    """A run that is killed with SIGKILL and resumed ends with the same bits as one that is not."""
    every, after = (8, 24) if session.has_gpu else (2, 4)
    words = [*session.digits(), "recipe_name=medium", "deterministic=true", "max_duration=2ep"]
    words += [f"save_interval={every}ba", "autoresume=true"]
    whole, child = (session.start(*session.main(name, *words)) for name in ("whole", "killed"))
    is_killed = child.until(lambda: any(batch_of(file) >= after for file in session.checkpoints("killed")), 120)
    is_killed = is_killed and child.process.poll() is None
    child.kill()
    said = f"killed after batch {after}" if is_killed else "ended before it could be killed"
    yield Check(is_killed, f"medium, deterministic: {said}")
    again = session.train("killed", *words)
    begun = re.search(r"resuming from \S+-ba(\d+)-", again.text)
    yield Check(not again.fault and bool(begun), again.fault or (f"resumed at {begun[1]}" if begun else "not resumed"))
    if fault := whole.wait(120).fault or again.fault:
        yield Check(False, f"nothing to compare: {fault}")
        return
    one, other = (weights(session.checkpoints(name)[-1]) for name in ("whole", "killed"))
    yield Check(one == other, "the same weights to the bit" if one == other else "other weights")


def weights(checkpoint: Path) -> dict[str, bytes]:
    """Return the model's tensors in a checkpoint, as bytes."""
    import torch

    state = torch.load(checkpoint, map_location="cpu", weights_only=False)["state"]["model"]
    return {name: tensor.contiguous().numpy().tobytes() for name, tensor in state.items()}


def sigterm(session: Session) -> Iterator[Check]:
    """A run that is told to stop saves a checkpoint and exits with 143."""
    child = session.start(*session.main("stopped", *session.digits(), "max_duration=50ep", "save_interval=50ep"))
    has_begun = child.until((session.runs / "stopped/metrics.csv").exists, 90)
    told = time.monotonic()
    child.process.terminate()
    ended, took = child.wait(60), time.monotonic() - told
    saved = len(session.checkpoints("stopped"))
    is_right = has_begun and ended.status == 143 and saved > 0
    said = f"exit status {ended.status} after {took:.1f} s, {saved} saved"
    yield Check(is_right, said if is_right else f"{said}, {ended.fault}")


def speed(session: Session) -> Iterator[Check]:
    """Recipes next to a bare compiled loop, a process each, so that what is finished is kept."""
    rounds, number, size, batch = (3, 20, 176, 256) if session.has_gpu else (2, 2, 16, 8)
    words = ["yamls/resnet50.yaml" if session.has_gpu else "yamls/digits.yaml", f"train_dataset.batch_size={batch}"]
    words += [f"compile={str(session.has_gpu).lower()}", "--sizes", str(size)]
    words += ["--rounds", str(rounds), "--steps", str(number)]
    for recipe in ("baseline", "mild", "medium", "hot") if session.has_gpu else ("baseline",):
        ended = session.call("proof_stages.steps", *words, "--recipes", recipe, limit=150)
        if ended.fault:
            yield Check(False, f"{recipe}: {ended.fault}")
            continue
        row = ended.json()
        mfu = "" if row["mfu_ours"] is None else f", MFU {row['mfu_ours']:.1%}"
        said = f"{recipe} {row['ours']:,.0f} img/s, {row['ours'] / row['by_hand']:.0%} of a bare loop{mfu}"
        run: dict[str, Any] = {"recipe": recipe, "model": row["model"], "data": "random images", "image_sizes": [size]}
        run |= {"batch_size": batch, "precision": row["precision"], "compile": session.has_gpu}
        run |= {"images_per_second": row["ours"], "by_hand": row["by_hand"], "mfu": row["mfu_ours"]}
        run |= {"seconds": rounds * number * batch / row["ours"], "top1": None}
        yield Check(True, said + ended.warned, run)


def steps() -> None:
    """Run benchmarks.step on the words of this process, and print its row as JSON."""
    from benchmarks import step

    [row] = step.main(sys.argv[1:])
    run = step.load_run(step.parse(sys.argv[1:]), row.recipe, row.size)
    print(json.dumps(asdict(row) | {"model": run.config.model.name, "precision": run.machine.precision}))


def memory(session: Session) -> Iterator[Check]:
    """A batch that does not fit fails with a sentence, and trains with microbatches found by `auto`."""
    batch = min(128 * session.machine["gib"], 12_288)  # several times what fits, but not more than there are
    words = [*SYNTHETIC, *SHORT, f"train_dataset.batch_size={batch}", "train_dataset.crop_size=224", "max_duration=3ba"]
    ended = session.train("full", *words, limit=60)
    is_full = bool(ended.status) and "out of memory" in ended.text
    said = "out of memory" if is_full else ended.fault or "it fitted"
    yield Check(is_full, f"batch {batch:,} without auto: {said}")
    for recipe in ("mild", "medium"):
        auto = [f"recipe_name={recipe}", "device_train_microbatch_size=auto", "python_log_level=info"]
        ended = session.train(f"auto-{recipe}", *words, *auto, limit=100)
        found = re.findall(r"changed the microbatch size from \S+ -> (\d+)", ended.text)
        said = ended.fault or f"microbatches of {found[-1] if found else 'the whole batch'}"
        yield Check(not ended.fault and bool(found), f"auto, {recipe}: {said}")


def compiled(session: Session) -> Iterator[Check]:
    """`mild` compiled over all its image sizes, none of which falls back to eager for want of recompilations."""
    words = [*SYNTHETIC, *SHORT, "model.name=resnet18", "recipe_name=mild", "compile=true", "max_duration=40ba"]
    words += ["train_dataset.crop_size=128", "train_dataset.batch_size=256"]
    ended = session.train("compiled", *words, limit=180, TORCH_LOGS="recompiles")
    count, is_limited = ended.text.count("Recompiling function"), "recompile_limit" in ended.text
    said = ended.fault or f"mild, 64 to 128 px: {count} recompilations{', and torch gave up' if is_limited else ''}"
    yield Check(not ended.fault and not is_limited, said)


def parity(session: Session) -> Iterator[Check]:
    """The same five batches in fp32 on the CPU and on the GPU; without a GPU, on the CPU alone."""
    losses, words = {}, [*session.digits(), *SHORT, "precision=fp32", "max_duration=5ba"]
    children = {}
    for device in ("cpu", "gpu") if session.has_gpu else ("cpu",):
        command = session.main(f"on-{device}", *words, f"device={device}")
        children[device] = session.start(*command, NVIDIA_TF32_OVERRIDE="0")
    for device, child in children.items():
        if fault := child.wait(120).fault:
            yield Check(False, f"{device}: {fault}")
            return
        losses[device] = session.rows(f"on-{device}")[-1]["train_loss"]
    # Three instruction sets of one CPU gave 2.161 to 2.247.
    is_near = max(losses.values()) - min(losses.values()) < 0.1
    said = " and ".join(f"{loss:.3f} on {device}" for device, loss in losses.items())
    yield Check(is_near, f"loss after five fp32 batches: {said}{'' if session.has_gpu else ', no GPU to compare with'}")


def loading(session: Session) -> Iterator[Check]:
    """Training on JPEGs like ImageNet's: img/s, and the share of waiting, which decoded images in memory must avoid."""
    count, size, batch, epochs = (1024, 176, 256, 60) if session.has_gpu else (128, 64, 64, 4)
    folder = session.folder / "jpegs"
    if fault := session.call("proof_stages.images", str(folder), str(count), limit=60).fault:
        yield Check(False, fault)
        return
    model, precision = ("resnet50", "amp_bf16") if session.has_gpu else ("resnet18", "fp32")
    words = ["yamls/resnet50.yaml", "recipe_name=baseline", *SHORT, f"model.name={model}", f"precision={precision}"]
    words += ["model.num_classes=10", f"train_dataset.path={folder}", f"eval_dataset.path={folder}"]
    words += [f"{part}_dataset.batch_size={batch}" for part in ("train", "eval")]
    words += [f"{part}_dataset.crop_size={size}" for part in ("train", "eval")]
    words += [f"max_duration={epochs}ep", f"eval_interval={epochs // 2}ep"]
    for storage in ("imagefolder", "packed"):
        ended = session.train(storage, *words, f"train_dataset.storage={storage}")
        if ended.fault:
            yield Check(False, f"{storage}: {ended.fault}")
            continue
        before, last = session.rows(storage)  # the first has the start of the workers
        seconds, rate = last["train_seconds"] - before["train_seconds"], last["samples_per_second"]
        share = (last["wait_seconds"] - before["wait_seconds"]) / seconds
        said = f"{storage} {rate:,.0f} img/s, waiting {share:.1%}{ended.warned}"
        run: dict[str, Any] = {"recipe": "baseline", "model": model, "data": f"{count:,} JPEGs of 500 px, {storage}"}
        run |= {"image_sizes": [size], "batch_size": batch, "precision": precision, "compile": False}
        run |= {"images_per_second": rate, "by_hand": None, "mfu": None, "seconds": seconds, "top1": None}
        is_fast = storage != "packed" or share < 0.05 or not session.has_gpu
        yield Check(is_fast, said, run)


def images() -> None:
    """Write JPEGs like ImageNet's to the folder, and as many, as this process's words say."""
    from benchmarks.image_files import make_images

    make_images(Path(sys.argv[1]), int(sys.argv[2]))
