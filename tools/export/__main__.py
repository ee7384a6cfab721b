"""Write a trained network for other programs.

    python -m tools.export runs/NAME --format onnx
    python -m tools.export runs/NAME --format pth safetensors hub --checkpoint latest -o FOLDER

Programs (onnx, pt2, torchscript) take RGB images, uint8 [B, 3, S, S], and give probabilities: the normalization is
inside. Weights (pth, safetensors, timm, hub) are of a library's network, which takes normalized images and gives
logits. Each file holds its classes and image size, and names its run; preprocess.py, next to it, prepares an image.
A space is a folder with a page that runs the ONNX program.

Each file is read as its users would read it, and compared with the run on images of val/; files appear when all agree.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from common import command
from common.errors import ConfigError, UserError, counted
from common.folders import check_folder
from common.whole_files import whole_group
from config.schema import MODELS
from tools.evaluate.choice import choose_data, own_target
from tools.export.formats import CODE, FORMATS, PREPROCESS, check_packages, function
from tools.export.options import parse
from tools.networks.runs import load_run

if TYPE_CHECKING:
    from tools.export.subject import Subject

ADVICE = "name another folder: -o FOLDER"


def main(argv: Sequence[str]) -> int:
    """Write, compare and print; return 0."""
    given = parse(argv, __doc__)
    check_packages(given.format)
    run = load_run(given.run, given.outside_code)
    choose_data(run.config, given.data, given.local)
    target = given.out or own_target(given.run, "export")
    own = {name: [one.format(given.run.resolve().name) for one in FORMATS[name].names] for name in given.format}
    if there := [name for names in own.values() for name in names if (target / name).exists()]:
        raise ConfigError(f"{target / there[0]}: exists; delete it, or {ADVICE}")
    check_folder(target, f"{target}:", ADVICE)

    # Imported late: torch takes seconds, and mistakes are reported before.
    from tools.export.subject import open_subject
    from tools.export.weights import check_fits

    command.restore_ctrl_c()
    subject = open_subject(run, given)
    check_fits(subject, given.format)
    shared = shared_files(subject)
    for name, text in shared.items():
        if (target / name).exists() and (target / name).read_text() != text:
            raise ConfigError(f"{target / name}: is of another network or image size; delete it, or {ADVICE}")
    names = [*(name for names in own.values() for name in names), *shared]
    try:
        with whole_group(target, names) as out:
            for name, text in shared.items():
                (out / name).write_text(text)
            write(subject, {name: out / names[0] for name, names in own.items()})
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror}); {ADVICE}") from error
    print(f"written: {target}/ ({', '.join(names)})")
    for name in given.format:
        if then := FORMATS[name].then:
            print(f"to share it: {then.format(shlex.quote(str(target / own[name][0])))}")
    return 0


def shared_files(subject: Subject) -> dict[str, str]:
    """Return the texts of the files that all formats share, by name."""
    from tools.export.subject import prepare
    from tools.export.weights import code

    return ({CODE: code(subject)} if subject.given.with_code else {}) | {PREPROCESS: prepare(subject)}


def write(subject: Subject, files: Mapping[str, Path]) -> None:
    """Write each format, compare it with the run, and print a line about it."""
    from tools.export.check import check

    width = max(len(path.name) for path in files.values())
    for name, path in files.items():
        try:
            function("write", name)(subject, path)
            found = check(subject, name, path)
        except (UserError, OSError):
            raise
        except Exception as error:  # torch raises anything
            model = subject.config.model.name
            if model in MODELS:
                raise
            cause = error.__cause__ or error  # of torch.onnx's own, which tells how to report it
            why = str(cause).strip().partition("\n")[0][:200]
            raise UserError(f"--format {name}: torch cannot export {model} ({why}); give another format") from error
        inside = [path] if path.is_file() else path.rglob("*")
        size = sum(file.stat().st_size for file in inside) / 1e6
        print(
            f"{path.name:{width}}  {size:6.1f} MB  differs from the run by at most {found.difference:.1e} on "
            f"{counted(found.images, 'image', 'images')} of val/, {found.changed} with another top-1",
            flush=True,
        )


run = partial(command.run, main, stopped="stopped; nothing was written")

if __name__ == "__main__":
    sys.exit(run())
