"""Images to what a model takes: opened as something that a stranger sent, and prepared as the model's preprocessor_config.json says.

Pillow and numpy only, so that an export runs without torch; what comes out is, to the bit, what transformers' own processors make of Pillow's
images (tests/steps/test_pixels.py). Left out: processors that do more than resize, crop, rescale, normalise and pad are refused, never guessed at.

An image's value is what data_images.py gives: its `bytes`, or the `file` that it lies in. An image is turned upright by its EXIF orientation, and
what is transparent is white, as on paper. Of an animation the first frame counts.
"""

from __future__ import annotations

import io
import json
import math
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from modelyard.errors import BadData
from modelyard.yard import files
from modelyard_jobs import data

Pixels8 = NDArray[np.uint8]
"""(channels, height, width)."""

CONFIG = "preprocessor_config.json"
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Pillow's names of what is opened: others, such as EPS, would start programs."""
MAX_PIXELS = 1 << 26
"""Of an image, and of what it becomes: 8192 x 8192, 200 MB while it is decoded."""
PATCH = 16
"""Side of the squares that the size of an image is counted in."""

_BROKEN = (ArithmeticError, AttributeError, EOFError, LookupError, OSError, RuntimeError, SyntaxError, TypeError, ValueError, struct.error)
"""What Pillow's decoders raise on bytes that were made to break them."""
_MAX_SIDE = 1 << 14
_UNLIMITED = 1 << 30


@dataclass(frozen=True)
class _Kind:
    """What a processor does where its file does not say. square: one number as size is both sides, not the shorter one."""

    resample: Image.Resampling
    square: bool
    crops: bool = False
    normalizes: bool = True
    pads: bool = False


_BICUBIC, _BILINEAR = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR
KINDS: Mapping[str, _Kind] = MappingProxyType(
    {
        "ViT": _Kind(_BILINEAR, square=True),
        "DeiT": _Kind(_BICUBIC, square=True, crops=True),
        "Pvt": _Kind(_BICUBIC, square=True),
        "Blip": _Kind(_BICUBIC, square=True),
        "Siglip": _Kind(_BICUBIC, square=False),
        "ConvNext": _Kind(_BICUBIC, square=False),
        "Bit": _Kind(_BICUBIC, square=False, crops=True),
        "CLIP": _Kind(_BICUBIC, square=False, crops=True),
        "MobileNetV1": _Kind(_BILINEAR, square=False, crops=True),
        "Detr": _Kind(_BILINEAR, square=False, pads=True),
        "ConditionalDetr": _Kind(_BILINEAR, square=False, pads=True),
        "DeformableDetr": _Kind(_BILINEAR, square=False, pads=True),
        "RTDetr": _Kind(_BILINEAR, square=False, normalizes=False),
    }
)
"""The processors of transformers that are known here, without `ImageProcessor` or what it was called before. Swin has ViT's, ResNet ConvNext's."""
UNNAMED: Mapping[str, str] = MappingProxyType({"vit": "ViT", "deit": "DeiT", "detr": "Detr", "clip": "CLIP"})
"""Type of a model -> its processor, where the file names none: files of before 2022 do not, google/vit-base-patch16-224's among them."""


def fault(value: Any) -> str | None:
    """Why an image cannot be used, as far as its first bytes tell: nothing is decoded."""
    found = size(value)
    return found if isinstance(found, str) else None


def size(value: Any) -> tuple[int, int] | str:
    """Width and height of the image when it stands upright, from its first bytes; or why it cannot be used."""
    found = _identified(value)
    if isinstance(found, str):
        return found
    with found:
        try:
            turned = "exif" in found.info and found.getexif().get(ExifTags.Base.Orientation, 1) > 4
        except _BROKEN as error:
            return f"the image cannot be read ({data.reason(error)})"
        return (found.height, found.width) if turned else (found.width, found.height)


def opened(value: Any) -> Image.Image | str:
    """The image, upright, of mode RGB or L; or why there is none. Raises VolumeFailed, OSError, MemoryError: the machine is to blame."""
    found = _identified(value)
    if isinstance(found, str):
        return found
    try:
        with found:
            return _flat(ImageOps.exif_transpose(found), wide=found.format == "PNG")
    except _BROKEN as error:
        return f"the image cannot be decoded ({data.reason(error)})"


def patches(height: int, width: int) -> int:
    """How much of a batch an image fills."""
    return -(-height // PATCH) * -(-width // PATCH)


class Pixels:
    """A model's preprocessing: ImageEncoder in task.py, in two halves, so that what waits for its batch is bytes and not floats."""

    limit = _UNLIMITED
    """An image has no length."""

    def __init__(self, config: Mapping[str, Any], channels: int) -> None:
        """config: of preprocessor_config.json. channels: 1 or 3, that the model takes. Raises BadData."""
        self.channels = channels
        if not isinstance(config, Mapping):
            raise BadData("the model's preprocessing cannot be read", where=CONFIG, why=f"it holds a JSON {type(config).__name__}, not an object")
        named = _named(config)
        self._name = named.removesuffix("Fast").removesuffix("Pil").removesuffix("ImageProcessor").removesuffix("FeatureExtractor")
        if self._name not in KINDS or channels not in (1, 3):
            why = f"its processor is {named or 'not named'}, for {channels} channels; known are {', '.join(KINDS)}, for 1 or 3"
            raise BadData("images cannot be prepared for this model", where=CONFIG, why=why, remedy="take a model with one of these processors")
        kind = KINDS[self._name]
        try:
            self._size = (
                _sizes(config["size"], square=kind.square, longest=config.get("max_size", 1333 if kind.pads else None))
                if config.get("do_resize", True)
                else {}
            )
            self._crop = _sizes(config["crop_size"], square=True) if config.get("do_center_crop", kind.crops) else None
            self._resample = Image.Resampling(config.get("resample", kind.resample))
            self._crop_share = float(config.get("crop_pct") or 224 / 256)
            if not 0.01 <= self._crop_share <= 1:
                raise ValueError(f"crop_pct is a share: {self._crop_share}")
            self.masked = bool(config.get("do_pad", kind.pads))
            self._padded = _sizes(config["pad_size"], square=True) if self.masked and config.get("pad_size") else None
            self._table = _table(config, channels, normalizes=config.get("do_normalize", kind.normalizes))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            why = f"{type(error).__name__}: {error}"
            raise BadData(
                "the model's preprocessing cannot be read", where=CONFIG, why=why, remedy="take the file that the model came with"
            ) from error
        self.shape = self._fixed()

    @classmethod
    def read(cls, folder: Path) -> Pixels:
        """That of the model in `folder`; the channels stand in its config.json. Raises BadData."""
        try:
            config, model = (json.loads((folder / name).read_bytes()) for name in (CONFIG, "config.json"))
            within = [model, model.get("backbone_config") or {}, model.get("vision_config") or {}]
            channels = next((part["num_channels"] for part in within if "num_channels" in part), 3)
            if isinstance(config, Mapping) and not _named(config):
                config = {**config, "image_processor_type": UNNAMED.get(str(model.get("model_type")))}
        except FileNotFoundError as error:
            why, remedy = f"there is no {Path(str(error.filename)).name}", f"put the model's own {CONFIG} beside its weights"
            raise BadData("the model does not say how its images are prepared", why=why, remedy=remedy) from error
        except (ValueError, AttributeError, TypeError, RecursionError) as error:
            raise BadData("the model's configuration cannot be read", where=CONFIG, why=data.reason(error)) from error
        return cls(config, channels)

    def fitted(self, image: Image.Image) -> Pixels8 | str:
        """The image at the size that the model sees; or why it cannot be brought to it. image: as `opened` gives it."""
        if self._size and (side := self._shorter_before_crop()):
            target = _keeping_ratio(image.height, image.width, side, None)
        else:
            target = self._target(image.height, image.width)
        if not 0 < min(target) <= max(target) <= _MAX_SIDE or math.prod(target) > MAX_PIXELS:
            return f"the image, {image.width} x {image.height}, would become {target[1]} x {target[0]}"
        image = image.convert("L" if self.channels == 1 else "RGB")
        if self._size:
            image = image.resize((target[1], target[0]), self._resample)
        found = np.asarray(image).reshape(*target, self.channels).transpose(2, 0, 1)
        if self._size and self._shorter_before_crop():
            found = _cropped(found, self._size["shortest_edge"], self._size["shortest_edge"])
        if self._crop:
            found = _cropped(found, self._crop["height"], self._crop["width"])
        if self._padded and (found.shape[1] > self._padded["height"] or found.shape[2] > self._padded["width"]):
            return f"the image is larger than the {self._padded['width']} x {self._padded['height']} that the model takes"
        return np.ascontiguousarray(found)

    def batch(self, images: Sequence[Pixels8]) -> dict[str, NDArray[Any]]:
        """pixel_values (images, channels, height, width) float32, smaller images padded at the right and below with zeros.

        For a model that is told of padding also pixel_mask (images, height, width) int64, 1 where there is an image.
        """
        height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
        if self._padded:
            height, width = self._padded["height"], self._padded["width"]
        values = np.zeros((len(images), self.channels, height, width), dtype=np.float32)
        mask = np.zeros((len(images), height, width), dtype=np.int64)
        for place, image in enumerate(images):
            _, high, wide = image.shape
            mask[place, :high, :wide] = 1
            for channel in range(self.channels):
                values[place, channel, :high, :wide] = self._table[channel][image[channel]]
        return {"pixel_values": values, "pixel_mask": mask} if self.masked else {"pixel_values": values}

    def pixels(self, image: Image.Image) -> NDArray[np.float32]:
        """(channels, height, width) of one image. Raises BadData where it cannot be brought to the model's size."""
        found = self.fitted(image)
        if isinstance(found, str):
            raise BadData("an image cannot be used", why=found)
        values: NDArray[np.float32] = self.batch([found])["pixel_values"][0]
        return values

    def _shorter_before_crop(self) -> int | None:
        """ConvNext's processor keeps the edges for itself: below 384 it makes the image larger than asked, and cuts its centre out."""
        side = self._size.get("shortest_edge", _MAX_SIDE)
        return int(side / self._crop_share) if self._name == "ConvNext" and side < 384 else None

    def _target(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) after resizing."""
        size = self._size
        if not size:
            return height, width
        if "height" in size:
            return size["height"], size["width"]
        if "max_height" in size:
            scale = min(size["max_height"] / height, size["max_width"] / width)
            return int(height * scale), int(width * scale)
        if self._name == "ConvNext":
            return size["shortest_edge"], size["shortest_edge"]
        return _keeping_ratio(height, width, size["shortest_edge"], size.get("longest_edge"))

    def _fixed(self) -> tuple[int, int] | None:
        """(height, width) where all images get the same."""
        for size in (self._padded, self._crop, self._size):
            if size and "height" in size:
                return size["height"], size["width"]
        return (self._size["shortest_edge"],) * 2 if self._name == "ConvNext" and self._size else None


def _named(config: Mapping[str, Any]) -> str:
    return str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")


def _identified(value: Any) -> Image.Image | str:
    content, file = (value.get("bytes"), value.get("file")) if isinstance(value, Mapping) else (value, None)
    if content is None and file is None:
        return "the image is missing" if not (isinstance(value, Mapping) and value.get("path")) else "the image's file is not in the data set"
    if content is not None and not isinstance(content, bytes):
        return f"the image is of type {type(content).__name__}, not bytes"
    source: IO[bytes]
    if content is not None:
        source = io.BytesIO(content)
    else:
        # Not through a link: what is in an artifact was a plain file when it was sealed.
        with files.failures(Path(str(file))):
            source = open(str(file), "rb", opener=_open_plain)  # noqa: SIM115  # the image keeps it
    try:
        Image.init()  # `formats` names only what is loaded
        image = Image.open(source, formats=FORMATS)
        if image.width * image.height <= MAX_PIXELS:
            return image
        why = f"the image has {image.width} x {image.height} pixels, more than {MAX_PIXELS}"
    except Image.DecompressionBombError:
        why = f"the image has far more than {MAX_PIXELS} pixels"
    except UnidentifiedImageError:
        why = f"the file is no image of a kind that is read here ({', '.join(FORMATS)})" if source.seek(0, os.SEEK_END) else "the image is empty"
    except _BROKEN as error:
        why = f"the image cannot be read ({data.reason(error)})"
    source.close()
    return why


def _open_plain(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)


def _flat(image: Image.Image, *, wide: bool) -> Image.Image:
    """The image with 8 bits for each of one or three channels, on white where it is transparent. wide: 32 bits are what Pillow keeps 16 in."""
    if image.mode.startswith("I;16") or (image.mode == "I" and wide):
        # By hand: Pillow would cut off what is above 255.
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    if image.mode in {"I", "F"}:
        raise ValueError("pixels of 32 bits have no agreed range")
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("L" if image.mode in {"1", "L"} else "RGB")


def _sizes(written: Any, *, square: bool, longest: Any = None) -> dict[str, int]:
    """A size as transformers writes it, whole numbers in one of its forms; older files have one number."""
    if isinstance(written, int):
        written = {"height": written, "width": written} if square else {"shortest_edge": written, "longest_edge": longest}
    found = {name: int(side) for name, side in written.items() if side is not None}
    if sorted(found) not in (["height", "width"], ["shortest_edge"], ["longest_edge", "shortest_edge"], ["max_height", "max_width"]):
        raise ValueError(f"no size: {written}")
    if not all(0 < side <= _MAX_SIDE for side in found.values()):
        raise ValueError(f"sides are 1 to {_MAX_SIDE}: {written}")
    return found


def _table(config: Mapping[str, Any], channels: int, *, normalizes: bool) -> NDArray[np.float32]:
    """(channels, 256): what each byte becomes, by the very operations and types that transformers has for arrays."""
    values = np.arange(256, dtype=np.uint8)
    scaled = (values * np.float64(config.get("rescale_factor", 1 / 255))).astype(np.float32) if config.get("do_rescale", True) else values
    scaled = np.broadcast_to(scaled.astype(np.float32), (channels, 256))
    if not normalizes:
        return np.array(scaled)
    mean, std = (np.array(config[name], dtype=np.float32) for name in ("image_mean", "image_std"))
    for given in (mean, std):
        if given.shape not in {(), (channels,)} or not np.isfinite(given).all():
            raise ValueError(f"image_mean and image_std are for {given.size} channels, the model has {channels}")
    if not std.all():
        raise ValueError("image_std holds a zero")
    return np.array((scaled - mean.reshape(-1, 1)) / std.reshape(-1, 1), dtype=np.float32)


def _keeping_ratio(height: int, width: int, shorter: int, longest: int | None) -> tuple[int, int]:
    """(height, width) with the shorter side as asked, or less where the longer one would exceed `longest`; fractions are cut off."""
    low, high = min(height, width), max(height, width)
    exact: float = shorter
    if longest is not None and high / low * shorter > longest:
        exact = longest * low / high
        shorter = round(exact)
    if longest is not None and low == shorter:
        return height, width
    longer = int(exact * high / low)
    return (longer, shorter) if width <= height else (shorter, longer)


def _cropped(image: Pixels8, height: int, width: int) -> Pixels8:
    """The centre of the image; black around it where it is smaller."""
    out = np.zeros((image.shape[0], height, width), dtype=np.uint8)
    rows, columns = (_centre(of, wanted) for of, wanted in zip(image.shape[1:], (height, width), strict=True))
    out[:, rows[1], columns[1]] = image[:, rows[0], columns[0]]
    return out


def _centre(length: int, wanted: int) -> tuple[slice, slice]:
    """(what of an axis is taken, where it lands); the odd pixel is lost at the end, or is put before."""
    if length >= wanted:
        start = (length - wanted) // 2
        return slice(start, start + wanted), slice(0, wanted)
    start = -(-(wanted - length) // 2)
    return slice(0, length), slice(start, start + length)
