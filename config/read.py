"""Reading what a user wrote: YAML files and the words of the command line, as plain nested dictionaries."""

from __future__ import annotations

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
# What OmegaConf and PyYAML raise over a text that they cannot read: their own classes, and what slips out of their
# constructors and their recursion. To be caught around their calls only, so that a bug of ours keeps its traceback.
UNREADABLE = (
    *(OmegaConfBaseException, yaml.YAMLError, OSError, ValueError),
    *(LookupError, AttributeError, ArithmeticError, RecursionError),
)
_CLASS_KEY = rf"({OUTSIDE.pattern})(\..*)?"
_IN_SECTION = re.compile(rf"(){_CLASS_KEY}")
_ANYWHERE = re.compile(rf"((?:.*?\.)??(?:{'|'.join(OPEN_SECTIONS)})\.)?{_CLASS_KEY}")
DEEPEST = 40  # collections, one within the other: a run needs six, OmegaConf takes a dozen of Python's frames for each
USAGE = """\
python main.py YAML [key=value ...]        one device
composer main.py YAML [key=value ...]      every GPU of this machine

  python main.py yamls/digits.yaml                          the first run: a minute on a CPU, no data needed
  composer main.py yamls/resnet50.yaml recipe_name=mild train_dataset.path=/imagenet eval_dataset.path=/imagenet
  python main.py yamls/resnet50.yaml recipe_name=hot dry_run=true
  python -m recipes                                         the recipes; python -m recipes mild shows one

Every key is explained in yamls/resnet50.yaml. dry_run=true prints what the run changes and builds.
A later layer wins: defaults < the YAML < the recipe < the YAML's block for the recipe < the command line.
"""


def read_yaml(path: Path, called: str, others: Iterable[Path]) -> Tree:
    """The content of a YAML file, as read_file has it."""
    return read_file(path, called, others)[0]


def read_file(path: Path, called: str, others: Iterable[Path]) -> tuple[Tree, set[str]]:
    """The content of a YAML file, interpolations left as they are, and its first-level keys that hold anchors.

    A first-level key that begins with x- holds nothing but anchors, as in a Compose file, and is left out.

    Args:
        path: the file, or a pipe; - for the standard input.
        called: how the user named it, for messages.
        others: files to offer when this one does not exist.

    Raises:
        ConfigError: if the file is missing, is no YAML or holds no mapping.
    """
    text = read_text(path, called, others)
    try:
        check_depth(text)
        tree = plain(OmegaConf.to_container(OmegaConf.load(io.StringIO(text)), resolve=False))
        tree = plain(undot(tree)) if isinstance(tree, dict) else tree
        loader = TextLoader(text)
        texts = plain(loader.get_single_data() or {})
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{called}{place}: this is no YAML: {error.problem or error.context}") from error
    except UNREADABLE as error:
        raise ConfigError(f"{called}: cannot be read: {reason(error)}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{called}: holds no keys; a run's YAML is lines of 'key: value'")
    keep_texts(tree, undot(texts) if isinstance(texts, dict) else {})  # OmegaConf makes a key of a single text
    return {key: value for key, value in tree.items() if not key.startswith("x-")}, loader.holders


def check_depth(text: str) -> None:
    """Stop before YAML is loaded that is too deep: libyaml's loader recurses in C, which would end the process.

    Raises:
        RecursionError: it is more than DEEPEST collections deep.
        yaml.YAMLError: it cannot be read.
    """
    depth = 0
    for event in yaml.parse(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise RecursionError("it is nested too deeply")


def read_text(path: Path, called: str, others: Iterable[Path]) -> str:
    """The text of a YAML, which may come through a pipe."""
    if "://" in called:
        raise ConfigError(f"{called}: a YAML is read from this machine; copy it here first, and give its path")
    if called == "-":
        path = Path("/dev/stdin")
    if not is_there(path):
        raise ConfigError(f"{called}: no such file{files_like(called, others)}")
    if path.is_dir():
        raise ConfigError(f"{called}: this is a folder; give the path of a YAML{files_like(called, others)}")
    if not path.is_file() and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError(f"{called}: every rank reads the YAML, and a pipe can be read once; give the path of a file")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"{called}: cannot be read: {reason(error)}") from error


def is_there(path: Path) -> bool:
    """Whether there is such a file, pipe or folder; a name that is too long for the file system is none."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def reason(error: BaseException) -> str:
    """Why a text cannot be read, in plain words."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeError):
        return "it is not encoded as UTF-8"
    if isinstance(error, OSError):
        return error.strerror or "it holds no keys, but a single value"  # the latter from OmegaConf
    if isinstance(error, yaml.MarkedYAMLError):
        return error.problem or error.context or "this is no YAML"
    if isinstance(error, KeyValidationError):
        return "a key in it is no text"
    if isinstance(error, (OmegaConfBaseException, yaml.YAMLError)) and str(error):
        return str(error).splitlines()[0]
    return "a value is not of the kind that its !!tag asks for"  # from PyYAML's constructors, in Python's words


def main_script() -> str:
    """How main.py is typed from the current folder."""
    return "main.py" if Path.cwd() == ROOT else str(ROOT / "main.py")


def files_like(called: str, files: Iterable[Path]) -> str:
    """Which of the files was probably meant, and which there are, as they are typed from the current folder."""
    away = "" if Path.cwd() == ROOT else f"{ROOT}/"
    known = sorted(str(file.relative_to(ROOT)) for file in files)
    meant = closest(called, known)
    hint = f"; did you mean {away}{meant}?" if meant else ""
    return f"{hint} (there are {listing(away + name for name in known)})"


def plain(value: Any, levels: int = DEEPEST) -> Any:
    """The same value with every key a text, and a whole number that no float can hold as infinite, as 1e400 is.

    Raises:
        RecursionError: if it is nested more deeply than so many levels.
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
    """The levels of a dotted key. A class of the user's, package.module:Class, is one level for all its dots.

    Args:
        key: as written.
        in_section: whether it stands in one of OPEN_SECTIONS, and begins with the name of a class.
    """
    found = (_IN_SECTION if in_section else _ANYWHERE).fullmatch(key) if ":" in key else None
    if not found:
        return key.split(".")
    before, name, after = (part or "" for part in found.groups())
    return [*before.split(".")[:-1], name, *after.split(".")[1:]]


def bracketed(key: str) -> str:
    """A key in the form in which OmegaConf keeps a class of the user's in one piece: [algorithms][a.b:C][x]."""
    parts = levels(key)
    return "".join(f"[{part}]" for part in parts) if any(map(is_outside, parts)) else key


def undot(tree: Tree, in_section: bool = False) -> Tree:
    """The same tree with `model.name: x` written as `model: {name: x}`, on its first level and in blocks."""
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
        old = node.get(last)
        node[last] = deepen(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def deepen(below: Tree, above: Tree) -> Tree:
    """Two trees as one; where both say something, `above` is right."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        result[key] = deepen(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def read_words(words: list[str]) -> tuple[Tree, list[str]]:
    """The key=value words of a command line as a tree, and what is wrong with the others."""
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
            problems.append(f"{word}: {key} is no key; keys are names with dots between, as in model.name=resnet18")
            continue
        try:
            # A place may begin with a placeholder, {runs_folder}/x, which YAML takes for a mapping.
            value = json.dumps(value) if value.startswith(("{runs_folder}", "{run_name}")) else value
            check_depth(value)
            said = plain(OmegaConf.to_container(OmegaConf.from_dotlist([f"{bracketed(key)}={value}"]), resolve=False))
            texts = plain(nested(bracketed(key), typed_text(value)))
        except UNREADABLE as error:
            problems.append(f"{word}: cannot be read: {reason(error)}")
            continue
        keep_texts(said, texts)
        tree = deepen(tree, said)
    return tree, problems


def nested(key: str, value: Any) -> Any:
    """A tree with one value, at a dotted key."""
    tree = OmegaConf.create()
    OmegaConf.update(tree, key, value)
    return OmegaConf.to_container(tree, resolve=False)


def explain(word: str) -> str:
    """What is wrong with a word that is no key=value, and what was probably meant."""
    keys = [item.name for item in fields(Config)]
    bare = word.lstrip("-+")
    key, equals, value = bare.partition("=")
    if equals and bare != word:
        return f"{word}: options have no dashes here; did you mean {key}={value}?"
    if word.endswith((".yaml", ".yml")):
        return f"{word}: a second YAML; a run has one, and a recipe's YAML is given as recipe_name={word}"
    if (ROOT / "recipes" / f"{bare}.yaml").is_file():
        return f"{word}: not of the form key=value; did you mean recipe_name={bare}?"
    section, *names = key.split(":")[0].split(".")
    meant = closest(section, keys)
    meant = ".".join([meant, *names]) if meant else None
    hint = f"; did you mean {meant}=...?" if meant else ", as in seed=18 or train_dataset.path=/data/imagenet"
    return f"{word}: not of the form key=value{hint}"
