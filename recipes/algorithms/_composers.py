"""What Composer's own algorithms would declare if they were ours (recipes/declared.py has the vocabulary). No torch."""

from __future__ import annotations

from typing import Any

NOT_HERE = {
    "alibi": "biases attention, of which a ResNet has none",
    "gated_linear_units": "is for BERT's layers, of which a ResNet has none",
    "gyro_dropout": "replaces dropout layers, of which a ResNet has none",
    "layer_freezing": "takes parameters out of the optimizer, which then cannot be saved",
    "low_precision_groupnorm": "is for GroupNorm, of which a ResNet has none",
    "low_precision_layernorm": "is for LayerNorm, of which a ResNet has none",
    "no_op_model": "puts a model that learns nothing in the place of yours",
    "selective_backprop": "sends batches through the model before they are normalized on the device",
    "seq_length_warmup": "shortens texts",
}
"""Algorithms that can do nothing here, or nothing right, and why."""
DECLARED: dict[str, dict[str, Any]] = {
    **{
        name: {"RULES": {"False": f"{reason}; type algorithms.{name}=null to remove it"}}
        for name, reason in NOT_HERE.items()
    },
    "cutmix": {
        "BOUNDS": {"alpha": "at least 0"},
        "RULES": {
            "not (interpolate_loss and 'label_smoothing' in config.algorithms)": (
                "interpolate_loss: true does not go with label_smoothing, which may smooth only one of the two losses; "
                "type algorithms.cutmix.interpolate_loss=false, or algorithms.label_smoothing=null to remove that"
            ),
        },
        "BEFORE": {"label_smoothing": "which else smooths only one of the two mixed labels"},
    },
    "swa": {"NO_LR_FIND": "averages weights, which the training loss does not see"},
}
