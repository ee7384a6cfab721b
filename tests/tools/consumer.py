"""Classify images with exported files, as someone who has never heard of this project; run as a script, by path.

Takes a folder per run of exported files, and FILE.npz to write: for each folder the pixels that its preprocess.py makes
of the images in images.txt, and each file's outputs for them.
"""

import json
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parents[2]
sys.path = [path for path in sys.path if Path(path).resolve() not in (HERE, Path(__file__).resolve().parent)]
sys.path_importer_cache.clear()


def probabilities(logits):
    return logits.softmax(dim=1)


def weights_of_torchvision(file, images):
    import torch
    import torchvision
    from safetensors import safe_open
    from safetensors.torch import load_file

    if file.suffix == ".pth":
        weights, about = torch.load(file, weights_only=True), json.loads(Path(f"{file}.json").read_text())
    else:
        weights, about = load_file(file), safe_open(file, "pt").metadata()
        assert about["format"] == "pt"
    if (code := file.with_name("network.py")).exists():
        network = runpy.run_path(str(code))["load"](str(file))
    else:
        network = getattr(torchvision.models, about["architecture"])(num_classes=len(json.loads(about["classes"])))
        network.load_state_dict(weights, strict=True)
    return about, probabilities(network.eval()(images["normalized"]))


def folder_of_timm(file, images):
    """Load with timm, whose own transform prepares the images; of a hub folder, compare with transformers."""
    import timm
    import torch
    from PIL import Image

    network = timm.create_model(f"local-dir:{file}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network))
    prepared = torch.stack([transform(Image.open(name).convert("RGB")) for name in images["files"]])
    found = network(prepared)
    if file.name.endswith("-hub"):
        from transformers import AutoModelForImageClassification

        other = AutoModelForImageClassification.from_pretrained(file).eval()
        assert torch.equal(other(prepared).logits, found) and list(other.config.id2label.values()) == list("0123456789")
    about = network.pretrained_cfg
    return {"classes": json.dumps(about["label_names"]), "crop_size": about["input_size"][1]}, probabilities(found)


def program_of_torch(file, images):
    import torch

    about = {"classes": "", "crop_size": ""}
    if file.suffix == ".pt2":
        program = torch.export.load(file, extra_files=about).module()
    else:
        program = torch.jit.load(file, _extra_files=about)
        about = {key: text.decode() for key, text in about.items()}
    for size in (1, 7):
        assert len(program(images["bytes"][:size])) == size
    return about, program(images["bytes"])


def onnx(file, images):
    """Run with onnxruntime; OpenVINO must give the same."""
    import numpy as np
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(file)
    (given,) = session.get_inputs()
    assert given.type == "tensor(uint8)" and given.shape[1:] == [3, *images["bytes"].shape[2:]]
    for size in (1, 7):
        assert len(session.run(None, {given.name: images["bytes"][:size].numpy()})[0]) == size
    (found,) = session.run(None, {given.name: images["bytes"].numpy()})
    if "int8" not in file.name:
        import openvino

        read = openvino.compile_model(file, "CPU", config={"INFERENCE_PRECISION_HINT": "f32"})
        for size in (1, 7, len(found)):
            np.testing.assert_allclose(read(images["bytes"][:size].numpy())[0], found[:size], atol=1e-4)
    return session.get_modelmeta().custom_metadata_map, torch.from_numpy(found)


CONSUMERS = {
    "": folder_of_timm,
    ".pth": weights_of_torchvision,
    ".safetensors": weights_of_torchvision,
    ".pt2": program_of_torch,
    ".pt": program_of_torch,
    ".onnx": onnx,
}


def main(folders, target):
    import numpy as np
    import torch

    assert not [name for name in ("tools", "training", "loaders", "recipes", "model") if find_spec(name)]
    files = Path("images.txt").read_text().splitlines()
    found = {}
    for folder in map(Path, folders):
        prepare = runpy.run_path(str(folder / "preprocess.py"))
        pixels = np.stack([prepare["load"](file) for file in files])
        images = {
            "files": files,
            "bytes": torch.from_numpy(pixels),
            "normalized": torch.from_numpy(prepare["normalized"](pixels)),
        }
        found[f"{folder}/pixels"] = pixels
        for file in sorted(folder.iterdir()):
            if file.suffix in CONSUMERS and file.name != "__pycache__":
                with torch.inference_mode():
                    about, answers = CONSUMERS[file.suffix](file, images)
                assert json.loads(about["classes"]) == list("0123456789") and int(about["crop_size"]) == 32, about
                found[str(file)] = answers.numpy()
    np.savez(target, **found)


if __name__ == "__main__":
    main(sys.argv[1:-1], sys.argv[-1])
