"""A photo of one's own as pixels, whatever kind of file it is.

Training and evaluation read COCO's images as they are stored (:mod:`yolopose.data.coco`); here a photo is turned
upright, and anything that Pillow opens is made 8-bit RGB. ``export/standalone.py``, which imports nothing of this
project, has copies of :func:`rgb_pixels` and :func:`to_rgb`; a test holds them to the same text.
"""

import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from yolopose.utils.errors import StudyError

ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"}  # the photos of a folder


def rgb_pixels(path: Path | str) -> np.ndarray:
    """The picture in a file, upright by its EXIF entry, as (H, W, 3) uint8 RGB; of several frames the first. A
    ValueError says why it cannot be read."""
    if not os.path.isfile(path):  # a pipe would be waited for
        raise ValueError("is no file" if os.path.exists(path) else "no such file")
    start = b""
    try:
        with open(path, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of many pixels; Pillow refuses twice as many
            start = file.read(12)
            source = Image.open(file)
            pixels = to_rgb(ImageOps.exif_transpose(source), source.format or "")
    except Image.DecompressionBombError:
        raise ValueError(f"has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels; make it smaller") from None
    except MemoryError:
        raise ValueError("does not fit into memory; make it smaller") from None
    except Exception as error:  # at damaged files Pillow's readers raise almost anything
        said = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0][:200]
        if isinstance(error, UnidentifiedImageError):
            said = ("it is empty" if not start else "a HEIC photo or a video, for which Pillow has no reader"
                    if start[4:8] == b"ftyp" else "of no kind that Pillow knows")
        raise ValueError(f"cannot be read as an image ({said}); give a JPEG or PNG file") from error
    if not pixels.size:
        raise ValueError("has no pixels; give a JPEG or PNG file")
    return pixels


def to_rgb(image: Image.Image, kind: str) -> np.ndarray:
    """Pixels of an opened image of Pillow's format ``kind``: 16-bit grey is scaled by its full range, other grey
    numbers (32-bit, float) from the least to the greatest finite one; what is transparent lies on white."""
    if image.mode[0] in "IF":  # "I;16", "I;16B", "I" and "F": one band of numbers
        grey = np.asarray(image).astype(np.float64)
        known = grey[np.isfinite(grey)]
        low, high = (known.min(), known.max()) if known.size else (0.0, 1.0)
        if ";" in image.mode or (image.mode == "I" and kind in ("PNG", "PPM")):
            low, high = 0.0, 65535.0
        grey = np.nan_to_num(grey, nan=low, posinf=high, neginf=low).clip(low, high) - low
        image = Image.fromarray(np.rint(grey * (255 / ((high - low) or 1))).astype(np.uint8))
    elif image.mode[-1] in "Aa" or "transparency" in image.info:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return np.asarray(image.convert("RGB"))


def read_photo(path: Path | str) -> np.ndarray:
    """:func:`rgb_pixels` of a photo that the user named; a StudyError says what is wrong with it."""
    try:
        return rgb_pixels(path)
    except ValueError as error:
        hint = "; a relative path counts from the repository's root" if str(error) == "no such file" else ""
        raise StudyError(f"PHOTO={path}: {error}{hint}") from None


def photos_at(path: Path | str) -> list[Path]:
    """The photo at a path, or those of the folder there, by name; a StudyError where it has none."""
    path = Path(path)
    if not path.is_dir():
        return [path]
    try:
        found = sorted(one for one in path.iterdir() if one.suffix.lower() in ENDINGS and one.name[0] != ".")
    except OSError as error:
        raise StudyError(f"PHOTO={path}: cannot be listed ({error.strerror})") from None
    if not found:
        raise StudyError(f"PHOTO={path}: this folder has no photo ({', '.join(sorted(ENDINGS))})")
    return found
