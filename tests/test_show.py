"""The notebooks' pictures: they are made for any data set and show what they should."""

import base64
import io
import re

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from PIL import Image

from yolopose.display import people, plots
from yolopose.display.tables import table
from yolopose.report.measured import curve_points
from yolopose.study.config import load_study
from yolopose.workflow.status import _accuracy


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


@pytest.mark.parametrize("width_in", [1.2, 2.2, 3.5, 8.0])
def test_title_and_note_stand_within_the_figure_and_above_the_pictures(width_in):
    figure, (axis,) = people.grid(1, 1, width_in, "no people with a score of at least 0.25, found at 128 px",
                                  people.LEGEND, ratio=0.7)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    whole, picture = figure.bbox, axis.get_window_extent()
    title, note = (text.get_window_extent(canvas.get_renderer()) for text in figure.texts)
    for box in (title, note):
        assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and picture.y1 <= box.y0 and box.y1 <= whole.y1
    assert note.y1 <= title.y0


def test_scores_of_nobody_are_undefined_in_tables_and_left_out_of_curves():
    rows = [{"val AP": 0.5, "APL": -1.0, "AP gain": -1.0, "n": -1},
            {"val AP": -1.0, "APL": 0.25, "AP gain": 0.5, "n": 1}]
    html = table(rows).to_html()
    assert re.findall(r"<td[^>]*>(.*?)</td>", html) == [
        "0.500", "undefined", "-1.000", "-1", "undefined", "0.250", "0.500", "1"]
    assert "text-align: left" not in html
    curve = [{"images": "10", "val_AP": "-1.0", "loss": "-1.0"}, {"images": "20", "val_AP": "0.5", "loss": "2"}]
    assert curve_points(curve, "val_AP") == [(20.0, 50.0)]
    assert curve_points(curve, "loss") == [(10.0, -1.0), (20.0, 2.0)]
    assert _accuracy({"val": {"AP": -1.0, "AP50": 0.5}}) == "AP undefined AP50 50.0"


def test_table_aligns_escapes_and_marks_what_is_missing():
    rows = [{"name": "a<b", "AP": 0.12345, "n": 3, "said": "1.50"}, {"name": "", "AP": None, "n": 12, "said": "−2 %"}]
    html = table(rows, ["name", "n", "AP", "said"]).to_html()
    assert html == table(rows, ["name", "n", "AP", "said"]).to_html(), "no random names"
    cells = re.findall(r"<td[^>]*>(.*?)</td>", html)
    assert cells == ["a&lt;b", "3", "0.123", "1.50", "–", "12", "–", "−2 %"]
    assert re.findall(r"\.col(\d) {\s*text-align: left", html) == ["0"]
    assert "nothing to show" in table([]).to_html()
