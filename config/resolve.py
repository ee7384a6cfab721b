"""Resolve the interpolations ${...} of a YAML: other keys' values and environment variables."""

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
    """Return a tree with every ${...} resolved and every key a string.

    `origin` maps a dotted key to the layer that set it, formatted as the end of a message.

    Raises:
        ConfigError: names every key whose ${...} cannot be resolved, and the remedy.
    """
    problems = []
    with warnings.catch_warnings(record=True) as caught:
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
                    problems.append(f"{key}: ??? marks a missing value; give {key}=VALUE{origin(key)}")
                except (OmegaConfBaseException, RecursionError) as error:
                    problems.append(f"{key}: {_reason(value, error)}{origin(key)}")
            if not problems:
                return plain(OmegaConf.to_container(config, resolve=True))
        except (OmegaConfBaseException, RecursionError) as error:
            problems.append(_first_line(error))
        finally:
            # ${oc.deprecated:...} warns; the line of OmegaConf's source that Python would add does not help a user.
            for text in dict.fromkeys(str(warning.message) for warning in caught):
                print(text, file=sys.stderr)
    raise ConfigError(*problems)


def _unresolved(tree: dict[Any, Any], path: tuple = ()) -> Iterator[tuple[tuple, str]]:
    """Yield the path and value of every ${...} or ??? in a tree."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _unresolved(value, (*path, key))
        elif "${" in str(value) or "???" in str(value):
            yield (*path, key), str(value)


def _first_line(error: BaseException) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error).splitlines()[0]


def _reason(value: str, error: BaseException) -> str:
    """Return why a ${...} cannot be resolved."""
    text = _first_line(error)
    if unset := _UNSET.search(text):
        name = unset[1]
        return (
            f"${{oc.env:{name}}} needs the environment variable {name}, which is not set; put {name}=VALUE before the "
            f"command, or a default into the YAML: ${{oc.env:{name},VALUE}}"
        )
    if raised := _RAISED.match(text):
        is_omegaconfs = hasattr(errors, raised[1])
        text = text.removeprefix(raised[0]) if is_omegaconfs else "the resolver takes other arguments"
    return f"{value} cannot be resolved: {text}"
