"""Real images without a download: crops of scikit-learn's two photographs, a class each."""

from __future__ import annotations

from pathlib import Path

from PIL import Image


def photo_crops(folder: Path, per_class: int, size: int) -> Path:
    """Write `per_class` crops of `size` pixels, which do not overlap, of each photograph to CLASS/N.jpg."""
    from sklearn.datasets import load_sample_image

    for name in ("china", "flower"):
        photo = Image.fromarray(load_sample_image(f"{name}.jpg"))
        (folder / name).mkdir(parents=True)
        columns = photo.width // size
        # From the bottom, because china's sky has nothing to tell one crop from another.
        for number in range(per_class):
            row, column = divmod(number, columns)
            left, top = column * size, photo.height - (row + 1) * size
            photo.crop((left, top, left + size, top + size)).save(folder / name / f"{number:03}.jpg", quality=92)
    return folder
