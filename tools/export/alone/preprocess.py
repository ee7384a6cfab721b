"""Prepare an image as the evaluation of the exported network does. Needs Pillow, NumPy, and for AREA OpenCV."""

import numpy as np
from PIL import Image

RESIZE = 256  # pixels of the short side; -1: not resized
CROP = 224  # pixels of the central square
CROP_RATIO = None  # of the central square to the short side, if it is resized to CROP
INTERPOLATION = "BILINEAR"  # of the resize
MEAN = (0.485, 0.456, 0.406)  # of the channels, for images in 0..1
STD = (0.229, 0.224, 0.225)


def load(file):
    """Read an image: RGB, uint8 [3, CROP, CROP], as the programs (ONNX, pt2, TorchScript) take it in batches."""
    image: Image.Image = Image.open(file)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    image = image.convert("RGB")
    if CROP_RATIO is not None:
        side = max(1, int(CROP_RATIO * min(image.size)))
        left, top = ((length - side) // 2 for length in image.size)
        image = resized(image.crop((left, top, left + side, top + side)), (CROP, CROP))
    elif RESIZE > 0:
        short = min(image.size)
        width, height = (RESIZE if side == short else int(RESIZE * side / short) for side in image.size)
        image = resized(image, (width, height))
    left, top = (round((side - CROP) / 2) if side >= CROP else -((CROP - side) // 2) for side in image.size)
    return np.asarray(image.crop((left, top, left + CROP, top + CROP))).transpose(2, 0, 1)


def resized(image, size):
    """Resize an image to (width, height)."""
    if INTERPOLATION != "AREA":
        return image.resize(size, Image.Resampling[INTERPOLATION])
    import cv2

    return Image.fromarray(cv2.resize(np.asarray(image), size, interpolation=cv2.INTER_AREA))


def normalized(images):
    """Return what weights alone take (pth, safetensors): float32 [B, 3, CROP, CROP], from uint8 of that shape."""
    mean, std = (np.array(values, np.float32).reshape(3, 1, 1) for values in (MEAN, STD))
    return (images / np.float32(255) - mean) / std
