"""tools.export: what it writes gives the run's answers to programs that know nothing of this project."""

from __future__ import annotations

import json
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from config import load
from main import main
from tests.runs import ROOT, summary
from tools.evaluate.__main__ import run as evaluate
from tools.export import quantized
from tools.export.__main__ import run
from tools.networks.opened import open_network, open_run
from tools.networks.runs import load_run
from tools.networks.shipped import Shipped
from tools.predict.__main__ import run as predict

slow = pytest.mark.slow
PROGRAMS = ["pt2", "torchscript", "onnx"]
WORDS = {
    "baseline": ["pth", "safetensors", "timm", "hub", *PROGRAMS, "--license=cc0-1.0"],
    "mild": ["pth", "safetensors", *PROGRAMS, "--with-code"],
    "hot": ["pth", "safetensors", *PROGRAMS, "--with-code"],
}
"""Run -> its export: BlurPool's networks need code for their weights."""


@pytest.fixture(scope="module")
def exported(digit_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a folder of exports per run; tests do not write to it."""
    folder = tmp_path_factory.mktemp("exported")
    for name, words in WORDS.items():
        assert run([str(digit_runs / "runs" / name), "-o", str(folder / name), "--format", *words]) == 0
    return folder


def pixels_of(digit_runs: Path) -> tuple[list[str], torch.Tensor]:
    """Return the files in val/ and their pixels as an evaluation sees them."""
    from loaders.images.transforms import EvaluationPipeline

    files = sorted(map(str, (digit_runs / "data/val").glob("*/*.png")))
    pipeline = EvaluationPipeline(32, 32)
    return files, torch.stack([pipeline(Path(file).read_bytes()) for file in files])


@slow
def test_consumers_get_the_runs_answers(exported: Path, digit_runs: Path, tmp_path: Path) -> None:
    """For all images of val/, in a process that cannot import this project."""
    files, pixels = pixels_of(digit_runs)
    (tmp_path / "images.txt").write_text("\n".join(files))
    words = [str(ROOT / "tests/tools/consumer.py"), *(str(exported / name) for name in WORDS), "found.npz"]
    done = subprocess.run([sys.executable, "-I", *words], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "found.npz") as found:
        for name in WORDS:
            folder = digit_runs / "runs" / name
            trained = open_run(folder, load_run(folder))
            own = Shipped(trained.network)
            own.network = trained.network  # with its stochastic blocks
            with torch.inference_mode():
                expected = own.eval()(pixels).numpy()
            assert len(set(expected.argmax(1))) > 1, "the test needs a network that tells images apart"
            assert np.array_equal(found[f"{exported / name}/pixels"], pixels.numpy())
            answers = {
                key: found[key] for key in found.files if key.startswith(f"{exported / name}/") and "pix" not in key
            }
            suffixes = {".pth", ".safetensors", ".pt2", ".pt", ".onnx", *([""] if name == "baseline" else [])}
            assert {Path(key).suffix for key in answers} == suffixes
            for key, values in answers.items():
                assert np.abs(values - expected).max() < 1e-4, key
                assert np.array_equal(values.argmax(1), expected.argmax(1)), key


@slow
def test_our_own_programs_read_it(exported: Path, digit_runs: Path, workdir: Path, capsys) -> None:
    """tools.evaluate --model gives the run's top-1, and tools.predict its probabilities."""
    for file, more in (("mild.onnx", []), ("mild.pt2", ["--outside-code"]), ("mild.pt", ["--outside-code"])):
        words = ["--model", str(exported / "mild" / file), "--data", str(digit_runs / "data"), "-o", file, *more]
        assert evaluate([*words, "--no-flip", "--gallery=0"]) == 0
        assert json.loads(Path(file, "summary.json").read_text())["top1"] == summary(digit_runs / "runs/mild")["top1"]
    capsys.readouterr()
    answers = []
    for network in (digit_runs / "runs/hot", exported / "hot/hot.onnx"):
        assert predict([str(network), str(digit_runs / "data/val/3"), "--format=jsonl", "--top=10"]) == 0
        answers.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    assert len(answers[0]) == 12
    for one, other in zip(*answers, strict=True):
        of_class = [{a["class"]: a["probability"] for a in said["top"]} for said in (one, other)]
        assert one["file"] == other["file"] and of_class[0] == pytest.approx(of_class[1], abs=1e-4)


@slow
def test_metadata(exported: Path, digit_runs: Path) -> None:
    about = json.loads((exported / "baseline/baseline.pth.json").read_text())
    assert about["run"] == about["recipe"] == "baseline" and about["checkpoint"] == "best-rank0.pt"
    assert float(about["top1"]) == summary(digit_runs / "runs/baseline")["top1"] and about["epochs"] == "1"
    assert (about["resize_size"], about["crop_size"], about["commit"]) == ("32", "32", "c0ffee")
    assert about["outputs"] == "logits" and json.loads(about["std"]) == [0.229, 0.224, 0.225]


@slow
def test_the_hubs_folder(exported: Path, digit_runs: Path) -> None:
    """Its card and configuration tell of this run, and of nothing that timm knows of a network of the same name."""
    front, text = (exported / "baseline/baseline-hub/README.md").read_text().split("---\n")[1:]
    about, top1 = yaml.safe_load(front), summary(digit_runs / "runs/baseline")["top1"]
    (result,) = about["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == pytest.approx(top1 / 100, abs=1e-6) and result["dataset"]["name"] == "data"
    assert about["license"] == "cc0-1.0" and about["library_name"] == "timm"
    assert "trained with the recipe `baseline`" in text and f"| top-1 | {top1:.2f} % |" in text
    assert "| trained on | 640 images of data |\n| epochs | 1 |" in text and "\npython main.py " in text
    config = json.loads((exported / "baseline/baseline-hub/config.json").read_text())
    assert config["pretrained_cfg"]["license"] == "cc0-1.0" and config["num_features"] == 512
    assert config == json.loads((exported / "baseline/baseline-timm/config.json").read_text())
    assert not {"paper_ids", "origin_url", "hf_hub_id"} & config["pretrained_cfg"].keys()


@slow
def test_logits_at_another_size(digit_runs: Path, workdir: Path, capsys) -> None:
    """The resize keeps the run's ratio; what is there already stays, and nothing is overwritten."""
    words = [str(digit_runs / "runs/baseline"), "-o", "out"]
    assert run([*words, "--format", "torchscript", "--size=48", "--logits"]) == 0
    about = {"outputs": "", "crop_size": "", "resize_size": ""}
    program = torch.jit.load("out/baseline.pt", _extra_files=about)
    assert about == {"outputs": b"logits", "crop_size": b"48", "resize_size": b"48"}
    images = torch.randint(0, 256, (3, 3, 48, 48), dtype=torch.uint8)
    expected = open_network(digit_runs / "runs/baseline", device="cpu").probabilities(images)
    torch.testing.assert_close(program(images).softmax(1), expected, rtol=1e-4, atol=1e-5)
    before = sorted(Path("out").iterdir())
    assert "RESIZE = 48 " in Path("out/preprocess.py").read_text()
    assert run([*words, "--format", "torchscript"]) == 2
    assert "out/baseline.pt: exists; delete it, or name another folder: -o FOLDER" in capsys.readouterr().err
    assert run([*words, "--format", "pth"]) == 2
    assert "out/preprocess.py: is of another network or image size; delete it" in capsys.readouterr().err
    assert sorted(Path("out").iterdir()) == before


@slow
def test_weights_that_torchvisions_network_does_not_hold(
    digit_runs: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """One sentence each, and nothing is left, also of a format that was already written."""
    words = [str(digit_runs / "runs/mild"), "-o", "out"]
    assert run([*words, "--format", "pth"]) == 2
    said = capsys.readouterr().err
    assert "--format pth: torchvision's resnet18 cannot hold this network, which blurpool changed; give" in said
    assert "give --format pt2, torchscript or onnx, which hold any network, or --format safetensors --with-code" in said
    # Its names, shapes and types are torchvision's, its outputs are not.
    Path("scaled_layer.py").write_text(SCALED)
    monkeypatch.syspath_prepend(workdir)
    shutil.copytree(digit_runs / "runs/baseline", "it")
    config = yaml.safe_load(Path("it/config.yaml").read_text())
    config["algorithms"]["scaled_layer:Scaled"] = {}
    Path("it/config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    assert run(["it", "-o", "out", "--format", "onnx"]) == 2
    assert "if you trust it, add --outside-code" in capsys.readouterr().err
    assert run(["it", "-o", "out", "--format", "torchscript", "safetensors", "--outside-code"]) == 2
    printed = capsys.readouterr()
    assert printed.out.count("it.pt ") == 1  # written, and removed
    assert (
        "--format safetensors: torchvision's resnet18 with these weights differs from the run by up to 0."
        in printed.err
    )
    assert ", which scaled_layer:Scaled changed; give --format pt2" in printed.err
    assert not Path("out").exists()


@slow
@pytest.mark.parametrize("name", ["pth", "safetensors", "hub", "pt2", "torchscript"])
def test_a_full_disk(name: str, digit_runs: Path, workdir: Path, capsys) -> None:
    """A limit on the size of files stands for it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, before[1]))
    try:
        assert run([str(digit_runs / "runs/baseline"), "-o", "out", "--format", name]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "out: cannot be written (File too large); name another folder: -o FOLDER" in capsys.readouterr().err
    assert not Path("out").exists()


@slow
def test_a_model_that_torch_cannot_export(
    digit_runs: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    """A user's own, with a branch on its data: one sentence, and none of torch's pages."""
    Path("branching_model.py").write_text(BRANCHING)
    monkeypatch.syspath_prepend(workdir)
    words = [f"{digit_runs}/runs/baseline/config.yaml", "model.name=branching_model:Branching", "run_name=it"]
    main(load([*words, "runs_folder=.", "max_duration=1ba", "scheduler.t_warmup=0ba"])).close()
    capfd.readouterr()
    for name in ("pt2", "onnx"):
        assert run(["it", "-o", "out", "--outside-code", "--format", "torchscript", name]) == 1
        printed = capfd.readouterr()
        said = f"--format {name}: torch cannot export branching_model:Branching (Could not guard on data-dependent"
        assert printed.err.startswith(f"\n{said}") and len(printed.err.splitlines()) == 2, printed.err
    assert not Path("out").exists()
    assert run(["it", "-o", "out", "--outside-code", "--format", "hub"]) == 2
    assert "torchvision's or timm's networks, but branching_model:Branching is yours" in capfd.readouterr().err


@slow
def test_ghost_batchnorm_is_batchnorm_in_evaluation(digit_runs: Path, workdir: Path) -> None:
    """Composer's rejects a batch smaller than its own, and would fix the size of exported batches."""
    words = [f"{digit_runs}/runs/baseline/config.yaml", "run_name=it", "runs_folder=.", "max_duration=1ba"]
    words += ["scheduler.t_warmup=0ba", "algorithms.ghost_batchnorm.ghost_batch_size=4"]
    main(load(words)).close()
    assert open_network("it").probabilities(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape == (1, 10)
    assert run(["it", "-o", "out", "--format", "pth", "torchscript"]) == 0


BRANCHING = """
from torch import nn

class Branching(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.body, self.fc = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), nn.Linear(3, num_classes)

    def forward(self, images):
        found = self.body(images)
        return self.fc(found) if float(found.sum()) > 0 else self.fc(found)
"""
SCALED = """
from composer.core import Algorithm, Event

class Scaled(Algorithm):
    @staticmethod
    def required_on_load():
        return True

    def match(self, event, state):
        return event == Event.INIT

    def apply(self, event, state, logger):
        state.model.module.layer4.register_forward_hook(lambda _, given, result: result * 0.9)
"""


@slow
def test_eight_bits(digit_runs: Path, workdir: Path, capsys, monkeypatch) -> None:
    """A quarter of the size; a network that does not survive it is not written."""
    # A network trained this briefly may lose an image or two, and old processors' integers saturate.
    with monkeypatch.context() as patch:
        patch.setattr(quantized, "MOST_LOST", 20.0)
        _in_eight_bits(digit_runs, capsys)

    # Equal outputs in floats, but a channel that leaves no integers to the others.
    shutil.copytree(digit_runs / "runs/baseline", "it")
    file = Path("it/checkpoints/best-rank0.pt")
    content = torch.load(file, weights_only=False)
    weights = content["state"]["model"]
    for name, values in (("bn1.weight", 1e4), ("bn1.bias", 1e4)):
        weights[f"module.layer1.0.{name}"][0] *= values
    weights["module.layer1.0.conv2.weight"][:, 0] /= 1e4
    file.unlink()
    torch.save(content, file)
    assert run(["it", "-o", "it/out", "--checkpoint", str(file), "--format", "onnx", "--int8"]) == 1
    assert re.search("--int8: top-1 on 120 .*, a loss of more than 1 point; leave --int8 out", capsys.readouterr().err)
    assert not Path("it/out").exists()


def _in_eight_bits(digit_runs: Path, capsys) -> None:
    assert run([str(digit_runs / "runs/baseline"), "-o", "out", "--format", "onnx", "--int8"]) == 0
    printed = capsys.readouterr().out
    before, after = map(
        float, re.search("120 images of val/: (.*) % in 32 bits, (.*) % in 8, calibrated with 256", printed).groups()
    )  # type: ignore
    assert before == pytest.approx(summary(digit_runs / "runs/baseline")["top1"], abs=0.01) and after >= before - 20
    assert Path("out/baseline-int8.onnx").stat().st_size < 12e6
    assert sorted(path.name for path in Path("out").iterdir()) == ["baseline-int8.onnx", "preprocess.py"]
    evaluated = ["--model=out/baseline-int8.onnx", "--data", str(digit_runs / "data"), "--no-flip", "--gallery=0"]
    assert evaluate([*evaluated, "-o", "measured"]) == 0
    assert json.loads(Path("measured/summary.json").read_text())["top1"] == pytest.approx(after, abs=0.01)


@slow
def test_data_that_are_not_there(digit_runs: Path, workdir: Path, capsys) -> None:
    shutil.copytree(digit_runs / "runs/baseline", "it", ignore=shutil.ignore_patterns("checkpoints"))
    config = yaml.safe_load(Path("it/config.yaml").read_text())
    config["eval_dataset"]["path"] = "/nowhere"
    Path("it/config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    assert run(["it", "--format", "onnx"]) == 2
    assert "/nowhere: the run's data set is not here; name it, or another one: --data PATH" in capsys.readouterr().err
    assert run(["it", "--format", "onnx", "--data", str(digit_runs / "data")]) == 1
    assert "--checkpoint best: there is no " in capsys.readouterr().err
    assert sorted(path.name for path in Path("it").iterdir()) == sorted(
        path.name for path in (digit_runs / "runs/baseline").iterdir() if path.name != "checkpoints"
    )
