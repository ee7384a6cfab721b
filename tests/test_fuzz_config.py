"""Any value at any key either loads and shows a run or gives a sentence, never a Python error."""

from __future__ import annotations

import collections
import io
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from common.trees import leaves
from config import ConfigError, load
from config.dry_run import show
from config.load import defaults, recipe_files
from config.schema import OPEN_SECTIONS
from recipes import registry

VALUES = (
    """
0|-1|1|1e9|1e400|-1e400|1e-400|.nan|.inf|null|~||true|no|0x1F|1_000|12:30:45|2001-01-01|99999999999999999999999999
1e3ep|-1ba|0ep|1.5ep|ep|1ep1ba|1e400ep|0.5dur|1.5dur|nanep|٣ep|1e18ba|1sp|1tok|[]|{}|[1, 2]|[[[]]]|[null]|{a: 1}
{a: {b: {c: {}}}}|{1: 2}|{null: 1}|{? [1, 2] : 3}|[0.9, .nan]|${a}|${seed}|${oc.env:HOME}|${oc.env:NOT_THERE}|${oc.env}
${oc.decode:"[1,2]"}|${oc.create:{a:1}}|${oc.deprecated:seed}|${oc.dict.keys:model}|${model}|${${seed}}|${|${}|${nope:1}
???|[???]|{run_name}|{nope}|{|}|[|]|'|"|:|#|&|*|*nope|&a [*a]|!|!foo x|!!float x|!!bool x|!!int x|!!set {a}
!!binary aGk=
!!python/object:os.system x|!!timestamp 2001-01-01|!!null x|- x|? x|@x|`x|%x|<<: 1|"\\0"|"\\ud800"|"\\e[31m"|"a\\nb"|é
[red
[/x]|'[bold]x[/bold]'|'[link=x]'|~/x|~nobody/x|../../x|/dev/null|s3:/x|s3://|s3://b/k|://|resnet50|adam|sdg|mild|mild.yaml
cosine_with_warmup|one_cycle|constant_with_warmup|schedule_free|streaming|packed|synthetic|native|auto|gpu|amp|INFO|16|3.0
""".replace("\n", "|")
    .strip("|")
    .split("|")
)
VALUES += ["x" * 3000, "9" * 3000, "[" * 300 + "]" * 300, "\0", "\x1b[31m", "caf\udce9", "\u2028"]
WORDS = (
    """
|=|==|=1|.=1|..a=1|a..b=1|a|-x|--seed=1|+seed=1|~seed|seed|seed:1|[=1|]=1|[0]=1|a[=1|a.b[c=1|${seed}=1|'seed'=1|seed==1
{a:1}=2|a,b=1|model=|model=[]|model.name.x=1|seed.x=1|algorithms=1|algorithms.sam=|optimizer=1|optimizer.=1|mild=1|x-a=1
mild.seed=x|mild.algorithms=1|recipe_name=.|recipe_name=/|recipe_name=.yaml|recipe_name=[]|recipe_name=/dev/null|other.yaml
""".replace("\n", "|")
    .strip("|")
    .split("|")
)
WHOLE = (
    "text",
    "3",
    "null",
    "- 1",
    "a: 1\n---\nb: 2\n",
    "\0",
    "\t",
    "seed: 1\r",
    "{",
    "? [1]\n: 2\n",
    "1: 2\n",
    "!!str a",
    "<<: {}\n",
)
PYTHON = re.compile(
    r"object (is|has)|has no attribute|list index|out of bounds|could not convert|codec|NoneType|<class|<built-in|"
    r"positional argument|unexpected keyword|recursion depth|[a-z]Error\b|Traceback"
)


def keys(draw: random.Random) -> list[str]:
    """Return every key of the schema, an argument of every class that a YAML can name, and unknown keys, shuffled."""
    found = [key for key, _ in leaves(defaults())] + list(defaults())
    for section, kind in OPEN_SECTIONS.items():
        for name in registry.names(kind):
            arguments = list(registry.signature(kind, name))
            found.append(".".join([section, name, *draw.sample(arguments, min(1, len(arguments)))]))
    found = [*sorted(set(found) - {"dry_run"}), "nosuch", "model.nosuch", "algorithms.nosuch", "seed.deeper"]
    return draw.sample(found, len(found))


def outcome(*words: str) -> str:
    """Return the error message, or '' if the run loads and is shown."""
    try:
        run = load([*words, "dry_run=true"])
        show(run, Console(file=io.StringIO(), width=100))
    except ConfigError as error:
        return str(error)
    return ""


def cases(folder: Path) -> Iterator[list[str]]:
    """Yield command lines that put a value at each key, alternating between YAML and command line."""
    draw = random.Random(20)
    path = folder / "run.yaml"
    values = draw.sample(VALUES, len(VALUES)) * 20
    for number, key in enumerate(keys(draw)):
        recipe = draw.choice([[], [f"recipe_name={draw.choice(sorted(recipe_files()))}"]])
        in_yaml = number % 2 == 0
        path.write_bytes(f"{key}: {values.pop()}\n".encode(errors="surrogateescape") if in_yaml else b"")
        yield [str(path), *recipe, *([] if in_yaml else [f"{key}={values.pop()}"])]
    for text in WHOLE:
        path.write_text(text)
        yield [str(path)]
    path.write_text("")
    yield from ([str(path), word] for word in WORDS)


@pytest.mark.parametrize(
    "value", ["!!timestamp x", "!!float ''", f"1{':59' * 250}.5", f"1{'0' * 400}", f"-1{'0' * 400}"]
)
@pytest.mark.parametrize("key", ["seed", "optimizer.lr", "scale_schedule_ratio", "train_dataset.min_crop_area"])
def test_numbers_that_python_cannot_represent(key: str, value: str, tmp_path: Path) -> None:
    """PyYAML's constructors raise errors of Python's own, and an integer may be too large for a float."""
    path = tmp_path / "run.yaml"
    for text, words in ((f"{key}: {value}\n", []), ("", [f"{key}={value}"])):
        path.write_text(text)
        said = outcome(str(path), *words)
        assert said and not PYTHON.search(said), said


@pytest.mark.parametrize("length", [f"1{'0' * 400}", "1e400"])
def test_durations_that_no_float_holds(length: str, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("")
    for key in ("max_duration", "scheduler.t_warmup", "eval_interval", "save_interval"):
        said = outcome(str(path), f"{key}={length}ba")
        assert said.startswith(f"{key}: {length}ba is too long to compute with"), said
    for words in (["max_duration=1e300ba"], ["scheduler.t_warmup=1e300ba"]):
        assert "scale_schedule_ratio: 1e+300 makes" in outcome(str(path), *words, "scale_schedule_ratio=1e300")


def test_a_run_or_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_THERE", raising=False)
    ends: collections.Counter[bool] = collections.Counter()
    for words in cases(tmp_path):
        said = outcome(*words)
        text = Path(words[0]).read_bytes()
        assert not PYTHON.search(said), (said, words, text)
        assert all(len(line.strip()) > 20 for line in said.splitlines() if said), (said, words, text)
        ends[bool(said)] += 1
    assert min(ends.values()) > 15, "too few runs or too few sentences"
