"""Images of ImageNet that are not RGB JPEGs: one PNG and 23 CMYK JPEGs, all named .JPEG."""

from __future__ import annotations

PNG, CMYK = "PNG", "CMYK"
# Several repositories list the same files, among them TensorFlow's models (build_imagenet_data.py).
IMAGENET_PNG = "n02105855_2933"
IMAGENET_CMYK = frozenset(
    """
    n01739381_1309 n02077923_14822 n02447366_23489 n02492035_15739 n02747177_10752 n03018349_4028 n03062245_4620
    n03347037_9675 n03467068_12171 n03529860_11437 n03544143_17228 n03633091_5218 n03710637_5125 n03961711_5286
    n04033995_2932 n04258138_17003 n04264628_27969 n04336792_7448 n04371774_5854 n04596742_4225 n07583066_647
    n13037406_4650 ILSVRC2012_val_00019877
    """.split()
)
_STARTS = {192, 193, 194, 195, 197, 198, 199, 201, 202, 203, 205, 206, 207}  # markers of a JPEG's frame
_ALONE = {1, *range(208, 218)}  # markers without a length


def oddity(data: bytes) -> str | None:
    """Return PNG or CMYK, the latter for any JPEG of four components; None for other bytes."""
    if data.startswith(b"\x89PNG"):
        return PNG
    at = 2 if data.startswith(b"\xff\xd8\xff") else len(data)
    while at + 10 <= len(data) and data[at] == 255:
        marker = data[at + 1]
        if marker in _STARTS:
            return CMYK if data[at + 9] == 4 else None
        at += 1 if marker == 255 else 2 if marker in _ALONE else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def expected_oddity(name: str) -> str | None:
    """Return what `oddity` returns of the original file, given an image's name or path."""
    stem = name.replace("\\", "/").rpartition("/")[2].partition(".")[0]
    return PNG if stem == IMAGENET_PNG else CMYK if stem in IMAGENET_CMYK else None
