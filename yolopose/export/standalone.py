"""Run an exported pose model on photos with onnxruntime, numpy and Pillow alone.

    python standalone.py model.onnx photo.jpg out.png
    python standalone.py model.onnx folder-of-photos folder-of-drawings

Prints the people of each photo and writes the photo with their boxes and skeletons. This file imports nothing of the
project that it comes from: copied beside a model, it runs anywhere. All that it has to know of the model, it reads from
the model's metadata.

The letterbox is the evaluation's to within one grey level: it shrinks by pixel area, as OpenCV's INTER_AREA does
(Pillow's own BOX filter takes whole pixels and shifts edges by up to half of one), and enlarges bilinearly by Pillow.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:
    import numpy as np
    import onnxruntime
    from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError
except ImportError as missing:
    sys.exit(f"error: {missing.name} is not installed; pip install onnxruntime numpy pillow")

FORMAT = "yolopose-onnx-1"  # changes with what the file takes, gives or says of itself
BATCH = 8
DRAWN_PX = 480  # a drawing's longer side is at least this, so that small photos can be read
VISIBLE = 0.5  # keypoints of less confidence are drawn hollow
LEAST = 0.05  # and of less than this, not at all
LEFT, RIGHT, MIDDLE, BOX, EDGE = "#E69F00", "#56B4E9", "#FFFFFF", "#009E73", "#1A1A1A"
ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
LARGEST = 8192  # px: side of the largest square that is tried
OUTPUTS = {"image_index": (), "boxes_xyxy": (4,), "scores": (), "keypoints": ("K", 3)}  # and shape of each person's
THRESHOLDS = {  # inputs of the file that have defaults there: type, smallest and largest value, meaning
    "confidence": (float, 0, 1, "smallest score of a person (default: the file's)"),
    "nms_iou": (float, 0, 1, "overlap above which the better of two boxes stays alone"),
    "max_detections": (int, 1, 30_000, "people kept per photo")}


class UserError(Exception):
    """Bad input that the user can mend; printed as one line."""


def first_line(error: Exception) -> str:
    """What went wrong, without the rest of the page that onnx and onnxruntime write about it."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


class Model:
    def __init__(self, path: str, size: int | None = None):
        if not Path(path).is_file():
            raise UserError(f"{path}: no such file; give the .onnx file of an export")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors come as exceptions
        try:
            self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            about: dict[str, str] = self.session.get_modelmeta().custom_metadata_map
        except Exception as error:  # onnxruntime's exceptions have no common class of their own
            raise UserError(f"{path}: is not an ONNX model that this onnxruntime can run "
                            f"({first_line(error)})") from error
        if about.get("format") != FORMAT:
            raise UserError(f"{path}: is an ONNX model without this project's metadata (format is "
                            f"{about.get('format')!r:.60}, not {FORMAT!r}); give a file of yolopose's export_model")
        try:
            self.names, self.skeleton, own, multiple, self.pad_value = read_about(about)
        except ValueError as error:
            raise UserError(f"{path}: its metadata is damaged ({error}); export the model again") from None
        self.path, self.size = path, own if size is None else size  # side of the square input in px
        if not multiple <= self.size <= LARGEST or self.size % multiple:
            word = f"{path}: input_size {own}" if size is None else f"--size {size}"
            raise UserError(f"{word}: must be a multiple of {multiple} px, and at most {LARGEST}")

    def people(self, images: list[np.ndarray], **thresholds: float | None) -> list[dict[str, np.ndarray]]:
        """``boxes_xyxy`` (n, 4), ``scores`` (n,) and ``keypoints`` (n, K, 3) x, y, confidence of the people of each
        (H, W, 3) uint8 RGB image, best first, in px of the image and clipped to it; of ``THRESHOLDS`` the file's
        defaults hold where one is missing or ``None``."""
        squares, places = zip(*(letterbox(image, self.size, self.pad_value) for image in images), strict=True)
        feeds: dict[str, np.ndarray] = {"images": np.stack(squares).transpose(0, 3, 1, 2)}
        feeds |= {name: np.array([value], np.int64 if THRESHOLDS[name][0] is int else np.float32)
                  for name, value in thresholds.items() if value is not None}
        index, boxes, scores, keypoints = self.run(feeds)
        found = []
        for i, (image, (scale, offset)) in enumerate(zip(images, places, strict=True)):
            own, limit = index == i, image.shape[1::-1]
            corners = np.clip((boxes[own].reshape(-1, 2, 2) - offset) / scale, 0, limit)
            poses = keypoints[own].astype(np.float64)
            poses[..., :2] = np.clip((poses[..., :2] - offset) / scale, 0, limit)
            found.append({"boxes_xyxy": corners.reshape(-1, 4), "scores": scores[own], "keypoints": poses})
        return found

    def run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        """The file's ``OUTPUTS``, of the shapes and kinds that they must have, and finite."""
        try:
            found = self.session.run(list(OUTPUTS), feeds)
        except Exception as error:  # onnxruntime's own kinds, as above
            raise UserError(f"{self.path}: cannot be run at {self.size} px ({first_line(error)}); export the model "
                            "again, or give the --size that it was made for") from error
        for (name, shape), values in zip(OUTPUTS.items(), found, strict=True):
            wanted = (*np.shape(found[0])[:1], *(len(self.names) if side == "K" else side for side in shape))
            fault = (f"the shape {np.shape(values)}, not {wanted}" if np.shape(values) != wanted else
                     "other things than numbers" if np.asarray(values).dtype.kind not in "fiu" else
                     "numbers that are not finite" if not np.isfinite(values).all() else "")
            if fault:
                raise UserError(f"{self.path}: its output {name} has {fault}; the model is damaged: export it again")
        return found


def read_about(about: dict[str, str]) -> tuple[list[str], list[list[int]], int, int, int]:
    """Of a file's metadata: the keypoints' names; the skeleton, pairs of indices of the names; the input size in px,
    what must divide it, and the grey of the border. A ValueError names an entry that is missing or something else."""
    found: dict[str, Any] = {}
    for key in ("keypoints", "skeleton", "input_size", "size_multiple", "pad_value"):
        try:
            found[key] = json.loads(about[key])
        except (KeyError, RecursionError, ValueError):
            found[key] = None
    names, skeleton, size, multiple, grey = found.values()
    named = type(names) is list and all(type(name) is str for name in names)
    linked = named and type(skeleton) is list and all(
        type(pair) is list and len(pair) == 2 and all(type(i) is int and 0 <= i < len(names) for i in pair)
        for pair in skeleton)
    good = (named, linked, type(size) is int, type(multiple) is int and multiple > 0,
            type(grey) is int and 0 <= grey <= 255)
    for key, holds in zip(found, good, strict=True):
        if not holds:
            raise ValueError(f"{key} is {about.get(key)!r:.60}")
    return names, skeleton, size, multiple, grey


def letterbox(image: np.ndarray, size: int, pad_value: int = 114) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Fit (H, W, 3) uint8 into a square of ``size`` px on grey: the square, and (scale, offset), (2,) each for x and y:
    letterboxed px = image px · scale + offset."""
    height, width = image.shape[:2]
    gain = size / max(width, height)
    new = (max(int(width * gain), 1), max(int(height * gain), 1))
    if gain < 1:
        image = shrink(shrink(image, new[1], 0), new[0], 1)
        image = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    elif new != (width, height):
        image = np.asarray(Image.fromarray(image).resize(new, Image.Resampling.BILINEAR))
    left, top = (round((size - side) / 2 - 0.1) for side in new)
    square = np.full((size, size, 3), pad_value, np.uint8)
    square[top:top + new[1], left:left + new[0]] = image
    return square, (np.array([new[0] / width, new[1] / height]), np.array([left, top], np.float64))


def shrink(values: np.ndarray, new: int, axis: int) -> np.ndarray:
    """Resample one axis to ``new`` ≤ its length: the mean over the stretch that each new pixel covers, float64."""
    values = np.moveaxis(values, axis, 0)
    old = len(values)
    total = np.cumsum(values, 0, dtype=np.uint32 if values.dtype == np.uint8 else np.float64)
    edges = np.arange(new + 1) * old / new
    whole = np.minimum(edges.astype(int), old - 1)
    before = np.where(whole.reshape(-1, *[1] * (values.ndim - 1)) > 0, total[whole - 1], 0).astype(np.float64)
    integral = before + (edges - whole).reshape(-1, *[1] * (values.ndim - 1)) * values[whole]
    return np.moveaxis(np.diff(integral, axis=0) * (new / old), 0, axis)


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


def draw(image: np.ndarray, people: dict[str, np.ndarray], model: Model) -> Image.Image:
    """The photo with boxes, scores and skeletons: left limbs orange, right ones blue, the middle white; enlarged by a
    whole number where its longer side is under ``DRAWN_PX``."""
    factor = max(1, -(-DRAWN_PX // max(image.shape[:2])))
    picture = Image.fromarray(image.repeat(factor, 0).repeat(factor, 1))
    pen = ImageDraw.Draw(picture)
    line = max(2, round(max(picture.size) / 320))
    font = ImageFont.load_default(size=6 * line)
    sides = [{"left": LEFT, "right": RIGHT}.get(name.split("_")[0], MIDDLE) for name in model.names]
    for box, score, person in zip(people["boxes_xyxy"] * factor, people["scores"], people["keypoints"], strict=True):
        pen.rectangle(box.tolist(), outline=BOX, width=line)
        pen.text((box[0] + line + 1, box[1] + line), f"{score:.2f}", font=font, fill="white",
                 stroke_width=line // 2, stroke_fill=EDGE)
        points = [tuple(point) for point in (person[:, :2] * factor).tolist()]
        for i, j in model.skeleton:
            if min(person[i, 2], person[j, 2]) >= LEAST:
                pen.line([points[i], points[j]], fill=EDGE, width=line + 2)
                pen.line([points[i], points[j]], fill=sides[i] if sides[i] == sides[j] else MIDDLE, width=line)
        for (x, y), confidence, colour in zip(points, person[:, 2], sides, strict=True):
            if confidence >= LEAST:
                r = line + 1
                pen.ellipse((x - r, y - r, x + r, y + r), outline=EDGE, fill=colour if confidence >= VISIBLE else None)
    return picture


def describe(photo: Path, image: np.ndarray, people: dict[str, np.ndarray], names: list[str]) -> Iterator[str]:
    count = len(people["scores"])
    yield f"{photo}: {count or 'no'} {'person' if count == 1 else 'people'} in {image.shape[1]}x{image.shape[0]} px"
    for n, (box, score, person) in enumerate(zip(*people.values(), strict=True), 1):
        yield f"  person {n}: score {score:.3f}, box {' '.join(f'{v:.1f}' for v in box)}"
        yield "    " + ", ".join(f"{k} {x:.1f} {y:.1f} ({c:.2f})" for k, (x, y, c) in zip(names, person, strict=True))


def plan(photo: str, out: str) -> list[tuple[Path, Path]]:
    """(photo, drawing) pairs of the command line's two paths; drawings of a folder are PNG files of the same names."""
    source, target = Path(photo), Path(out)
    pairs = [(source, target)]
    if source.is_dir():
        try:
            photos = sorted(path for path in source.iterdir() if path.suffix.lower() in ENDINGS and path.name[0] != ".")
        except OSError as error:
            raise UserError(f"{photo}: cannot be listed ({error.strerror})") from None
        if not photos:
            raise UserError(f"{photo}: has no photo ({', '.join(sorted(ENDINGS))})")
        stems = [path.stem for path in photos]
        pairs = [(path, target / f"{path.stem if stems.count(path.stem) == 1 else path.name}.png") for path in photos]
    for read, written in pairs:
        if read.resolve() == written.resolve():
            raise UserError(f"{written}: is the photo itself; give another name for the drawing")
        if written.suffix.lower() not in ENDINGS:
            raise UserError(f"{written}: is not the name of a picture; give one that ends in .png or .jpg")
    return pairs


def run(o: argparse.Namespace) -> None:
    thresholds: dict[str, Any] = {name: getattr(o, name) for name in THRESHOLDS}
    for name, value in thresholds.items():
        _, least, most, _ = THRESHOLDS[name]
        if value is not None and not least <= value <= most:
            raise UserError(f"--{name.replace('_', '-')} {value}: must be between {least} and {most}")
    model, pairs, wrong = Model(o.model, o.size), plan(o.photo, o.out), []
    for start in range(0, len(pairs), BATCH):
        read: list[tuple[Path, Path, np.ndarray]] = []
        for photo, out in pairs[start:start + BATCH]:
            try:
                read.append((photo, out, rgb_pixels(photo)))
            except ValueError as error:
                wrong.append(f"{photo}: {error}")
        found = model.people([image for *_, image in read], **thresholds) if read else []
        for (photo, out, image), people in zip(read, found, strict=True):
            print("\n".join(describe(photo, image, people, model.names)))
            try:
                out.parent.mkdir(parents=True, exist_ok=True)
                draw(image, people, model).save(out)
            except OSError as error:
                raise UserError(f"{out}: cannot be written ({error.strerror or error})") from error
    if wrong:  # after the others were drawn
        raise UserError("\n".join([f"{len(wrong)} of {len(pairs)} photos could not be read:", *wrong]
                                  if len(pairs) > 1 else wrong))


def main(words: list[str] | None = None) -> int:
    """0, or 2 and one line on standard error."""
    parser = argparse.ArgumentParser(description="Find people and their poses in photos.")
    parser.add_argument("model", help="exported .onnx file")
    parser.add_argument("photo", help="a photo, or a folder of photos")
    parser.add_argument("out", help="the drawing, or a folder of drawings")
    for name, (kind, _, _, meaning) in THRESHOLDS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help=meaning)
    parser.add_argument("--size", type=int, help="side of the network's square input in px (default: the file's)")
    try:
        run(parser.parse_args(words))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # a photo's name may be no text
    sys.exit(main())
