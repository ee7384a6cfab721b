"""A configuration as a run records it: plain, without secrets, and comparable with another run's."""

from __future__ import annotations

import re
from typing import Any

from omegaconf import OmegaConf

from config import Run
from config.load import defaults

# These say where and how, not what is trained: a run may go on with other values of them.
_HARMLESS = (
    "autoresume",
    "callbacks",
    "device",
    "device_train_microbatch_size",
    "dist_timeout",
    "dry_run",
    "grad_accum",
    "loggers",
    "load_path",
    "load_unsafe_pickle",
    "python_log_level",
    "run_name",
    "runs_folder",
    "save_folder",
    "save_interval",
    "save_num_checkpoints_to_keep",
    "save_overwrite",
    "recipe_name",
)
_HARMLESS_IN_DATASETS = ("path", "local", "preload", "num_workers", "prefetch_factor", "decoder")
_WORDS = r"(?:key|token|secret|password|passwd|passphrase|pwd|credential|auth|authorization|signature|cookie)s?"
_SECRET = re.compile(rf"{_WORDS}$", re.IGNORECASE)
# Signed parts of addresses, name and password in them, what follows `Bearer`, and `api_key: ...` inside a longer text.
_SIGNED = re.compile(
    r"([?&](?:X-(?:Amz|Goog)-[A-Za-z]+|AWSAccessKeyId|GoogleAccessId|sig|code)=)[^&\s]+"
    r"|(?<=://)[^/@\s]+:[^/@\s]+(?=@)"
    rf"|({_WORDS}[\"']?\s*[:=]\s*[\"']?(?:(?:bearer|basic)\s+)?)[^,}}&\s\"']+"
    r"|(\bbearer\s+)[^,}\s\"']+",
    re.IGNORECASE,
)


def plain(run: Run) -> dict[str, Any]:
    """The configuration as plain containers, without a secret in it."""
    return redacted(OmegaConf.to_container(run.config, resolve=True))


def redacted(value: Any) -> Any:
    """A copy in which the values of secret keys and the signed parts of addresses are replaced."""
    if isinstance(value, dict):
        return {k: "(secret)" if v and _SECRET.search(str(k)) else redacted(v) for k, v in value.items()}
    if isinstance(value, list):
        return [redacted(v) for v in value]
    if isinstance(value, str):
        return _SIGNED.sub(lambda match: (match[1] or match[2] or match[3] or "") + "(secret)", value)
    return value


def differences(old: Any, new: dict[str, Any]) -> list[str]:
    """Where two configurations would train differently, each as 'key: old -> new'."""
    before, after = training_keys(OmegaConf.to_container(old, resolve=True)), training_keys(new)
    # A key that is younger than the old run had its default there, which is what the program did without the key.
    default = training_keys(defaults())
    before = {key: default[key] for key in after.keys() & default.keys()} | before
    return [
        f"{key}: {before.get(key)} -> {after.get(key)}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def training_keys(config: Any) -> dict[str, Any]:
    """What of a configuration says what is trained, as dotted key -> value; not where and how."""
    flat: dict[str, Any] = {}

    def walk(node: Any, prefix: str) -> None:
        for key, value in node.items():
            if isinstance(value, dict) and value:
                walk(value, f"{prefix}{key}.")
            else:
                flat[prefix + key] = value

    kept = {k: v for k, v in config.items() if k not in _HARMLESS}
    for name in ("train_dataset", "eval_dataset"):
        kept[name] = {k: v for k, v in kept.get(name, {}).items() if k not in _HARMLESS_IN_DATASETS}
    walk(kept, "")
    return flat
