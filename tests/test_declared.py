"""Declarations of a class: read from its source, checked for configurations and for instances alike."""

from __future__ import annotations

import ast
import pkgutil
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from recipes import registry
from recipes.declared import WORDS, Declarations, Declares, _read, arguments, declarations, faults, misfit

ROOT = Path(__file__).parent.parent

# A bound, valid values, invalid values.
BOUNDS: list[tuple[str | tuple[str, ...], list[Any], list[Any]]] = [
    ("from 0 to 1", [0, 0.5, 1], [-0.001, 1.001, float("nan")]),
    ("a fraction, from 0, less than 1", [0.0, 0.999], [1, -1e-9]),
    ("more than 0 and at most 1", [1e-9, 1.0], [0, 1.1]),
    ("at least 1 pixel", [1, 10**30], [0, -1]),
    ("at least 0.5", [0.5], [0.4]),
    ("at least -1", [-1], [-2]),
    ("at least 0 and less than 1, each", [[0.9, 0.999], (0, 0)], [[0.9, 1.0], [-1, 0]]),
    ("at least 1, in ba or ep", ["1ba", "20ep"], ["0ba", "5sp", "0.5dur", "soon", 3]),
    ("from 0 to 1, in dur", [0, 0.1, 1, "0dur", "0.1dur"], [1.01, -0.01, "1.01dur", "3ep", "0.1"]),
    (("resize", "crop"), ["crop"], ["corp", "resize, crop", 1]),
    ("recipes.topologies:TOPOLOGIES", ["ring", "complete"], ["rings", ""]),
]


@pytest.mark.parametrize(("bound", "good", "bad"), BOUNDS)
def test_bounds(bound: str | tuple[str, ...], good: list[Any], bad: list[Any]) -> None:
    assert [value for value in good if misfit(bound, value)] == []
    assert [value for value in bad if not misfit(bound, value)] == []


def test_a_sentence_names_what_was_given_and_what_is_allowed() -> None:
    assert misfit("at least 1 pixel", 0) == "0 given, but it must be at least 1 pixel"
    assert misfit("at least 1, in ba or ep", "5sp") == "'5sp' given, but it must be at least 1, in ba or ep"
    assert misfit("at least 1, in ba or ep", "5") == "'5' is not a duration; write a number and a unit, as in 5ep"
    assert misfit(("resize", "crop"), "corp") == "unknown value 'corp'; did you mean crop? (choose resize or crop)"


class Slow(Declares):
    """A class from outside the project."""

    BOUNDS = {"start": "at least 0, in dur or ep", "size": "at least 1"}
    RULES = {
        "size < 9 or start.unit == 'ep'": "size: {size} needs start={start.value:g} in ep",
        "size * config.crop_size < 100": "{size} times crop_size {config.crop_size} is too much",
        "duration(config.t_warmup).value < size": "warmup: is too long",
    }

    def __init__(self, start: str | None = None, size: int = 1) -> None:
        self.start, self.size = start, size


def test_rules() -> None:
    def said(crop_size: int = 5, t_warmup: str = "0ep", **arguments: Any) -> list[tuple[str, str]]:
        config = SimpleNamespace(crop_size=crop_size, t_warmup=t_warmup)
        return list(faults(Slow, {"start": "1ep", "size": 1} | arguments, config))

    assert said() == []
    assert said(size=9) == []
    assert said(size=9, start="0.5dur") == [("size", "9 needs start=0.5 in ep")]
    assert said(size=9, crop_size=20) == [("", "9 times crop_size 20 is too much")]
    assert said(t_warmup="2ep") == [("warmup", "is too long")]
    assert said(t_warmup="soon") == [], "reported by another check"
    assert said(size=0, crop_size=-100, t_warmup="2ep") == [("size", "0 given, but it must be at least 1")]


def test_instances_are_checked_too() -> None:
    """Without a run, the rules that concern one are skipped."""
    assert Slow().size == 1
    assert Slow("1ep", size=1000).size == 1000
    with pytest.raises(ValueError, match=r"^size: 0 given, but it must be at least 1$"):
        Slow("1ep", 0)
    with pytest.raises(ValueError, match=r"^size: 9 needs start=0\.5 in ep$"):
        Slow(size=9, start="0.5dur")


# An algorithm, arguments that its rules reject, and similar arguments that they accept.
RULES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("blurpool", {"replace_convs": False, "replace_maxpools": False}, {"replace_convs": False}),
    ("colout", {"finetune_fraction": 0.1, "batch": False}, {"finetune_fraction": 0.0, "batch": False}),
    ("ema", {"half_life": None}, {"half_life": None, "smoothing": 0.9}),
    ("ema", {"smoothing": 0.9}, {"half_life": "1ep"}),
    ("ema", {"half_life": "1ep", "update_interval": "3ba"}, {"half_life": "1ep", "update_interval": "3ep"}),
    ("ema", {"update_interval": "1ep"}, {"half_life": None, "smoothing": 0.9, "update_interval": "1ep"}),
    (
        "progressive_resizing",
        {"delay_fraction": 0.7, "finetune_fraction": 0.3000001},
        {"delay_fraction": 0.7, "finetune_fraction": 0.3},
    ),
    (
        "stochastic_depth",
        {"stochastic_method": "sample", "drop_warmup": "0.1dur"},
        {"stochastic_method": "sample", "drop_warmup": "0dur"},
    ),
]


@pytest.mark.parametrize(("name", "bad", "good"), RULES)
def test_rules_of_our_algorithms(name: str, bad: dict[str, Any], good: dict[str, Any]) -> None:
    found = [list(faults(declarations("algorithm", name), arguments("algorithm", name, args))) for args in (bad, good)]
    assert (len(found[0]), found[1]) == (1, [])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"BOUNDS": {"sise": "at least 1"}}, "there is no argument sise; did you mean size?"),
        ({"BOUNDS": {"size": "1 or more"}}, "'1 or more' has no limit; use from, at least"),
        ({"RULES": {"sise > 1": ""}}, "'sise > 1' uses sise, which is not an argument"),
        ({"PER_IMAGE": "not batch"}, "'not batch' uses batch, which is not an argument"),
    ],
)
def test_invalid_declarations_are_an_error_of_the_class(words: dict[str, Any], sentence: str) -> None:
    with pytest.raises(TypeError, match=re.escape(sentence)):
        type("Mine", (Slow,), words)


def test_declarations_are_read_through_bases_without_an_import(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from recipes.algorithms.sam import SAM\n"
        "raise SystemExit\n"
        "class Base(SAM):\n"
        "    NO_LR_FIND = 'mine'\n"
        "class Mine(Base):\n"
        "    BEFORE = {'ema': 'which else '\n"
        "              'does nothing'}\n"
        "class Bad(Base):\n"
        "    BOUNDS = dict(rho='at least 1')\n"
    )
    found = _read(file, "Mine")
    assert found == {
        "BOUNDS": declarations("algorithm", "sam").BOUNDS,
        "NO_LR_FIND": "mine",
        "BEFORE": {"ema": "which else does nothing"},
    }
    with pytest.raises(TypeError, match=r"mine\.py:9: BOUNDS is read without an import; make it a literal"):
        _read(file, "Bad")


@pytest.mark.parametrize("kind", ["algorithm", "optimizer"])
def test_read_declarations_equal_the_class_attributes(kind: str) -> None:
    for entry in registry.own(kind).values():
        cls = pkgutil.resolve_name(f"{entry.module}:{entry.class_name}")
        read = declarations(kind, entry.name)
        for word in WORDS if issubclass(cls, Declarations) else ():
            assert getattr(read, word) == getattr(cls, word), (entry.name, word)


def test_config_knows_no_algorithm_by_name() -> None:
    names = "|".join(registry.names("algorithm"))
    for file in sorted((ROOT / "config").glob("*.py")):
        tree = ast.parse(file.read_text())
        prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in prose]
        known = [text for text in texts if isinstance(text, str) and re.search(rf"\b({names})\b", text)]
        assert not known, (file.name, known)
