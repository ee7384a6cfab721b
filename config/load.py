"""Load a complete, checked run from a command line."""

from __future__ import annotations

import functools
import os
import typing
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from common.errors import ConfigError
from common.suggest import did_you_mean, listing
from config.checks import check_values
from config.layers import SECTIONS, Layers
from config.read import ROOT, USAGE, Tree, files_like, read_file, read_words, undot
from config.resolve import resolve
from config.run import BASELINE, Recipe, Run
from config.schema import AUTO, Config
from config.structure import CALLER, COMMAND_LINE, Structure


def run_files() -> list[Path]:
    """Return the run YAMLs of this checkout, without the MosaicML platform's job file."""
    return [file for file in sorted((ROOT / "yamls").glob("*.yaml")) if not file.name.startswith("mcloud")]


def recipe_files() -> dict[str, Path]:
    """Return the recipes of this checkout: name -> file."""
    return {file.stem: file for file in sorted((ROOT / "recipes").glob("*.yaml"))}


def read_recipe(name: str, heirs: tuple[Recipe, ...] = ()) -> Recipe:
    """Read a recipe and those that it is based on, given by name or by the path of a YAML.

    Args:
        name: for a recipe that another one is based on, a path is relative to the other's folder.
        heirs: the recipes that are based on this one, the nearest last.

    Raises:
        ConfigError: there is no such recipe, it is not valid, or it is based on itself.
    """
    known = recipe_files()
    if "/" in name or name.endswith((".yaml", ".yml")):
        path, label = Path(name).expanduser(), name
        if heirs and not path.is_absolute():
            path, label = heirs[-1].path.parent / name, os.path.join(os.path.dirname(heirs[-1].label), name)
    elif name in known:
        path, label = known[name], f"recipes/{name}.yaml"
    else:
        raise ConfigError(
            f"{'' if heirs else 'recipe_name: '}unknown recipe {name!r}{did_you_mean(name, known)} "
            f"(choose {listing(known)}, or give the path of a YAML; python -m recipes describes them)"
        )
    tree, holders = read_file(path, label, known.values())
    if path.resolve() in [heir.path.resolve() for heir in heirs]:
        raise ConfigError(f"{label} is based on itself; remove one of the keys based_on")
    card = tree.pop("card", None) or {}
    if not isinstance(card, dict):
        raise ConfigError(f"{label}: card must be a mapping with the keys summary and published")
    figures = card.get("published") or []
    if not isinstance(figures, list) or not all(isinstance(figure, dict) for figure in figures):
        raise ConfigError(f"{label}: card.published must be a list of figures, each with top1, epochs and source")
    if "recipe_name" in tree:
        raise ConfigError(f"{label}: recipe_name has no effect in a recipe; remove it, or call it based_on")
    parent = tree.pop("based_on", None)
    recipe = Recipe(label, path, card, tree, holders)
    return recipe if parent is None else _with_parent(recipe, parent, heirs)


def _with_parent(recipe: Recipe, name: Any, heirs: tuple[Recipe, ...]) -> Recipe:
    """Return a recipe with the one that it is based on."""
    where = f"{recipe.label}: based_on"
    if not isinstance(name, str):
        raise ConfigError(f"{where}: {name!r} given, but it must be the name of a recipe, or the path of a YAML")
    if not recipe.card.get("summary"):
        raise ConfigError(f"{recipe.label}: a card is not inherited; add card: {{summary: what differs from {name}}}")
    try:
        recipe.parent = read_recipe(name, (*heirs, recipe))
    except ConfigError as error:
        raise ConfigError(*(f"{where}: {problem}" for problem in error.problems)) from error
    return recipe


def _add_recipe(layers: Layers, recipe: Recipe) -> None:
    """Merge a recipe on top of those that it is based on."""
    for each in recipe.lineage:
        layers.add(each.label, each.changes)
        layers.holders = layers.holders | each.holders


def defaults() -> Tree:
    """Return the schema's defaults as a tree."""
    return asdict(Config())


@functools.cache
def as_shipped(recipe: str) -> Tree:
    """Return a recipe merged with the schema's defaults."""
    layers = Layers(defaults())
    _add_recipe(layers, read_recipe(recipe))
    return layers.tree


def baseline_of(words: Iterable[str]) -> tuple[str, Tree]:
    """Return the baseline that a command line's run is compared with: a description, and the configuration.

    It is the recipe baseline on the run's YAML, without overrides. A YAML from elsewhere may contain a merged recipe,
    so its runs are compared with the baseline on the schema's defaults.
    """
    names = {Path(word).name for word in words}
    for file in run_files():
        if file.name in names and (tree := _baseline_on(file)):
            return f"recipe {BASELINE} of yamls/{file.name}", tree
    return f"the published baseline (recipes/{BASELINE}.yaml on the defaults)", as_shipped(BASELINE)


@functools.cache
def _baseline_on(file: Path) -> Tree:
    """Return the configuration of a run's YAML with the recipe baseline; empty if they cannot be merged."""
    try:
        run = load([str(file), f"recipe_name={BASELINE}", "dry_run=true"])
    except ConfigError:
        return {}
    return asdict(run.config)


def load(argv: list[str]) -> Run:
    """Load the run that the arguments of main.py describe: a YAML, then key=value.

    Raises:
        ConfigError: with all problems at once.
        SystemExit: after --help.
    """
    if {"-h", "--help"} & set(argv):
        print(USAGE, end="")
        raise SystemExit(0)
    yaml_path, words = split_words(argv)
    in_yaml, holders = read_file(Path(yaml_path).expanduser(), yaml_path, run_files())
    if "parameters" in in_yaml and "command" in in_yaml:
        raise ConfigError(f"{yaml_path}: this is a job for the MosaicML platform; submit it: mcli run -f {yaml_path}")
    typed, problems = read_words(words)
    named = {"recipe_name": typed.get("recipe_name", in_yaml.get("recipe_name"))}
    recipe, more = find_recipe(resolve(named, lambda _: "")["recipe_name"])
    blocks = take_blocks(in_yaml, recipe), take_blocks(typed, recipe)
    layers = Layers(defaults())
    layers.problems += problems + more + [line for block in blocks for line in unused_blocks(block, recipe)]
    layers.holders = holders
    layers.add(yaml_path, in_yaml)
    if recipe:
        _add_recipe(layers, recipe)
        for name in recipe.names:
            layers.add(f"block {name}", blocks[0].get(name, {}))
        for name in recipe.names:
            layers.add(COMMAND_LINE, blocks[1].get(name, {}), may_remove_nothing=True)
    layers.add(COMMAND_LINE, typed, may_remove_nothing=True)
    config = finish(layers, lenient=False)
    return Run(config, layers.sources, yaml_path, list(argv), recipe=recipe)


def complete(config: DictConfig) -> Run:
    """Complete a configuration that the caller has merged, as callers of the published example do.

    The caller's own values cannot be distinguished from the defaults of the YAML. So a value overrides the recipe if it
    differs from the schema's default, and not if it equals it. The block for the recipe overrides both, as in the
    published example.
    """
    merged = undot(resolve(typing.cast(Tree, OmegaConf.to_container(OmegaConf.create(config))), lambda _: ""))
    recipe, problems = find_recipe(merged.get("recipe_name"))
    blocks = take_blocks(merged, recipe)
    layers = Layers(defaults())
    layers.problems += problems
    if recipe:
        _add_recipe(layers, recipe)
    layers.add(CALLER, differing(merged, defaults()), may_remove_nothing=True)
    for name in recipe.names if recipe else ():
        layers.add(f"block {name}", blocks.get(name, {}), may_remove_nothing=True)
    return Run(finish(layers, lenient=True), layers.sources, lenient=True, recipe=recipe)


def split_words(argv: list[str]) -> tuple[str, list[str]]:
    """Split the arguments into the YAML and the others."""
    for at, word in enumerate(argv):
        if "=" not in word and (at == 0 or word.endswith((".yaml", ".yml"))) and (word == "-" or word[:1] != "-"):
            return word, argv[:at] + argv[at + 1 :]
    known = files_like("", run_files())
    rest = " ".join(word for word in argv if "=" in word and not word.startswith("-"))
    raise ConfigError(f"no YAML given{known}; type: python main.py yamls/digits.yaml {rest}".rstrip())


def find_recipe(name: Any) -> tuple[Recipe | None, list[str]]:
    """Return the recipe of a name, or None, and the problems with it."""
    if name is None:
        return None, []
    try:
        return read_recipe(str(name)), []
    except ConfigError as error:
        return None, error.problems


def take_blocks(tree: Tree, recipe: Recipe | None) -> dict[str, Tree]:
    """Remove and return a tree's override blocks: first-level mappings named after a recipe."""
    recipes = {*recipe_files(), *(recipe.names if recipe else [])} - set(Config.__dataclass_fields__)
    names = [key for key, value in tree.items() if key in recipes and (isinstance(value, dict) or value is None)]
    return {key: tree.pop(key) or {} for key in names}


def unused_blocks(blocks: dict[str, Tree], recipe: Recipe | None) -> list[str]:
    """Return the misspelled keys in blocks for unused recipes; no other check would catch them."""
    problems = []
    for name, block in blocks.items():
        if recipe is None or name not in recipe.names:
            structure = Structure({})
            structure.conform({k: v for k, v in block.items() if isinstance(v, dict) or k not in SECTIONS})
            problems += [f"{name}.{problem}" for problem in structure.problems]
    return problems


def differing(tree: Tree, from_: Tree) -> Tree:
    """Return the part of a tree that differs from another tree."""
    result: Tree = {}
    for key, value in tree.items():
        if key not in from_ or value != from_[key]:
            both = isinstance(value, dict) and isinstance(from_.get(key), dict)
            result[key] = differing(value, from_[key]) if both else value
    return result


def finish(layers: Layers, lenient: bool) -> Config:
    """Resolve the merged layers, check them, and convert them to a Config."""
    structure = Structure(layers.sources, recipe_files(), layers.holders)
    try:
        tree = resolve(layers.tree, structure.origin)
    except ConfigError as error:
        raise ConfigError(*layers.problems, *error.problems) from error
    config: Config = structure.conform(tree)
    if config.grad_accum == "auto":
        config.grad_accum, config.device_train_microbatch_size = None, "auto"
    if config.compile is None:
        config.compile = AUTO
    check_values(config, structure, lenient)
    if problems := dict.fromkeys([*layers.problems, *structure.problems]):
        raise ConfigError(*problems)
    return config
