"""Read YAML files and command lines into plain nested dictionaries."""

from __future__ import annotations

import copy
import functools
import io
import json
import math
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import KeyValidationError, OmegaConfBaseException

from common.errors import ConfigError
from common.outside import OUTSIDE, is_outside
from common.suggest import closest, listing
from config.schema import OPEN_SECTIONS, Config
from config.texts import TextLoader, keep_texts, typed_text

Tree = dict[str, Any]
ROOT = Path(__file__).resolve().parent.parent
# Errors of OmegaConf and PyYAML for input they cannot parse: their own classes, and those that escape from their
# constructors and recursion. Catch them around calls to these libraries only, so that our own bugs keep a traceback.
UNREADABLE = (
    *(OmegaConfBaseException, yaml.YAMLError, OSError, ValueError),
    *(LookupError, AttributeError, ArithmeticError, RecursionError),
)
_CLASS_KEY = rf"({OUTSIDE.pattern})(\..*)?"
_IN_SECTION = re.compile(rf"(){_CLASS_KEY}")
_ANYWHERE = re.compile(rf"((?:.*?\.)??(?:{'|'.join(OPEN_SECTIONS)})\.)?{_CLASS_KEY}")
DEEPEST = 40  # levels of nesting: a run needs six, and OmegaConf uses a dozen Python frames per level
USAGE = """\
python main.py YAML [key=value ...]        one device
composer main.py YAML [key=value ...]      every GPU of this machine

  python main.py yamls/digits.yaml                          the first run: a minute on a CPU, no data needed
  composer main.py yamls/resnet50.yaml recipe_name=mild train_dataset.path=/imagenet eval_dataset.path=/imagenet
  python main.py yamls/resnet50.yaml recipe_name=hot dry_run=true
  python -m recipes                                         list the recipes; python -m recipes mild shows one

Every key is explained in yamls/resnet50.yaml. dry_run=true prints what the run changes and builds.
Later layers override: defaults < the YAML < the recipe < the YAML's block for the recipe < the command line.
"""


def read_yaml(path: Path, called: str, others: Iterable[Path]) -> Tree:
    """Return the content of a YAML file; see read_file."""
    return read_file(path, called, others)[0]


def read_file(path: Path, called: str, others: Iterable[Path]) -> tuple[Tree, set[str]]:
    """Return the content of a YAML file, interpolations unresolved, and its first-level keys that hold anchors.

    First-level keys that start with x- only hold anchors, as in a Compose file, and are dropped.

    Args:
        path: a file or a pipe; - for standard input.
        called: the user's name for it, for messages.
        others: files to suggest if this one does not exist.

    Raises:
        ConfigError: the file is missing, is not YAML, or does not contain a mapping.
    """
    text = read_text(path, called, others)
    try:
        tree, texts, holders = copy.deepcopy(_parsed(text))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{called}{where}: this is not valid YAML: {error.problem or error.context}") from error
    except UNREADABLE as error:
        raise ConfigError(f"{called}: cannot be read: {reason(error)}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{called}: contains no keys; a run's YAML consists of 'key: value' lines")
    keep_texts(tree, undot(texts) if isinstance(texts, dict) else {})  # OmegaConf turns a lone string into a key
    return {key: value for key, value in tree.items() if not key.startswith("x-")}, holders


@functools.lru_cache(maxsize=64)  # a sweep or a forecast loads the same files for each of its runs
def _parsed(text: str) -> tuple[Any, Any, set[str]]:
    """Return a YAML's values, the same with plain scalars as strings, and its first-level keys that hold anchors."""
    check_depth(text)
    tree = plain(OmegaConf.to_container(OmegaConf.load(io.StringIO(text)), resolve=False))
    tree = plain(undot(tree)) if isinstance(tree, dict) else tree
    loader = TextLoader(text)
    texts = plain(loader.get_single_data() or {})
    return tree, texts, loader.holders


def check_depth(text: str) -> None:
    """Raise a RecursionError for YAML nested more than DEEPEST levels deep, or a YAMLError if it cannot be parsed.

    Called before loading, because libyaml's loader recurses in C, which would crash the process.
    """
    depth = 0
    for event in yaml.parse(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise RecursionError("it is nested too deeply")


def read_text(path: Path, called: str, others: Iterable[Path]) -> str:
    """Return the text of a YAML, which may come through a pipe."""
    if "://" in called:
        raise ConfigError(f"{called}: a YAML must be on this machine; copy it here first, and give its path")
    if called == "-":
        path = Path("/dev/stdin")
    if not os.path.exists(path):  # unlike Path.exists, False for a name too long for the file system
        raise ConfigError(f"{called}: no such file{files_like(called, others)}")
    if path.is_dir():
        raise ConfigError(f"{called}: this is a folder; give the path of a YAML{files_like(called, others)}")
    if not path.is_file() and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(f"{called}: every rank reads the YAML, but a pipe can only be read once; give a file's path")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"{called}: cannot be read: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """Return why a text cannot be read, in plain words."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeError):
        return "it is not encoded as UTF-8"
    if isinstance(error, OSError):
        return error.strerror or "it is a single value without keys"  # OmegaConf's IOError has no strerror
    if isinstance(error, yaml.MarkedYAMLError):
        return error.problem or error.context or "this is not valid YAML"
    if isinstance(error, KeyValidationError):
        return "it contains a key that is not a string"
    if isinstance(error, (OmegaConfBaseException, yaml.YAMLError)) and str(error):
        return str(error).splitlines()[0]
    return "a value does not match its !!tag"  # PyYAML's constructors raise plain Python errors


def main_script() -> str:
    """Return the path of main.py as typed from the current folder."""
    return "main.py" if Path.cwd() == ROOT else str(ROOT / "main.py")


def files_like(called: str, files: Iterable[Path]) -> str:
    """Return a hint for a missing file: the closest match and all candidates, as typed from the current folder."""
    away = "" if Path.cwd() == ROOT else f"{ROOT}/"
    known = sorted(str(file.relative_to(ROOT)) for file in files)
    meant = closest(called, known)
    hint = f"; did you mean {away}{meant}?" if meant else ""
    return f"{hint} (choose {listing(away + name for name in known)})"


def plain(value: Any, levels: int = DEEPEST) -> Any:
    """Convert all keys to strings, and integers too large for a float to infinity, as YAML does with 1e400.

    Raises a RecursionError for more than `levels` levels.
    """
    if isinstance(value, (dict, list)) and not levels:
        raise RecursionError
    if isinstance(value, list):
        return [plain(item, levels - 1) for item in value]
    if isinstance(value, dict):
        return {str(key): plain(item, levels - 1) for key, item in value.items()}
    if isinstance(value, int) and abs(value) > sys.float_info.max:
        return math.inf if value > 0 else -math.inf
    return value


def levels(key: str, in_section: bool = False) -> list[str]:
    """Split a dotted key into its levels; a user's class, package.module:Class, is one level despite its dots.

    `in_section`: whether the key is inside one of OPEN_SECTIONS, and so starts with the name of a class.
    """
    match = (_IN_SECTION if in_section else _ANYWHERE).fullmatch(key) if ":" in key else None
    if not match:
        return key.split(".")
    before, name, after = (part or "" for part in match.groups())
    return [*before.split(".")[:-1], name, *after.split(".")[1:]]


def bracketed(key: str) -> str:
    """Return a key in a form in which OmegaConf does not split a user's class: [algorithms][a.b:C][x]."""
    parts = levels(key)
    return "".join(f"[{part}]" for part in parts) if any(map(is_outside, parts)) else key


def undot(tree: Tree, in_section: bool = False) -> Tree:
    """Expand dotted keys, `model.name: x` to `model: {name: x}`, on the first level and in override blocks."""
    result: Tree = {}
    for key, value in tree.items():
        if isinstance(value, dict) and any("." in inner for inner in value):
            value = undot(value, key in OPEN_SECTIONS)
        *path, last = levels(key, in_section)
        node = result
        for part in path:
            below = node.get(part)
            node[part] = below = below if isinstance(below, dict) else {}
            node = below
        node |= deepen(node, {last: value})
    return result


def deepen(below: Tree, above: Tree) -> Tree:
    """Merge two trees; `above` overrides `below`."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        result[key] = deepen(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def read_words(words: list[str]) -> tuple[Tree, list[str]]:
    """Return the key=value arguments of a command line as a tree, and the problems with the others."""
    tree: Tree = {}
    problems = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or word.startswith(("-", "+")) or not key.strip("."):
            problems.append(explain(word))
            continue
        try:
            plain(nested(bracketed(key), None))
        except RecursionError as error:
            problems.append(f"{word}: cannot be read: {reason(error)}")
            continue
        except UNREADABLE:
            problems.append(f"{word}: {key} is not a key; keys are names joined by dots, as in model.name=resnet18")
            continue
        try:
            # A path may start with a placeholder, {runs_folder}/x, which YAML would parse as a mapping.
            value = json.dumps(value) if value.startswith(("{runs_folder}", "{run_name}")) else value
            check_depth(value)
            typed = plain(OmegaConf.to_container(OmegaConf.from_dotlist([f"{bracketed(key)}={value}"]), resolve=False))
            texts = plain(nested(bracketed(key), typed_text(value)))
        except UNREADABLE as error:
            problems.append(f"{word}: cannot be read: {reason(error)}")
            continue
        keep_texts(typed, texts)
        tree = deepen(tree, typed)
    return tree, problems


def nested(key: str, value: Any) -> Any:
    """Return a tree with a single value at a dotted key."""
    tree = OmegaConf.create()
    OmegaConf.update(tree, key, value)
    return OmegaConf.to_container(tree, resolve=False)


def explain(word: str) -> str:
    """Return what is wrong with a word that is not key=value, and what was probably meant."""
    keys = [item.name for item in fields(Config)]
    bare = word.lstrip("-+")
    key, equals, value = bare.partition("=")
    if equals and bare != word:
        return f"{word}: keys have no leading dashes here; did you mean {key}={value}?"
    if word.endswith((".yaml", ".yml")):
        return f"{word}: a second YAML; a run has only one, and a recipe's YAML is given as recipe_name={word}"
    if (ROOT / "recipes" / f"{bare}.yaml").is_file():
        return f"{word}: not of the form key=value; did you mean recipe_name={bare}?"
    section, *names = key.split(":")[0].split(".")
    meant = closest(section, keys)
    meant = ".".join([meant, *names]) if meant else None
    hint = f"; did you mean {meant}=...?" if meant else ", as in seed=18 or train_dataset.path=/data/imagenet"
    return f"{word}: not of the form key=value{hint}"
