"""Declarations for Composer's own algorithms, in the vocabulary of recipes/declared.py. Imports no torch."""

from __future__ import annotations

from typing import Any

NOT_HERE = {
    "alibi": "biases attention, and a ResNet has none",
    "gated_linear_units": "is for BERT's layers, and a ResNet has none",
    "gyro_dropout": "replaces dropout layers, and a ResNet has none",
    "layer_freezing": "removes parameters from the optimizer, which then cannot be saved",
    "low_precision_groupnorm": "is for GroupNorm, and a ResNet has none",
    "low_precision_layernorm": "is for LayerNorm, and a ResNet has none",
    "no_op_model": "replaces your model with one that learns nothing",
    "selective_backprop": "passes batches through the model before they are normalized on the device",
    "seq_length_warmup": "shortens text sequences",
}
"""Algorithms that have no effect here, or a wrong one -> the reason."""
DECLARED: dict[str, dict[str, Any]] = {
    **{
        name: {"RULES": {"False": f"{reason}; type algorithms.{name}=null to remove it"}}
        for name, reason in NOT_HERE.items()
    },
    "cutmix": {
        "BOUNDS": {"alpha": "at least 0"},
        "RULES": {
            "not (interpolate_loss and 'label_smoothing' in config.algorithms)": (
                "interpolate_loss: true cannot be combined with label_smoothing, which may smooth only one of the two "
                "losses; type algorithms.cutmix.interpolate_loss=false, or algorithms.label_smoothing=null"
            ),
        },
        "BEFORE": {"label_smoothing": "which would otherwise smooth only one of the two mixed labels"},
    },
    "swa": {
        "NO_LR_FIND": "averages weights, which does not affect the training loss",
        "STARTS": {"swa_end": "match_event"},
    },
}
