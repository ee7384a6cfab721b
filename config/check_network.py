"""Check a run against what its network can do, as far as the network's name tells."""

from __future__ import annotations

from config.schema import LAYER_DECAY, Config
from config.stages import BACKBONE
from config.structure import Report
from config.weights import TORCHVISION, torchvision_name
from recipes import networks, registry
from recipes.declared import declarations


def check_network(config: Config, report: Report) -> None:
    """Report an unknown network, and what one that is not a ResNet cannot do."""
    model = config.model
    if registry.is_outside(model.name):
        report.extend(registry.check("model", model.name, {}, "model.name"))
    elif problem := networks.problem(model.name):
        report.add("model.name", problem)
    elif not model.is_resnet and not networks.is_timms(model.name):  # timm's ResNets have the same stages
        _check_torchvisions(config, report)


def _check_torchvisions(config: Config, report: Report) -> None:
    model, name = config.model, config.model.name
    if model.init != "torchvision":
        report.add("model.init", f"{model.init} given, which is for ResNets; with {name} type model.init=torchvision")
    if model.freeze not in (None, BACKBONE):
        report.add("model.freeze", f"{model.freeze} given, but {name} has no such stages; type model.freeze={BACKBONE}")
    if (decay := config.optimizer.get(LAYER_DECAY) or 1) != 1:
        report.add(
            f"optimizer.{LAYER_DECAY}", f"{decay} given, but {name} has no such layers; type optimizer.{LAYER_DECAY}=1"
        )
    if networks.has_no_negative_logits(name) and model.loss_name != "cross_entropy":
        report.add(
            "model.loss_name",
            f"{model.loss_name} given, but {name} gives no logits below 0, so no probability below 1/2; type "
            "model.loss_name=cross_entropy",
        )
    if networks.has_auxiliary(name) and model.weights and torchvision_name(model.weights) is not None:
        report.add(
            "model.weights",
            f"{TORCHVISION}'s of {name} are for images normalized otherwise and have auxiliary heads; type "
            "model.weights=null",
        )
    if step := networks.size_step(name):
        report.extend(sizes_that_differ(config))
        if (size := config.train_dataset.crop_size) % step:
            near = max(size // step, 1) * step
            report.add("train_dataset.crop_size", f"{size} is not divisible by the {step} px of {name}; use {near}")
        return
    _check_smallest(config, networks.smallest(name), report)


def _check_smallest(config: Config, least: int, report: Report) -> None:
    from config.dry_run import resizing  # which reads configurations itself

    name = config.model.name
    for key, section in config.sections().items():
        if section.crop_size < least:
            report.add(f"{key}.crop_size", f"{section.crop_size} is too small for {name}; use at least {least} px")
    if config.is_train and not report.problems and (size_at := resizing(config)) and (first := size_at(0.0)) < least:
        algorithm = next(each for each in config.algorithms if declarations("algorithm", each).IMAGE_SIZE)
        report.add(f"algorithms.{algorithm}", f"starts at {first} px, too small for {name}; use at least {least} px")


def sizes_that_differ(config: Config) -> list[str]:
    """Return the problems of a run whose network takes images of one size."""
    name, size, other = config.model.name, config.train_dataset.crop_size, config.eval_dataset.crop_size
    resizing = [algorithm for algorithm in config.algorithms if declarations("algorithm", algorithm).RESIZES]
    problems = [
        f"algorithms.{algorithm}: changes the image size, but {name} takes images of one size only; type "
        f"algorithms.{algorithm}=null"
        for algorithm in resizing
    ]
    if size != other:
        problems.append(
            f"eval_dataset.crop_size: {other} given, but {name} is trained at {size} px and takes images of one size "
            f"only; type eval_dataset.crop_size={size}"
        )
    return problems
