"""Classify images from strangers one at a time, within limits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from http import HTTPStatus
from threading import BoundedSemaphore

import torch
from PIL import Image, UnidentifiedImageError

from loaders.images.decoding import open_file
from loaders.workers import decode_threads
from tools.networks.opened import Network
from tools.predict.answers import best_answers
from tools.predict.formats import as_objects
from tools.predict.images import decode, turned

MOST_PIXELS = 50_000_000  # of an image: 150 MB when it is decoded
MOST_SCANS = 100  # of a progressive JPEG, which usually has 10: each is a pass over all pixels
MOST_WAITING = 16  # requests, besides the one whose image is being classified
_SCAN = b"\xff\xda"  # the marker; in the data of a scan, a null byte follows each FF

SEND = "send a JPEG, PNG, WebP, GIF, BMP, TIFF or PPM file"
TURNED = "The image carries an orientation tag. The network ignores it, as in training, and may see the image sideways."


class Rejected(Exception):
    """A request that is not answered: HTTP's status, a sentence that says why, and headers of the answer."""

    def __init__(self, status: HTTPStatus, why: str, **headers: str) -> None:
        super().__init__(why)
        self.status, self.headers = status, headers


class Classifier:
    """A network that many threads may ask.

    Images are decoded and classified one by one, in one thread, so memory is bounded, and torch starts its own threads
    only once.

    Args:
        network: the network.
        called: what people call its classes.
        top: classes per answer.
        upright: whether to turn images by their orientation tag, which training ignores.

    Raises:
        UserError: the network's outputs are not finite.
    """

    def __init__(self, network: Network, called: Sequence[str], top: int, upright: bool) -> None:
        Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2  # PIL rejects twice as many, and only warns below
        self.network, self.called, self.upright = network, called, upright
        self.top = min(top, len(network.classes))
        self.pipeline = network.pipeline()
        self.pipeline.threads = decode_threads(0)
        self._places = BoundedSemaphore(1 + MOST_WAITING)
        self._thread, self._is_closing = ThreadPoolExecutor(1), False
        best_answers(network, called, torch.zeros(1, 3, network.crop_size, network.crop_size, dtype=torch.uint8), 1)

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place in the queue, from before an image is received; Rejected if there is none."""
        if not self._places.acquire(blocking=False):
            why = f"{MOST_WAITING} images are waiting already; try again in a few seconds"
            raise Rejected(HTTPStatus.SERVICE_UNAVAILABLE, why, **{"Retry-After": "1"})
        try:
            yield
        finally:
            self._places.release()

    def answer(self, data: bytes) -> dict[str, object]:
        """Return the answer to an encoded image, as an object of tools.predict's JSON; Rejected if it is none."""
        try:
            return self._thread.submit(self._answer, data).result()
        except (CancelledError, RuntimeError) as error:
            if not self._is_closing:
                raise
            raise Rejected(HTTPStatus.SERVICE_UNAVAILABLE, "the server is stopping") from error

    def close(self) -> None:
        """Wait for the image that is being classified; those that wait are rejected."""
        self._is_closing = True
        self._thread.shutdown(cancel_futures=True)

    def _answer(self, data: bytes) -> dict[str, object]:
        check(data)
        try:
            source, is_turned = turned(data, self.upright)
            images, faults = decode(self.pipeline, [source])
        except Exception as error:  # PIL raises anything
            faults = {0: error}
        if faults:
            why = "the image cannot be decoded: it is damaged, cut short or too thin"
            raise Rejected(HTTPStatus.UNPROCESSABLE_ENTITY, why) from faults[0]
        answers = best_answers(self.network, self.called, images.permute(0, 3, 1, 2), self.top)
        remark = {"remark": TURNED} if is_turned and not self.upright else {}
        return {"top": as_objects(answers[0]), **remark}


def check(data: bytes) -> None:
    """Raise Rejected for bytes that are not an image by their first few, or one that takes too long to decode."""
    try:
        open_file(data).close()  # reads the header only
    except Image.DecompressionBombError as error:
        why = f"the image has more than {MOST_PIXELS:,} pixels; send a smaller one"
        raise Rejected(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, why) from error
    except UnidentifiedImageError as error:
        raise Rejected(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"this is not an image; {SEND}") from error
    except Exception as error:  # PIL raises anything
        raise Rejected(HTTPStatus.UNPROCESSABLE_ENTITY, "the image's header is damaged") from error
    if data.startswith(b"\xff\xd8") and data.count(_SCAN) > MOST_SCANS:
        why = f"the image is a JPEG of more than {MOST_SCANS} scans; save it again as an ordinary one"
        raise Rejected(HTTPStatus.UNPROCESSABLE_ENTITY, why)
