"""A page that classifies images: pip install -r requirements.txt && python app.py"""

import json
import os
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # which Gradio reads when it is imported

import gradio
import onnxruntime
from PIL import Image
from preprocess import RESIZE, load

MOST_BYTES = "10mb"  # of a file
MOST_PIXELS = 50_000_000  # of an image, before or after it is resized
MOST_SCANS = 100  # of a progressive JPEG, which usually has 10: each is a pass over all pixels
MOST_WAITING = 16  # images; one is classified at a time
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "GIF", "TIFF", "WEBP")
SECONDS = (600, 3600)  # between deletions of uploaded files, and the age of those that are deleted

FOLDER = Path(__file__).parent
SESSION = onnxruntime.InferenceSession(FOLDER / "network.onnx", providers=["CPUExecutionProvider"])
ABOUT = SESSION.get_modelmeta().custom_metadata_map
CLASSES, NAMES = json.loads(ABOUT["classes"]), json.loads(ABOUT["class_names"])
LABELS = [one if name == one else f"{name} ({one})" for one, name in zip(CLASSES, NAMES, strict=True)]

# Above twice this number PIL raises an error; below it only warns.
Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2


def classify(file):
    """Return the probability of each class of an image file."""
    if file is None:
        raise error("Choose an image first.")
    check(file)
    try:
        image = load(file)
    except Exception as problem:  # PIL raises anything
        raise error("The image cannot be decoded: it is damaged or cut short.") from problem
    (probabilities,) = SESSION.run(None, {SESSION.get_inputs()[0].name: image[None]})[0]
    return dict(zip(LABELS, map(float, probabilities), strict=True))


def check(file):
    """Raise an error for a file that is not an image, or one that takes too much time or memory."""
    try:
        with Image.open(file, formats=FORMATS) as image:  # reads the header only
            short, long = sorted(image.size)
    except Exception as problem:  # PIL raises anything
        raise error(f"This is not an image of at most {MOST_PIXELS:,} pixels.") from problem
    if RESIZE > 0 and RESIZE * RESIZE * long > MOST_PIXELS * short:
        raise error("The image is too thin.")
    data = Path(file).read_bytes()
    if data.startswith(b"\xff\xd8") and data.count(b"\xff\xda") > MOST_SCANS:
        raise error("The image is a JPEG of too many scans; save it again as an ordinary one.")


def error(sentence):
    """Return what Gradio shows to the user; nothing is printed."""
    return gradio.Error(sentence, print_exception=False)


def build():
    """Return the page."""
    return gradio.Interface(
        classify,
        # In any mode: Gradio would convert others, and save them again.
        gradio.Image(type="filepath", image_mode=None, sources=["upload", "clipboard"], label="Image"),
        gradio.Label(num_top_classes=5, label="Classes"),
        title=ABOUT["run"],
        description=f"An image classifier with {len(LABELS):,} classes.",
        examples=sorted(map(str, FOLDER.glob("examples/*"))) or None,
        cache_examples=False,
        flagging_mode="never",
        analytics_enabled=False,
        delete_cache=SECONDS,
        api_name="predict",
    ).queue(max_size=MOST_WAITING, default_concurrency_limit=1)


if __name__ == "__main__":
    build().launch(max_file_size=MOST_BYTES, show_error=False, share=False, ssr_mode=False)
