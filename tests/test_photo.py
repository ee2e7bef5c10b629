"""Photos of one's own: any kind of file is read as it looks or refused in a line; people are drawn and written down."""

import inspect
import io
import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.lively import SHALLOW, lively_model, pretend_trained
from yolopose.data import photo as reading
from yolopose.data.photo import photos_at, read_photo, rgb_pixels
from yolopose.display import photo
from yolopose.evaluation.evaluate import Predictor
from yolopose.evaluation.predictions import as_coco_results
from yolopose.export import standalone
from yolopose.study.config import load_study
from yolopose.utils.errors import StudyError
from yolopose.utils.files import file_sha256
from yolopose.workflow.clean import results_inside

RAMP = np.linspace(0, 1, 64).reshape(1, 64).repeat(32, 0)  # black on the left, white on the right


def turned(path: Path) -> None:
    image = Image.new("RGB", (40, 20), "red")
    exif = image.getexif()
    exif[0x0112] = 6  # turned by 90 degrees
    image.save(path, exif=exif)


def frames(path: Path) -> None:
    first, second = Image.new("RGB", (8, 6), "red"), Image.new("RGB", (8, 6), "blue")
    first.save(path, save_all=True, append_images=[second], lossless=True)


def test_standalone_reads_photos_by_the_same_code():
    for name in ("rgb_pixels", "to_rgb"):
        assert inspect.getsource(getattr(standalone, name)) == inspect.getsource(getattr(reading, name))
    assert standalone.ENDINGS == reading.ENDINGS


@pytest.mark.parametrize(("kind", "values", "name"), [
    ("8 bits", np.rint(255 * RAMP).astype(np.uint8), "a.png"),
    ("16 bits", np.rint(65535 * RAMP).astype(np.uint16), "a.png"),
    ("16 bits", np.rint(65535 * RAMP).astype(np.uint16), "a.tif"),
    ("16 bits", np.rint(65535 * RAMP).astype(">u2"), "a.tif"),
    ("32 bits", np.rint(1e9 * RAMP).astype(np.int32), "a.tif"),
    ("float in 0 to 1", RAMP.astype(np.float32), "a.tif"),
    ("float, negative and large", (-3e4 + 1e5 * RAMP).astype(np.float32), "a.tif")], ids=str)
def test_grey_pictures_of_any_depth_keep_their_range(tmp_path, kind, values, name):
    Image.fromarray(values).save(tmp_path / name)
    found = rgb_pixels(tmp_path / name)
    assert found.shape == (32, 64, 3) and found.dtype == np.uint8
    np.testing.assert_allclose(found[..., 0], 255 * RAMP, atol=0.51)
    assert (found == found[..., :1]).all()


def test_a_dark_16_bit_picture_stays_dark_and_floats_that_are_not_numbers_do_no_harm(tmp_path):
    Image.fromarray(np.full((4, 4), 6554, np.uint16)).save(tmp_path / "dark.png")
    assert (rgb_pixels(tmp_path / "dark.png") == 26).all()
    values = RAMP.astype(np.float32)
    values[0, :3] = np.nan, np.inf, -np.inf
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert rgb_pixels(tmp_path / "a.tif")[0, :3, 0].tolist() == [0, 255, 0]
    for constant in (np.nan, 7.0):
        Image.fromarray(np.full((4, 4), constant, np.float32)).save(tmp_path / "b.tif")
        assert (rgb_pixels(tmp_path / "b.tif") == 0).all()


def test_8_bit_pictures_keep_their_pixels_and_what_is_transparent_is_white(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    for name in ("a.png", "a.bmp", "a.tif", "a.jpg"):
        Image.fromarray(pixels).save(tmp_path / name)
        wanted = np.asarray(Image.open(tmp_path / name).convert("RGB"))
        assert np.array_equal(rgb_pixels(tmp_path / name), wanted)
    opaque = Image.fromarray(pixels).convert("RGBA")
    opaque.save(tmp_path / "a.png")
    assert np.array_equal(rgb_pixels(tmp_path / "a.png"), pixels)
    for mode in ("RGBA", "LA"):
        Image.new(mode, (4, 4)).save(tmp_path / "a.png")
        assert (rgb_pixels(tmp_path / "a.png") == 255).all(), mode
    palette = Image.fromarray(pixels).convert("P")
    palette.save(tmp_path / "a.png")
    assert np.array_equal(rgb_pixels(tmp_path / "a.png"), np.asarray(palette.convert("RGB")))
    palette.save(tmp_path / "b.png", transparency=int(np.asarray(palette)[0, 0]))
    assert (rgb_pixels(tmp_path / "b.png")[0, 0] == 255).all()
    cmyk = Image.fromarray(pixels).convert("CMYK")
    cmyk.save(tmp_path / "cmyk.tif")
    assert np.array_equal(rgb_pixels(tmp_path / "cmyk.tif"), np.asarray(cmyk.convert("RGB")))
    Image.new("1", (4, 4), 1).save(tmp_path / "bits.png")
    assert (rgb_pixels(tmp_path / "bits.png") == 255).all()


def test_a_photo_is_turned_upright_and_of_several_frames_the_first_is_taken(tmp_path):
    turned(tmp_path / "me.jpg")
    assert rgb_pixels(tmp_path / "me.jpg").shape == (40, 20, 3)
    for name in ("a.gif", "a.webp", "a.tif", "a.png"):
        frames(tmp_path / name)
        assert (rgb_pixels(tmp_path / name) == (255, 0, 0)).all(), name


def png_of(width: int, height: int) -> bytes:
    """A PNG that says it has so many pixels and has none."""
    chunks = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT"
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks)


def cut_jpeg() -> bytes:
    Image.effect_noise((200, 200), 90).save(buffer := io.BytesIO(), "jpeg")
    return buffer.getvalue()[:2000]


@pytest.mark.parametrize(("content", "reason"), [
    (b"", "it is empty"), (b"no picture", "of no kind that Pillow knows"), (b"\x89PNG\r\n\x1a\n\0\0", "of no kind"),
    (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC photo or a video"), (png_of(40_000, 40_000), "has more than 178,"),
    (png_of(9, 9), "cannot be read as an image"), (cut_jpeg(), "image file is truncated")], ids=range(7))
def test_a_bad_photo_is_one_line(tmp_path, content, reason):
    (path := tmp_path / "me.jpg").write_bytes(content)
    with pytest.raises(StudyError) as caught:
        read_photo(path)
    assert str(caught.value).startswith(f"PHOTO={path}: ") and reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_file_is_one_line_and_no_pipe_is_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "empty").mkdir()
    for name, reason in (("absent.jpg", "no such file; a relative path counts"), ("pipe.jpg", "is no file"),
                         ("empty", "is no file"), ("a\0b.jpg", "no such file")):
        with pytest.raises(StudyError, match=reason):
            read_photo(tmp_path / name)
    with pytest.raises(StudyError, match="this folder has no photo"):
        photos_at(tmp_path / "empty")


def test_a_photo_that_may_not_be_read_is_one_line(tmp_path, monkeypatch):
    turned(path := tmp_path / "me.jpg")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)  # as root every file can be read
    with pytest.raises(StudyError, match=r"cannot be read as an image \(Permission denied\)"):
        read_photo(path)


@pytest.fixture
def results(tmp_path, tiny_data) -> Path:
    """A results folder with weights of s6 and of a person detector that nobody trained; beside it, photos."""
    study = load_study("smoke", results=tmp_path / "smoke")
    for name in ("s6", "s6_person"):
        pretend_trained(study, tiny_data, name, lively_model(**SHALLOW) if name == "s6" else None)
    (tmp_path / "photos").mkdir()
    for name, shape in (("b.png", (60, 150, 3)), ("a.jpg", (90, 70, 3)), ("b.jpg", (128, 128, 3))):
        pixels = np.random.default_rng(3).integers(0, 256, shape, np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / name)
    return study.results_dir


def predict(*words: object) -> int:
    return photo.main([str(word) for word in words])


def test_a_folder_of_photos_is_drawn_and_written_down_whatever_else_lies_there(results, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "bad.jpg").write_bytes(b"no picture")
    folder = results / "photos" / "s6-seed0"
    folder.mkdir(parents=True)
    (folder / "a.jpg").write_text("a user's own")
    (tmp_path / "photos" / "notes.txt").write_text("no photo")
    assert predict("--photo", "photos", "--results", results, "--confidence", "0.5") == 2
    out, err = capsys.readouterr()
    assert err.startswith("error: 1 of 4 photos could not be read:\nPHOTO=photos/bad.jpg: ") and err.count("\n") == 2
    assert out.startswith("model: smoke/s6/seed0; results: smoke/photos/s6-seed0\n") and "learned from drawn" in out
    written = ["a-2.jpg", "a-2.json", "a.jpg", "b-2.jpg", "b-2.json", "b.jpg", "b.json"]
    assert sorted(path.name for path in folder.iterdir()) == written
    assert (folder / "a.jpg").read_text() == "a user's own"
    record = json.loads((folder / "b-2.json").read_text())  # b.jpg came first
    assert record["photo"] == str(tmp_path / "photos" / "b.png") and (record["width"], record["height"]) == (150, 60)
    assert record["run"] == "smoke/s6/seed0" and record["confidence"] == 0.5
    assert record["weights_sha256"] == file_sha256(results / "s6" / "seed0" / "weights.pt")
    assert f"b.png: {len(record['people'])} people ({record['people'][0]['score']:.2f} " in out
    pixels = read_photo(tmp_path / "photos" / "b.png")
    poses = Predictor.load(results / "s6" / "seed0" / "weights.pt").predict(pixels, 0.5)
    assert record["people"] == as_coco_results(poses, 3, 1) and len(poses) > 2
    with Image.open(folder / "b-2.jpg") as drawn:
        assert drawn.size[0] == 800  # enlarged, to be readable
    # The same again replaces its own files and makes no others.
    assert predict("--photo", "photos", "--results", results, "--confidence", "1") == 2
    assert sorted(path.name for path in folder.iterdir()) == written
    assert json.loads((folder / "b-2.json").read_text())["people"] == []
    assert "Nobody was found in 3 of 4" in capsys.readouterr().out
    assert folder in results_inside(results), "make clean knows the folder"


def test_the_first_trained_pose_model_is_taken_and_never_writes_into_a_committed_folder(results, tmp_path, monkeypatch):
    for run in ("m6/seed0", "s6/seed10", "s6/seed2", "unknown/seed0"):
        (results / run).mkdir(parents=True)
        (results / run / "weights.pt").touch()
    assert [str(run.relative_to(results)) for run in photo.trained_runs(results)] == [
        "s6/seed0", "s6/seed2", "s6/seed10", "m6/seed0"]
    assert photo.choose_run(results) == photo.choose_run(results, "s6/seed0") == results / "s6" / "seed0"
    monkeypatch.setattr(photo, "REPO", tmp_path)
    monkeypatch.chdir(tmp_path)
    kept = tmp_path / "results" / "reference" / "mini"
    (kept / "s6" / "seed0").mkdir(parents=True)
    (kept / "s6" / "seed0" / "run.json").write_text("{}")
    assert photo.output_folder(kept, kept / "s6" / "seed0") == Path("results/mini/photos/s6-seed0")
    plain = tmp_path / "data" / "checkpoints" / "s6_960"  # weights without a run's record
    assert photo.output_folder(results, plain) == Path("smoke/photos/checkpoints-s6_960")


def test_what_is_missing_is_said_with_what_to_do(results, tmp_path, capsys, monkeypatch):
    me = tmp_path / "photos" / "a.jpg"
    monkeypatch.setattr(photo, "REPO", tmp_path)
    for words, message in (
            ((), "PHOTO is missing: give a photo or a folder of photos"),
            (("--photo", me, "--results", tmp_path / "none", "--profile", "mini"), "no model is trained there yet"),
            (("--photo", me, "--results", results, "--run", "s7/seed0"), "RUN=s7/seed0: holds no weights.pt"),
            (("--photo", me, "--results", results, "--run", results / "s6_person" / "seed0"), "is a person detector"),
            (("--photo", me, "--results", results, "--confidence", "2"), "must be between 0 and 1"),
            (("--photo", tmp_path / "absent.jpg", "--results", results), "absent.jpg: no such file"),
            (("--photo", me, "--profile", "nini"), "PROFILE='nini' does not exist")):
        assert predict(*words) == 2
        printed = capsys.readouterr().err
        assert printed.startswith("error: ") and message in printed and "Traceback" not in printed, printed
    (tmp_path / "results").mkdir()
    results.rename(tmp_path / "results" / "smoke")
    with pytest.raises(StudyError) as caught:
        photo.choose_run(tmp_path / "mini")
    assert "make reproduce PROFILE=mini (about 50 minutes" in str(caught.value)
    assert "results/smoke/s6/seed0 PHOTO=" in str(caught.value)


@pytest.mark.parametrize("size", [(1, 1), (5000, 1), (1, 5000), (1600, 900)], ids=str)
def test_a_photo_of_any_shape_is_drawn(results, tmp_path, size):
    Image.new("RGB", size).save(tmp_path / "me.png")
    assert predict("--photo", tmp_path / "me.png", "--results", results, "--confidence", "1") == 0
    with Image.open(results / "photos" / "s6-seed0" / "me.jpg") as drawn:
        assert 350 <= drawn.width <= 3200 and 100 <= drawn.height <= 3700
        assert size != (1600, 900) or drawn.width == 1600, "as many pixels as the photo has"


def test_a_photo_whose_name_is_no_text(results, tmp_path):
    (name := os.fsencode(tmp_path) + b"/caf\xe9.jpg")
    os.rename(tmp_path / "photos" / "a.jpg", name)
    assert predict("--photo", os.fsdecode(name), "--results", results, "--confidence", "1") == 0
    folder = results / "photos" / "s6-seed0"
    assert sorted(path.name for path in folder.iterdir()) == ["caf\ufffd.jpg", "caf\ufffd.json"]
