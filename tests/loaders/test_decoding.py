"""Which formats and sizes are decoded, and what every decoder reports about the others."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, UnidentifiedImageError

from loaders.errors import DamagedScan, reason
from loaders.images import native, opened
from loaders.images.decoders import DECODERS as TABLE
from loaders.images.decoding import FORMATS, check, decode, open_image, shape_of
from loaders.images.transforms import EvaluationPipeline, TrainingPipeline
from loaders.storage.imagefolder import ImageFolderDataset
from loaders.storage.packed import PackedDataset
from tests.image_files import make_imagefolder
from tests.loaders.jpegs import PHOTO, Encode, built, jpeg, odd_images

DECODERS = sorted(name for name, row in TABLE.items() if native.available() or not row.native)
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(x) show\n"


def results_of_all_functions(data: bytes) -> list[object]:
    """Return the result or the exception of each function that takes an encoded image."""
    found: list[object] = []
    for function in (shape_of, open_image, decode, check, *(EvaluationPipeline(-1, 8, name) for name in DECODERS)):
        try:
            found.append(function(data))
        except Exception as error:
            found.append(error)
    return found


@pytest.mark.parametrize("kind", ["EPS", "ICO", "PCX", "PDF", "SGI", "TGA", "JPEG2000", "AVIF", "ICNS", "IM", "DDS"])
def test_other_formats_are_not_opened(kind: str) -> None:
    """Whatever the file is called; Pillow would run an EPS in Ghostscript."""
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {kind}")
    out = io.BytesIO()
    Image.fromarray(PHOTO[:16, :16]).save(out, kind)
    for data in (out.getvalue(), EPS):
        for error in results_of_all_functions(data):
            assert isinstance(error, UnidentifiedImageError)
            assert "supported formats are JPEG, PNG" in reason(error) and "0x" not in str(error)


@pytest.mark.parametrize("kind", FORMATS)
def test_the_formats_that_are_read(kind: str) -> None:
    out = io.BytesIO()
    Image.fromarray(PHOTO[:16, :24]).save(out, kind)
    shape, image, *_ = found = results_of_all_functions(out.getvalue())
    assert shape == (16, 24) and isinstance(image, Image.Image)
    assert not any(isinstance(error, Exception) for error in found)


def sized(height: int, width: int) -> bytes:
    """Build a JPEG whose header declares this size."""
    data = bytearray(jpeg(PHOTO[:16, :16]))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(data)


def test_every_decoder_rejects_images_with_too_many_pixels() -> None:
    for height, width in ((13_378, 13_378), (65_500, 65_500), (65_500, 2_733)):
        for error in results_of_all_functions(sized(height, width)):
            assert isinstance(error, Image.DecompressionBombError) and "limit of 178956970 pixels" in str(error)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        assert shape_of(sized(65_500, 2_732)) == (65_500, 2_732)


def png(height: int, width: int) -> bytes:
    rows, columns = (np.resize(np.arange(251), length) for length in (height, width))
    out = io.BytesIO()
    Image.fromarray(np.repeat((rows[:, None] ^ columns)[..., None], 3, -1).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


@built
@pytest.mark.parametrize("decoder", ["pil", "torchvision", "native"])
@pytest.mark.parametrize("shape", [(10_000, 1), (1, 60_000), (3, 20_001)])
def test_only_the_visible_part_of_a_thin_image_is_resized(
    decoder: str, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    pil, torchs = Image.Image.resize, opened.resized
    monkeypatch.setattr(Image.Image, "resize", lambda self, size, *a: sizes.append(size) or pil(self, size, *a))
    monkeypatch.setattr(opened, "resized", lambda self, *size: sizes.append(size) or torchs(self, *size))
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 2_000_000)
    found = EvaluationPipeline(256, 224, decoder)(png(*shape))
    assert found.shape == (3, 224, 224) and not sizes
    monkeypatch.setattr(native, "available", lambda: False)
    if decoder != "native":
        with pytest.raises(ValueError, match=r"too thin: it is resized to \d+ x \d+ px before the crop; .* make env"):
            EvaluationPipeline(256, 224, decoder)(png(*shape))


@built
def test_thin_images_have_pils_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    for shape in ((700, 3), (5, 901), (64, 1)):
        image, whole = png(*shape), EvaluationPipeline(40, 31, "pil")
        expected = whole(image)
        monkeypatch.setattr(opened, "most_pixels", lambda: 31 * 31)
        for decoder in DECODERS:
            assert torch.equal(EvaluationPipeline(40, 31, decoder)(image), expected)
        monkeypatch.undo()


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_thin_image_is_not_resized_whole_for_training(decoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 50_000)
    with pytest.raises(ValueError, match="too thin: it would be resized to 1200 x 120000 px"):
        TrainingPipeline(1200, 32, decoder=decoder)(png(100, 1))


@built
def test_images_that_native_leaves_to_pil_have_its_pixels(encode: Encode) -> None:
    """Missing scans, chroma subsampling that libjpeg versions interpolate differently, bytes after the end."""
    scans = jpeg(PHOTO, progressive=True).split(b"\xff\xda")
    handed_on = [b"\xff\xda".join(scans[:n]) + b"\xff\xd9" for n in (2, 3, 5)]
    handed_on += [encode(PHOTO, across=across, down=down) + b"\0" for across, down in ((1, 2), (1, 1), (4, 1), (2, 2))]
    for data in handed_on:
        for seed in range(3):
            found = []
            for decoder in ("native", "pil"):
                torch.manual_seed(seed)
                found.append(TrainingPipeline(-1, 64, decoder=decoder)(data).numpy().tobytes())
            assert found[0] == found[1]


def test_packed_images_equal_the_decoders(tmp_path: Path, encode: Encode) -> None:
    """Equal to a folder's, even for a 4:4:0 JPEG, which libjpeg versions decode differently."""
    root = make_imagefolder(tmp_path, classes=("a", "b"), per_class=1)
    (root / "train/a/0000.jpeg").write_bytes(encode(PHOTO[:100, :80], down=2))
    for decoder in DECODERS:
        source = ImageFolderDataset(root, "train", TrainingPipeline(-1, 48, decoder=decoder), seed=3)
        assert (PackedDataset(source)[0, 0][0] == source[0, 0][0]).all()


@built
@pytest.mark.parametrize("progressive", [False, True])
def test_damage_that_pil_ignores_is_found(progressive: bool) -> None:
    """A lost sector and a removed part; nothing is reported in undamaged images."""
    whole = jpeg(PHOTO, progressive=progressive, quality=90)
    assert check(whole) == PHOTO.shape[:2] and check(whole + bytes(9)) == PHOTO.shape[:2]
    at = len(whole) // 4
    for damaged in (whole[:at] + bytes(512) + whole[at + 512 :], whole[:at] + whole[at + 300 :]):
        open_image(damaged)
        with pytest.raises(DamagedScan, match="Corrupt JPEG data"):
            check(damaged)
    for data in odd_images().values():
        assert check(data) == shape_of(data)


@built
def test_damaged_images_decode_as_in_pil(capfd: pytest.CaptureFixture) -> None:
    """For any decoder; libjpeg would print a warning to the terminal if torchvision called it."""
    whole = jpeg(PHOTO, quality=90)
    at = len(whole) // 4
    for damaged in (whole[:at] + bytes(512) + whole[at + 512 :], whole[:at] + b"\xff\xd0" + whole[at:], whole + b"x"):
        expected = torch.from_numpy(np.array(open_image(damaged))).permute(2, 0, 1)
        assert torch.equal(decode(damaged), expected)
        TrainingPipeline(-1, 32, decoder="torchvision")(damaged)
    assert capfd.readouterr() == ("", "")


def test_torchvision_gets_no_truncated_jpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "available", lambda: False)
    whole = jpeg(PHOTO)
    assert decode(whole).shape == (3, *PHOTO.shape[:2])
    monkeypatch.setattr("loaders.images.decoding.decode_jpeg", lambda *_: pytest.fail("it leaks"))
    with pytest.raises(OSError, match="truncated"):
        decode(whole[: len(whole) // 2])


def test_check_without_the_library_uses_pil(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "available", lambda: False)
    whole = jpeg(PHOTO)
    assert check(whole) == PHOTO.shape[:2]
    with pytest.raises(OSError, match="truncated"):
        check(whole[:-100])


def test_reasons_have_no_addresses() -> None:
    assert reason(ValueError(f"bad {object()!r}\nmore")) == "ValueError: bad <object object>"
