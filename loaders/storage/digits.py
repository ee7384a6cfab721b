"""A real data set without a download: scikit-learn's 1,797 scanned digits, as an image folder.

From the UCI test set "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, 1998), 8 x 8 pixels each.
`python -m loaders.storage.digits FOLDER` writes it.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from common import command
from common.errors import DataError
from common.whole_files import whole_folder

FOLDER = "data/digits"  # made by a run if it is missing
SIZE = 32  # pixels: a ResNet halves them five times, to one
EVALUATION_SHARE = 0.2
_SPLIT_SEED = 17


def is_made_on_demand(path: str | None) -> bool:
    """Whether a run makes this folder if it is missing: only data/digits in the current folder."""
    return path is not None and Path(path) == Path(FOLDER)


def make_digits(folder: str | os.PathLike[str]) -> Path:
    """Write train/0..9 (1,438 images) and val/0..9 (359) unless they exist; return the folder.

    The split is fixed and stratified. The folder is renamed into place when complete, so that several ranks may call
    this at once, and an interrupted call leaves nothing behind. Raises a DataError if the folder holds something else
    or cannot be written.
    """
    target = Path(folder)
    if _complete(target):
        return target
    if target.is_dir() and any(target.iterdir()):
        raise DataError(f"{target}: holds something other than the digits. Choose another folder, or empty this one.")
    try:
        with whole_folder(target) as made:  # an OSError if another process was first
            _write(made)
    except OSError as error:
        if not _complete(target):
            raise DataError(f"{target}: cannot be written ({error.strerror}). Choose another folder.") from error
    return target


def _complete(folder: Path) -> bool:
    """Whether the digits exist; all classes appear at once, so that checking two is enough."""
    return (folder / "val" / "9").is_dir() and (folder / "train" / "0").is_dir()


def _write(folder: Path) -> None:
    """Split, enlarge and save every digit."""
    import numpy as np  # here, because a dry run imports this module but must not import numpy
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    rng = np.random.default_rng(_SPLIT_SEED)
    for label in range(10):
        numbers = rng.permutation(np.flatnonzero(digits.target == label))
        held_out = round(len(numbers) * EVALUATION_SHARE)
        for split, members in (("val", numbers[:held_out]), ("train", numbers[held_out:])):
            class_folder = folder / split / str(label)
            class_folder.mkdir(parents=True)
            for number in members:
                pixels = np.round(digits.images[number] * (255 / 16)).astype(np.uint8)
                image = Image.fromarray(pixels).resize((SIZE, SIZE), Image.Resampling.BICUBIC).convert("RGB")
                image.save(class_folder / f"{number:04}.png")


def main(argv: Sequence[str]) -> int:
    """Write the digits to the folder named on the command line; return 0."""
    parser = command.parser("loaders.storage.digits", "Write 1,797 scanned digits as an image folder (train/, val/).")
    parser.add_argument("folder", help="folder to write, such as data/digits")
    print(f"digits: {make_digits(parser.parse_args(argv).folder)}")
    return 0


if __name__ == "__main__":
    sys.exit(command.run(main))
