"""Write a learning rate into the YAML of a run or a recipe, and keep its comments and layout."""

import io
from pathlib import Path
from typing import Any

from common.whole_files import write_whole
from config import ConfigError, load
from config.load import recipe_files, split_words
from config.read import read_yaml

KEY = "optimizer.lr"


def check(target: Path, words: list[str]) -> None:
    """Check, before the search, that `store` can write to `target`, for a run of these words; ConfigError if not."""
    if target.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"--write {target}: must end with .yaml, as in --write my_run.yaml")
    if not target.exists():
        if not target.parent.is_dir():
            raise ConfigError(f"--write {target}: there is no folder {target.parent}; make it, or name another file")
        return
    tree = read_yaml(target, f"--write {target}", [])
    if "card" in tree and not _is(target, _recipe(words)):
        raise ConfigError(f"--write {target}: is a recipe that this run does not use; set recipe_name={target}")


def store(target: Path, words: list[str], lr: float) -> str:
    """Write the learning rate where the run's layers read it, and return the command that trains with it.

    A new file starts as a copy of the run's. If another layer would override the rate, the file is left as it was.
    """
    from ruamel.yaml import YAML

    yaml_path, rest = split_words(words)
    recipe = _recipe(words)
    before = target.read_bytes() if target.exists() else None
    # ruamel keeps comments, and with these options the layout.
    yaml = YAML()
    yaml.representer.add_representer(type(None), lambda own, _: own.represent_scalar("tag:yaml.org,2002:null", "null"))
    yaml.preserve_quotes, yaml.width = True, 4096
    tree = yaml.load(before if before is not None else Path(yaml_path).expanduser().read_bytes())
    is_recipe = _is(target, recipe)
    _set(tree, None if is_recipe or recipe is None else recipe.stem, lr)
    text = io.BytesIO()
    yaml.dump(tree, text)
    write_whole(target, text.getvalue())

    rest = [word for word in rest if not word.startswith(f"{KEY}=")]
    if is_recipe:
        rest = [yaml_path, *(word for word in rest if not word.startswith("recipe_name=")), f"recipe_name={target}"]
    else:
        rest = [str(target), *rest]
    try:
        if (read := load(rest).config.optimizer["lr"]) != lr:
            raise ConfigError(f"--write {target}: another layer would set {KEY}={read:g} over it; give it as a word")
    except ConfigError:
        target.unlink() if before is None else write_whole(target, before)
        raise
    return " ".join(["composer", "main.py", *rest])


def _recipe(words: list[str]) -> Path | None:
    """Return the file of the recipe that the words or their YAML name."""
    yaml_path, rest = split_words(words)
    typed = [word.partition("=")[2] for word in rest if word.startswith("recipe_name=")]
    name = typed[-1] if typed else read_yaml(Path(yaml_path).expanduser(), yaml_path, []).get("recipe_name")
    return recipe_files().get(name, Path(name).expanduser()) if name not in (None, "null") else None


def _is(target: Path, recipe: Path | None) -> bool:
    return recipe is not None and target.resolve() == recipe.resolve()


def _set(tree: Any, block: str | None, lr: float) -> None:
    """Set the rate in a tree, however it spells the key, or in its block for a recipe, which overrides the recipe."""
    if block is not None:
        if not isinstance(tree.get(block), dict):
            tree[block] = {}
        tree = tree[block]
    if KEY in tree or (block is not None and "optimizer" not in tree):
        tree[KEY] = lr
    elif isinstance(tree.get("optimizer"), dict):
        tree["optimizer"]["lr"] = lr
    else:
        tree["optimizer"] = {"lr": lr}
