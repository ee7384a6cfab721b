"""ONNX, which onnxruntime and many other programs run."""

from __future__ import annotations

from pathlib import Path

import torch

from tools.export.programs import BATCH, INPUT, Reader, example, outputs, quiet
from tools.export.subject import Subject

OPSET = 18


def write_onnx(subject: Subject, path: Path) -> None:
    """Write a network for batches of any size, in one file."""
    import onnx

    with quiet():
        program = torch.onnx.export(
            subject.program,
            (example(subject),),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[outputs(subject)],
            dynamic_shapes=({0: BATCH},),
            external_data=False,
        )
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(model, subject.texts(outputs(subject)))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def read_onnx(_: Subject, path: Path) -> Reader:
    """Load a network as onnxruntime's documentation says."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {INPUT: images.contiguous().numpy()})[0])
