"""Check the model section: the number of classes, and pretrained weights against the other ways to start."""

from __future__ import annotations

from common.addresses import is_s3
from common.errors import ConfigError, DataError
from common.suggest import address_meant
from config.schema import AUTO, MEAN_BCE, Config
from config.structure import CALLER, COMMAND_LINE, Report
from config.weights import ALLOWED, TORCHVISION, find, torchvision_name
from recipes import networks, registry
from recipes.declared import misfit


def check_model(config: Config, report: Report) -> None:
    """Report a wrong number of classes, and weights that cannot be loaded, or that nothing would use."""
    model = config.model
    number = model.num_classes
    if number != AUTO and (isinstance(number, str) or number < 2):
        report.add("model.num_classes", f"{number!r} given, but it must be {AUTO}, or a whole number of at least 2")
    if model.target_threshold is not None:
        _check_threshold(config, report)
    if model.weights is None:
        if model.head == "keep":
            report.add("model.head", "keep given, but there is no pretrained head; type model.weights=FILE as well")
        return
    if model.head == "new" and not config.is_train:
        report.add("model.head", "new given, but is_train=false would evaluate an untrained head; type model.head=auto")
    typed = (COMMAND_LINE, CALLER)
    if config.load_path and (
        report.sources.get("model.weights") in typed or report.sources.get("load_path") not in typed
    ):
        report.add(
            "model.weights",
            f"{model.weights} given, but load_path={config.load_path} replaces every weight; keep one of the two: type "
            "load_path=null or model.weights=null",
        )
    _check_weights(config, model.weights, report)


def _check_threshold(config: Config, report: Report) -> None:
    """Check that the loss uses the threshold."""
    key, loss = "model.target_threshold", config.model.loss_name
    if fault := misfit("at least 0 and less than 1", config.model.target_threshold):
        report.add(key, fault)
    if loss != MEAN_BCE:
        report.add(key, f"{loss} has none; type model.loss_name={MEAN_BCE}, or model.target_threshold=null")


def _check_weights(config: Config, weights: str, report: Report) -> None:
    """Check the address; on this disk, the file must exist, unless a checkpoint may make it superfluous."""
    if torchvision_name(weights) is not None:
        if registry.is_outside(config.model.name) or networks.is_timms(config.model.name):
            advice = "type model.weights=FILE, or model.name=resnet50"
            report.add("model.weights", f"{TORCHVISION}'s are not for {config.model.name}; {advice}")
    elif "://" in weights and not is_s3(weights):
        report.add("model.weights", f"{weights} is neither a path nor in S3; download it, and give {ALLOWED}")
    elif not (is_s3(weights) or address_meant(weights) or config.dry_run or config.load_path or config.autoresume):
        try:
            find(weights)
        except (ConfigError, DataError) as error:
            report.extend([str(error)])
