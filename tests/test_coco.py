"""Reading and checking the COCO keypoint layout."""

import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.coco_folder import CATEGORY, NAMES, draw, make_folder
from yolopose.data.coco import load_dataset
from yolopose.data.schema import KeypointSchema
from yolopose.utils.errors import StudyError

COCO_FLIP = [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]  # reference §5


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    return make_folder(tmp_path_factory.mktemp("pristine") / "tiny", test_dev=True)


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(pristine, tmp_path / "tiny"))


def edit(folder: Path, change: Callable[[dict[str, Any]], Any], split: str = "train"):
    path = folder / "annotations" / f"person_keypoints_{split}2017.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_schema_follows_the_category():
    schema = KeypointSchema.from_category(CATEGORY)
    assert schema.names == tuple(NAMES) and len(schema) == 3
    assert schema.flip_indices.tolist() == [0, 2, 1] and schema.skeleton == ((0, 1), (0, 2))
    assert schema.sigmas.tolist() == [0.026, 0.025, 0.025]  # COCO's, by name
    assert KeypointSchema.from_dict(json.loads(json.dumps(schema.as_dict()))).as_dict() == schema.as_dict()
    dog = {"id": 3, "name": "dog", "keypoints": ["left_paw", "tail"], "sigmas": [0.1, 0.2]}
    schema = KeypointSchema.from_category(dog)
    assert schema.flip_indices.tolist() == [0, 1]  # a left joint without a right one stays itself
    assert schema.skeleton == () and schema.category_id == 3 and schema.sigmas.tolist() == [0.1, 0.2]


@pytest.mark.parametrize(("change", "said"), [
    ({"keypoints": ["nose", "tail"], "skeleton": []}, "no OKS sigma is known for tail"),
    ({"keypoints": ["nose", "nose"]}, "nose listed twice"),
    ({"keypoints": []}, "must list the keypoints' names"),
    ({"sigmas": [0.1]}, "must list 3 numbers"),
    ({"sigmas": [0.1, 0.0, 0.1]}, "positive"),
    ({"sigmas": [0.1, float("nan"), 0.1]}, "must list 3 numbers"),
    ({"sigmas": [0.1, 1e-300, 0.1]}, "from 0.0001 to 1"),
    ({"sigmas": "0.1"}, "must list 3 numbers"),
    ({"skeleton": [[1, True]]}, r"skeleton\[0\]: is not a pair"),
    ({"skeleton": 5}, "is 5, must be a list of pairs"),
    ({"keypoints": 5}, "must list the keypoints' names"),
    ({"keypoints": ["nose", "left\0", "\ud800"]}, "must list the keypoints' names"),
    ({"keypoints": [f"n{n}" for n in range(10**5)]}, "must list the keypoints' names"),
    ({"id": 2**64}, r"\.id: must be a whole number"),
    ({"skeleton": [[1, 4]]}, "joint numbers between 1 and 3"),
])
def test_schema_says_what_is_wrong(change: dict[str, Any], said: str):
    with pytest.raises(StudyError, match=said) as caught:
        KeypointSchema.from_category({**CATEGORY, **change}, "some.json")
    assert "some.json" in str(caught.value)


def test_splits_hold_what_the_paper_uses_and_subsets_keep_labels_with_their_images(pristine: Path):
    data = load_dataset(pristine)
    # Train: images 1, 2, 4, 5 have labelled persons; 3 and 6 have a person without keypoints and a crowd.
    assert data.train.image_ids() == [1, 2, 4, 5] and len(data.train) == 4
    assert data.val.image_ids() == [1, 2, 3, 4, 5, 6] and data.val.with_keypoints() == [0, 1, 3, 4]
    assert data.train.annotations is None and len(data.val.annotations["annotations"]) == 12
    assert data.val.counts == {"images_in_file": 6, "images": 6, "images_with_keypoints": 4, "persons": 10,
                               "crowd_regions": 2, "persons_with_keypoints": 8}
    np.testing.assert_allclose(data.train.boxes_xyxy(0), [[10, 20, 70, 100], [50.5, 50.25, 90.5, 110.25]])
    assert data.train.keypoints(0).tolist()[1] == [[70, 60, 2], [0, 0, 0], [65, 90, 1]]
    assert data.val.boxes_xyxy(2).shape == (0, 4) and data.val.keypoints(2).shape == (0, 3, 3)
    assert data.test_dev is not None and len(data.test_dev) == 6 and data.test_dev.annotations is None
    assert data.test_dev_annotations is None and not data.is_coco2017 and data.name == "tiny"
    assert data.val.load_image(1).shape == (128, 97, 3)
    assert data.train.load_image(0)[30, 40].tolist() == [255, 0, 0], "RGB"
    part = data.val.subset([4, 2, 0])
    assert part.image_ids() == [5, 3, 1] and part.with_keypoints() == [0, 2]
    for i, j in enumerate([4, 2, 0]):
        np.testing.assert_array_equal(part.keypoints(i), data.val.keypoints(j))
        np.testing.assert_array_equal(part.boxes_xyxy(i), data.val.boxes_xyxy(j))
    assert len(part.annotations["annotations"]) == 6


def test_limits_take_the_first_images_by_id(folder: Path):
    edit(folder, lambda d: d["images"].reverse(), "val")
    data = load_dataset(folder, {"train": 3, "val": 2, "test_dev": 1})
    assert data.train.image_ids() == [1, 2, 4] and data.val.image_ids() == [1, 2]
    assert {a["image_id"] for a in data.val.annotations["annotations"]} == {1, 2}
    assert data.test_dev.image_ids() == [1]
    shutil.rmtree(folder / "test2017")  # COCO's annotation archive brings the list; not everybody has the 6 GB
    assert load_dataset(folder).test_dev is None


def test_missing_counts_are_filled_in_and_a_sub_pixel_overshoot_is_clipped(folder: Path):
    edit(folder, lambda d: [a.pop("num_keypoints") and a.pop("iscrowd") for a in d["annotations"]], "val")
    edit(folder, lambda d: d["annotations"][0].update(bbox=[-0.5, 20, 161, 100.7]))
    data = load_dataset(folder)
    assert [a["num_keypoints"] for a in data.val.annotations["annotations"][:2]] == [3, 2]
    assert data.train.boxes_xyxy(0)[0].tolist() == [0, 20, 160, 120]


def test_fingerprint_follows_content_and_only_synthetic_sets_have_server_annotations(folder: Path):
    first = load_dataset(folder).fingerprint
    assert load_dataset(folder).fingerprint == first
    assert load_dataset(folder, {"train": 2}).fingerprint != first
    edit(folder, lambda d: d["annotations"][0].update(area=1.0))
    assert load_dataset(folder).fingerprint != first
    (folder / "server").mkdir()  # whose annotations are for synthetic sets only
    shutil.copy(folder / "annotations" / "person_keypoints_val2017.json",
                folder / "server" / "person_keypoints_test-dev2017.json")
    assert load_dataset(folder).test_dev_annotations is None
    (folder / "dataset.json").write_text("{}")
    assert len(load_dataset(folder, {"test_dev": 2}).test_dev_annotations["annotations"]) == 4


def _cut(path: Path, size: int):
    path.write_bytes(path.read_bytes()[:size])


def _png_header(width: int, height: int) -> bytes:
    """A PNG that is sound as far as its size."""
    head = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", head), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")))


LARGE = _png_header(40_000, 40_000)


def _first(section: str, without: str = "", **change: Any) -> Callable[[Path], None]:
    """Changes of the first entry of a list, and the key that it loses."""
    return lambda folder: edit(folder, lambda d: d[section][0].update(change) or d[section][0].pop(without, None))


IMAGE, TRAIN = "train2017/000000000001.png", "annotations/person_keypoints_train2017.json"


@pytest.mark.parametrize(("what", "damage", "said"), [
    ("nothing", shutil.rmtree, ["tiny: no such folder"]),
    ("no annotation file", lambda f: (f / TRAIN).unlink(), ["train2017.json", "not found"]),
    ("not JSON", lambda f: _cut(f / TRAIN, 200), ["train2017.json", "is not JSON"]),
    ("a list", lambda f: (f / TRAIN).write_text("[]"), ["lacks the list", "images"]),
    ("no categories", lambda f: edit(f, lambda d: d.pop("categories")), ["lacks the list (categories)"]),
    ("no person category", _first("categories", without="keypoints"), ["0 categories have keypoints"]),
    ("other joints", _first("categories", keypoints=["nose", "left_ear", "right_ear"]), [": keypoints, sigmas of"]),
    ("joint without sigma", _first("categories", keypoints=["nose", "left_eye", "tail"]), ["no OKS sigma", "tail"]),
    ("too few numbers", _first("annotations", keypoints=[1, 2, 2]),
     ["annotations[0].keypoints: is a list, must be 3 × 3 numbers", "(id 10)"]),
    ("wrong count", _first("annotations", num_keypoints=1), ["annotations[0].num_keypoints: disagrees", "(id 10)"]),
    ("wrong flag", _first("annotations", keypoints=[1, 2, 3, 1, 2, 2, 1, 2, 2]), ["visibility flag is not 0, 1 or 2"]),
    ("text among numbers", _first("annotations", keypoints=["a", 2, 2] * 3),
     ["annotations[0].keypoints: is a list, must be 3 × 3 numbers"]),
    ("box outside", _first("annotations", bbox=[100, 20, 80, 80]), ["[0].bbox: reaches out of the image", "(id 10)"]),
    ("flat box", _first("annotations", bbox=[10, 20, 0, 80]), ["[0].bbox: width or height not", "(id 10)"]),
    ("no box", _first("annotations", without="bbox"), ["annotations[0].bbox: is missing"]),
    ("no area", _first("annotations", without="area"), ["annotations[0].area: is missing"]),
    ("area of nothing", _first("annotations", area=0), ["annotations[0].area: not a positive number", "(id 10)"]),
    ("annotation id twice", _first("annotations", id=11), ["annotations[1].id: used more than once", "(id 11)"]),
    ("image id twice", _first("images", id=2), ["images[1].id: used more than once", "(id 2)"]),
    ("unknown image", _first("annotations", image_id=99), ["no such image"]),
    ("no file name", _first("images", without="file_name"), ["images[0].file_name: is missing", "(id 1)"]),
    ("no width", _first("images", width=0), ["images[0].width: is 0, must be a whole number from 1 on"]),
    *((f"file {name!r}", _first("images", file_name=name), ["images[0].file_name: is ", "inside the split's"])
      for name in ("../x.png", "/abs.png", "a/../../b.png", "", "a\0b.png", "\ud800.png", "x" * 501, 7)),
    ("file twice", _first("images", file_name="000000000002.png"), ["images[1].file_name: used more than once"]),
    ("huge image", _first("images", width=10**5, height=10**5), ["images[0].width, height: more than 178,956,970"]),
    *((f"{key} {value}", _first("images", **{key: value}), [f"images[0].{key}: is ", "must be"])
      for key in ("id", "width") for value in (True, 2**64, 1.0, "1", -1)),
    *((f"{key} {value}", _first("annotations", **{key: value}), [f"annotations[0].{key}: is ", "must be"])
      for key, values in {"id": [0, True, 2**63], "image_id": [None, 10**400], "category_id": ["1", [1]],
                          "area": [float("inf"), float("nan"), True, "9", 10**400, -1], "iscrowd": ["0", True, 2, None],
                          "bbox": [[0, 0, 9], [0, 0, True, 9], [0, 0, float("nan"), 9], [10**400, 0, 9, 9], {}],
                          "keypoints": [[True] * 9, [10**400, -10**400, 2] * 3, None]}.items() for value in values),
    ("count in words", _first("annotations", num_keypoints="3"), ["annotations[0].num_keypoints: disagrees"]),
    ("far joint", _first("annotations", keypoints=[1e6, 2, 2] * 3), ["a joint is farther from the image"]),
    ("area of a city", _first("annotations", area=1e9), ["annotations[0].area: more than twice the image's"]),
    ("sliver", _first("annotations", bbox=[100, 20, 1e-30, 80]), ["[0].bbox: width or height not positive"]),
    ("key twice", lambda f: (f / TRAIN).write_text((f / TRAIN).read_text().replace('"area":', '"area": 1, "area":')),
     ["is not JSON (the key 'area' stands twice"]),
    *((f"{key} differ", _first("categories", **{key: value}), ["val2017.json: categories: " + said, "train2017.json's"])
      for key, value, said in (("sigmas", [0.1] * 3, "sigmas"), ("skeleton", [[1, 2]], "skeleton"), ("id", 2, "id"))),
    ("floats", lambda f: Image.fromarray(np.zeros((120, 160), np.float32)).save(f / IMAGE, "TIFF"),
     ["000000000001.png holds numbers of 32 bits"]),
    ("large", lambda f: (f / IMAGE).write_bytes(LARGE), ["000000000001.png has more than 178,956,970 pixels"]),
    ("pipe", lambda f: (f / IMAGE).unlink() or os.mkfifo(f / IMAGE), ["000000000001.png is no file"]),
    ("pipe for a file", lambda f: (f / TRAIN).unlink() or os.mkfifo(f / TRAIN), ["train2017.json: not found"]),
    ("no image folder", lambda f: shutil.rmtree(f / "train2017"), ["train2017: no such folder"]),
    ("missing image", lambda f: (f / IMAGE).unlink(), ["images are missing", "000000000001.png"]),
    ("empty image", lambda f: (f / IMAGE).write_bytes(b""), ["000000000001.png empty"]),
    ("cut image", lambda f: _cut(f / IMAGE, (f / IMAGE).stat().st_size - 20), ["000000000001.png truncated"]),
    ("no image", lambda f: (f / IMAGE).write_bytes(b"hello"), ["000000000001.png unreadable"]),
    ("other size", _first("images", width=161), ["000000000001.png is 160 × 120, stated 161 × 120"]),
    ("test-dev image gone", lambda f: (f / "test2017/000000000002.png").unlink(), ["test2017", "000000000002.png"]),
    ("nobody has keypoints", lambda f: edit(f, lambda d: [
        a.update(keypoints=[0] * 9, num_keypoints=0) for a in d["annotations"]]), ["no person has keypoints"]),
])
def test_bad_data_is_explained(folder: Path, what: str, damage: Callable[[Path], Any], said: list[str]):
    damage(folder)
    with pytest.raises(StudyError) as caught:
        load_dataset(folder)
    for part in (*said, "; "):  # a message ends with its remedy
        assert part in str(caught.value)


def test_one_message_lists_everything(folder: Path):
    edit(folder, lambda d: [a.update(num_keypoints=9) for a in d["annotations"]])
    (folder / "val2017/000000000003.png").unlink()
    with pytest.raises(StudyError) as caught:
        load_dataset(folder)
    message = str(caught.value)
    assert "2 problems" in message and "12 in all" in message and "000000000003.png" in message
    assert message.count("\n  - ") == 2


@pytest.mark.parametrize(("damage", "said"), [
    (lambda p: p.unlink(), "cannot be read"),
    (lambda p: p.write_bytes(b""), "empty"),
    (lambda p: _cut(p, -20), "truncated"),
    (lambda p: _cut(p, p.stat().st_size // 2), "JPEG"),
    (lambda p: p.write_bytes(b"hello"), "is not an image"),
    (lambda p: Image.fromarray(np.zeros((120, 160), np.float32)).save(p, "TIFF"), "8 or 16 bits a colour"),
    (lambda p: p.write_bytes(LARGE), "is not an image"),
    (lambda p: cv2.imwrite(str(p), np.zeros((10, 20, 3), np.uint8)), "is 20 × 10 px"),
])
def test_images_that_break_after_loading(folder: Path, damage: Callable[[Path], Any], said: str):
    train, path = load_dataset(folder).train, folder / IMAGE
    if said == "JPEG":  # which OpenCV would decode without an error, its lower part grey
        noise = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
        path.write_bytes(cv2.imencode(".jpg", noise)[1].tobytes())
        assert train.load_image(0).shape == (120, 160, 3)
        said = "truncated"
    damage(path)
    with pytest.raises(StudyError, match=said) as caught:
        train.load_image(0)
    assert "000000000001.png" in str(caught.value)


def _plane(top: int) -> np.ndarray:
    return np.tile(np.linspace(0, top, 160), (120, 1))


@pytest.mark.parametrize(("make", "kind"), [
    (lambda: Image.fromarray(_plane(65535).astype(np.uint16)), "PNG"),
    (lambda: Image.fromarray(_plane(65535).astype(np.uint16)), "TIFF"),
    (lambda: Image.fromarray(_plane(255).astype(np.uint8)).convert("RGB").convert("CMYK"), "JPEG"),
    (lambda: Image.fromarray(_plane(255).astype(np.uint8)).convert("LA"), "PNG"),
    (lambda: Image.fromarray(_plane(255).astype(np.uint8)).convert("P"), "GIF"),
])
def test_other_kinds_of_images_keep_their_brightness(folder: Path, make: Callable[[], Image.Image], kind: str):
    make().save(folder / IMAGE, kind)
    pixels = load_dataset(folder).train.load_image(0)
    assert pixels.dtype == np.uint8 and np.abs(pixels - _plane(255)[:, :, None]).max() <= 3


def test_images_turned_by_exif_are_read_as_they_are_stored(folder: Path):
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(_plane(255).astype(np.uint8)).save(folder / IMAGE, "JPEG", exif=turned)
    assert load_dataset(folder).train.load_image(0).shape == (120, 160, 3)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("reduce", [1, 2, 4, 8])
def test_reduced_decoding_covers_the_whole_image(folder: Path, suffix: str, reduce: int):
    """Sizes that are no multiples of 8: the reduced image is the full one averaged, up to its last partial pixel."""
    train = load_dataset(folder).train
    image = cv2.GaussianBlur(draw(97, 128, [{"keypoints": [40, 30, 2, 60, 90, 2, 20, 100, 2]}]), (0, 0), 8)
    (folder / "train2017/000000000002.png").write_bytes(cv2.imencode(suffix, image[:, :, ::-1])[1].tobytes())
    small = train.store.load_image(1, reduce)
    height, width = 128 // reduce, 97 // reduce
    assert small.shape[0] in (height, height + 1) and small.shape[1] in (width, width + 1)
    expected = image[:height * reduce, :width * reduce].reshape(height, reduce, width, reduce, 3).mean((1, 3))
    assert np.abs(small[:height, :width] - expected).max() < 12


def test_real_coco_images_have_the_counts_of_their_source_file(shared: Path):
    data = load_dataset(shared / "data" / "coco-real")
    assert len(data.schema) == 17 and data.schema.flip_indices.tolist() == COCO_FLIP
    counts = data.train.counts
    assert (len(data.train), counts["persons_with_keypoints"], counts["images_in_file"]) == (83, 224, 161)
    assert (len(data.val), len(data.val.with_keypoints()), data.val.counts["persons_with_keypoints"]) == (133, 80, 258)
    assert data.test_dev is None and not data.is_coco2017
    for i in range(0, len(data.val), 10):
        box = data.val.boxes_xyxy(i)
        height, width = data.val.load_image(i).shape[:2]
        assert (box >= 0).all() and (box[:, 2] <= width).all() and (box[:, 3] <= height).all()
