"""The notebooks' pictures: they are made for any data set, show what they should, and explain bad photos."""

import base64
import io
import re

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from yolopose.display import people, plots
from yolopose.display.tables import table
from yolopose.study.config import load_study
from yolopose.utils.errors import StudyError


def test_contact_sheet_shows_an_even_choice_of_images_with_sides_in_colour_and_is_a_jpeg(tiny_data, monkeypatch):
    assert people.evenly(list(range(100)), 5) == [0, 25, 50, 74, 99]
    assert people.evenly([3, 4], 5) == [3, 4] and people.evenly([], 5) == []
    figure = people.contact_sheet(tiny_data.train, count=4, columns=3)
    assert len(figure.axes) == 4
    lines = figure.axes[0].lines
    joints = [line for line in lines if line.get_marker() == "o"]
    assert len(joints) == 5 and len(lines) - 5 == 2 * 3, "five labelled joints; two limbs and one, each with an edge"
    assert [to_hex(joint.get_color()).upper() for joint in joints[1:3]] == [people.LEFT, people.RIGHT]
    assert [joint.get_fillstyle() for joint in joints[1:3]] == ["none", "full"], "the left eye is labelled but hidden"
    shown = []
    monkeypatch.setattr(people, "display", lambda data, raw: shown.append(data))
    figure._ipython_display_()
    assert list(shown[0]) == ["image/jpeg", "text/plain"]
    assert np.asarray(Image.open(io.BytesIO(base64.b64decode(shown[0]["image/jpeg"])))).std() > 10


def test_augmentations_are_the_samples_that_training_sees(tiny_data):
    run = load_study("smoke", data=tiny_data.train.image_dir.parent).run("s6", 0)
    first, second = (people.augmentations(tiny_data, run, count=2).axes[0].images[0].get_array() for _ in range(2))
    assert first.shape == (run.input_size, run.input_size, 3) and np.array_equal(first, second)


def test_predictions_stand_below_the_truth_and_weak_ones_are_left_out(tiny_data):
    image = tiny_data.val.image_id(0)
    results = [{"image_id": image, "category_id": 1, "score": score, "bbox": [10, 20, 60, 80],
                "keypoints": [40, 30, 0.9, 50, 28, 0.2, 30, 28, 0.01]} for score in (0.9, 0.1)]
    figure = people.predictions(tiny_data.val, results, count=2)
    truth, found, nothing = figure.axes[0], figure.axes[2], figure.axes[3]
    assert len(truth.patches) == 2 and len(found.patches) == 1 and len(nothing.patches) == 0
    assert [t.get_text() for t in found.texts] == ["0.90"]
    assert len([line for line in found.lines if line.get_marker() == "o"]) == 2, "a joint of no confidence is not drawn"


def test_precision_recall_of_perfect_predictions(tiny_data):
    annotations = [a for a in tiny_data.val.annotations["annotations"] if a["num_keypoints"] and not a["iscrowd"]]
    results = [{"image_id": a["image_id"], "category_id": 1, "score": 0.9, "bbox": a["bbox"],
                "keypoints": a["keypoints"]} for a in annotations]
    figure = plots.precision_recall(tiny_data.val, results)
    assert len(figure.axes[0].lines) == 10
    assert all(np.allclose(line.get_ydata(), 1) for line in figure.axes[0].lines)


def test_a_photo_is_read_upright(tmp_path):
    image = Image.new("RGB", (40, 20), "red")
    exif = image.getexif()
    exif[0x0112] = 6  # turned by 90 degrees
    image.save(tmp_path / "me.jpg", exif=exif)
    assert people.read_photo(tmp_path / "me.jpg").shape == (40, 20, 3)
    Image.new("LA", (8, 6)).save(tmp_path / "grey.png")
    assert people.read_photo(tmp_path / "grey.png").shape == (6, 8, 3)


def test_a_bad_photo_is_explained(tmp_path):
    path = tmp_path / "me.jpg"
    with pytest.raises(StudyError, match=f"PHOTO={path}: no such file"):
        people.read_photo(path)
    for content in (b"", b"no picture", b"\x89PNG\r\n\x1a\n\x00\x00"):
        path.write_bytes(content)
        with pytest.raises(StudyError, match=f"PHOTO={path}: cannot be read as an image"):
            people.read_photo(path)


def test_table_aligns_escapes_and_marks_what_is_missing():
    rows = [{"name": "a<b", "AP": 0.12345, "n": 3, "said": "1.50"}, {"name": "", "AP": None, "n": 12, "said": "−2 %"}]
    html = table(rows, ["name", "n", "AP", "said"]).to_html()
    assert html == table(rows, ["name", "n", "AP", "said"]).to_html(), "no random names"
    cells = re.findall(r"<td[^>]*>(.*?)</td>", html)
    assert cells == ["a&lt;b", "3", "0.123", "1.50", "–", "12", "–", "−2 %"]
    assert re.findall(r"\.col(\d) {\s*text-align: left", html) == ["0"]
    assert "nothing to show" in table([]).to_html()
