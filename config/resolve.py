"""Filling in what a YAML says by ${...}: another key's value, or a variable of the environment."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from omegaconf import OmegaConf, errors
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from common.errors import ConfigError
from config.read import Tree, plain

_UNSET = re.compile(r"Environment variable '(.*)' not found")
_RAISED = re.compile(r"^(\w+) raised while resolving interpolation: ")


def resolve(tree: dict[Any, Any], origin: Callable[[str], str]) -> Tree:
    """The same tree with every ${...} replaced by what it stands for, and every key a text.

    Args:
        tree: nested dictionaries.
        origin: gives for a dotted key the layer that set it, in the form in which messages end.

    Raises:
        ConfigError: naming every key whose ${...} stands for nothing, and what to do about it.
    """
    problems = []
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            config = OmegaConf.create(tree)
            for path, value in _unresolved(tree):
                key = ".".join(map(str, path))
                try:
                    node: Any = config
                    for part in path:
                        node = node[part]
                    if OmegaConf.is_config(node):
                        OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
                except MissingMandatoryValue:
                    problems.append(f"{key}: ??? stands for a value that is missing; give {key}=VALUE{origin(key)}")
                except (OmegaConfBaseException, RecursionError) as error:
                    problems.append(f"{key}: {_reason(value, error)}{origin(key)}")
            if not problems:
                return plain(OmegaConf.to_container(config, resolve=True))
        except (OmegaConfBaseException, RecursionError) as error:
            problems.append(_first_line(error))
        finally:
            # ${oc.deprecated:...} warns, of a line in OmegaConf; the user can do nothing about that line.
            for text in dict.fromkeys(str(warning.message) for warning in said):
                print(text, file=sys.stderr)
    raise ConfigError(*problems)


def _unresolved(tree: dict[Any, Any], path: tuple = ()) -> Iterator[tuple[tuple, str]]:
    """Where a tree holds ${...} or ???, and what it holds there."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _unresolved(value, (*path, key))
        elif "${" in str(value) or "???" in str(value):
            yield (*path, key), str(value)


def _first_line(error: BaseException) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error).splitlines()[0]


def _reason(value: str, error: BaseException) -> str:
    """Why a ${...} stands for nothing."""
    text = _first_line(error)
    if unset := _UNSET.search(text):
        name = unset[1]
        return (
            f"${{oc.env:{name}}} needs the environment variable {name}, which is not set; put {name}=VALUE before the "
            f"command, or a default into the YAML: ${{oc.env:{name},VALUE}}"
        )
    if raised := _RAISED.match(text):
        is_told = hasattr(errors, raised[1])
        text = text.removeprefix(raised[0]) if is_told else "what it stands for takes other arguments"
    return f"{value} stands for nothing: {text}"
