"""Scenes for Figures 1 and 3, the architecture of Figure 2, and the figures themselves."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from yolopose.analysis import scenes
from yolopose.analysis.architecture import describe, write_architecture
from yolopose.analysis.complexity import count_macs
from yolopose.analysis.grouping import labelled_people
from yolopose.analysis.matching import match_people
from yolopose.data.coco import CocoDataset, load_dataset
from yolopose.models.yolov5 import build_model, count_parameters
from yolopose.report.figures.architecture import block_name, draw_architecture, layout
from yolopose.report.figures.scenes import draw_crowd, draw_outside
from yolopose.report.figures.style import save
from yolopose.report.measured import ResultSet
from yolopose.study.config import load_variants
from yolopose.utils import files
from yolopose.utils.errors import StudyError
from yolopose.utils.files import read_json, write_json, write_json_gz
from yolopose.utils.locks import holder


@pytest.fixture(scope="module")
def dataset(tiny_data) -> CocoDataset:
    return replace(tiny_data, val=tiny_data.val.subset(range(6)))


def perfect(dataset: CocoDataset, cut: float = 1.0) -> list[dict[str, Any]]:
    """The labelled people of val as predictions; ``cut`` shortens the boxes from below."""
    return [{"image_id": a["image_id"], "category_id": 1, "score": 0.9,
             "bbox": [*a["bbox"][:3], a["bbox"][3] * cut],
             "keypoints": [min(v, 0.9) if i % 3 == 2 else v for i, v in enumerate(a["keypoints"])]}
            for a in dataset.val.annotations["annotations"] if not a["iscrowd"] and a["num_keypoints"]]


def study(root: Path, predictions: list[dict[str, Any]] | None) -> Any:
    """A study of one run, evaluated where there are ``predictions``."""
    run_dir = root / "s6" / "seed0"
    if predictions is not None:
        write_json_gz(run_dir / "predictions.json.gz", predictions)
        write_json(run_dir / "metrics.json", {})
    run = SimpleNamespace(experiment=SimpleNamespace(name="s6"), variant=SimpleNamespace(head="repaired"), seed=0)
    return SimpleNamespace(results_dir=root, experiments=("s6",), seeds=(0,), runs=lambda: [run],
                           run_dir=lambda e, s: root / e / f"seed{s}")


def test_the_most_overlapping_people_make_the_most_crowded_image(monkeypatch):
    def image(number: int, *lefts: float) -> list[dict[str, Any]]:
        return [{"image_id": number, "bbox": [x, 0, 10, 10], "keypoints": [1, 1, 2]} for x in lefts]

    rows = image(1, 0, 50, 99) + image(2, 0, 5) + image(3, 0, 5, 50) + image(4, 0, 5, 50) + image(5, 0)
    monkeypatch.setattr(scenes, "COUNT", 9)
    rows += [{"image_id": 5, "bbox": [0, 0, 10, 10], "keypoints": [0, 0, 0]}]  # nobody's joints: no crowd
    assert scenes.crowded_images(labelled_people({"annotations": rows})) == [3, 4, 2, 1, 5]


def test_an_image_counts_where_truth_and_prediction_lie_outside(dataset: CocoDataset):
    def images(predictions: list[dict[str, Any]]) -> list[int]:
        return scenes.outside_images(match_people(dataset.val.annotations, predictions, dataset.schema,
                                                  dataset.val.image_ids()))

    assert images(perfect(dataset)) == []
    assert images(perfect(dataset, 0.6)) == [1, 2, 4]  # a joint at y 90 is below the box
    assert images([p | {"score": 0.2} for p in perfect(dataset, 0.6)]) == []


def test_a_stored_picture_is_small_and_a_small_one_untouched():
    noise = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    data, small = scenes.picture(noise), scenes.picture(noise[:50, :60])
    height, width = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape[:2]
    assert len(data) <= scenes.LARGEST_BYTES and abs(width / height - 640 / 480) < 0.02
    again = cv2.imdecode(np.frombuffer(small, np.uint8), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(again, noise[:50, :60])


def test_scenes_are_written_once_and_drawn(tmp_path: Path, dataset: CocoDataset, monkeypatch):
    one, held, really = study(tmp_path, perfect(dataset, 0.6)), [], files.write_json
    monkeypatch.setattr(files, "write_json", lambda *a: held.append(holder(tmp_path)["command"]) or really(*a))
    rows = scenes.write_scenes(one, dataset)
    assert held == ["write_scenes"]  # the folder, while the file is written
    stored = read_json(tmp_path / "scenes.json")
    assert stored["experiment"] == "s6"
    assert [[s["image_id"] for s in stored[part]["scenes"]] for part in ("crowd", "outside")] == [[1, 2, 4]] * 2
    outside = stored["outside"]["scenes"][0]["outside"]
    assert [(row[1], row[2:4], row[6]) for row in outside] == [(2, [65, 90], 1.0)]  # one joint, where it is labelled
    box = next(row for row in rows if row["quantity"].startswith("true joint outside"))
    assert (box["joints"], box["of them"], box["rate (%)"]) == (4, 4, 100.0)
    assert sum(row["figure"] == 1 for row in rows) == 7

    monkeypatch.setattr(scenes, "make_scenes", lambda *_: pytest.fail("made again"))
    assert scenes.write_scenes(one, dataset) == rows

    results = ResultSet(tmp_path)
    first, second = ([p.read_bytes() for p in save(draw_crowd(results), tmp_path / name)] for name in "ab")
    assert first == second
    assert len(draw_outside(results).axes) == 4
    assert "committed reference" in draw_outside(ResultSet(tmp_path, is_reference=True)).get_suptitle()
    (tmp_path / "scenes" / "crowd1.png").unlink()
    with pytest.raises(StudyError, match=r"crowd1.png: not found, .* make evaluate"):
        draw_crowd(results)


def test_real_photographs(tmp_path: Path, shared: Path):
    if not (shared / "data" / "coco-real").is_dir():
        pytest.skip("no sample of COCO's photographs here")
    real = load_dataset(shared / "data" / "coco-real")
    made = scenes.make_scenes(real.val, perfect(real, 0.8), real.train.store.persons, tmp_path / "scenes")
    assert made["grouping"]["ours_taken"]["wrong"] == made["grouping"]["ours_nearer"]["wrong"] == 0
    assert made["grouping"]["truth_grouped"]["wrong"] > 0  # distances alone do not separate people
    assert made["box"]["outside"]["found_rate"] == 1 and made["box"]["outside_confined"]["found_rate"] < 1
    pictures = list((tmp_path / "scenes").glob("*.png"))
    assert len(pictures) == 6 and all(p.stat().st_size <= scenes.LARGEST_BYTES for p in pictures)


def test_without_stored_input_there_is_no_figure_and_a_model_that_finds_nobody_has_scenes(tmp_path: Path, dataset):
    assert all(draw(ResultSet(tmp_path)) is None for draw in (draw_crowd, draw_outside, draw_architecture))
    with pytest.raises(StudyError, match="no run is evaluated.* make evaluate first"):
        scenes.write_scenes(study(tmp_path, None), None)
    scenes.write_scenes(study(tmp_path, []), dataset)
    stored = read_json(tmp_path / "scenes.json")
    assert stored["outside"]["scenes"] == [] and len(stored["crowd"]["scenes"]) == 3
    assert draw_crowd(ResultSet(tmp_path)) is not None and draw_outside(ResultSet(tmp_path)) is not None


def test_without_a_skeleton_nothing_is_grouped(tmp_path: Path, dataset: CocoDataset):
    made = scenes.make_scenes(dataset.val, perfect(dataset), np.zeros((1, 3, 3)), tmp_path / "scenes")
    assert made["grouping"] is None and "skeleton" in made["grouping_reason"]
    assert [row["figure"] for row in scenes.scene_rows(made)] == [3] * 5
    about = {"experiment": "s6", "dataset": "x", "schema": dataset.schema.as_dict()}
    write_json(tmp_path / "scenes.json", about | made)
    assert len(draw_crowd(ResultSet(tmp_path)).axes) == 3  # the pictures alone


def test_the_architecture_adds_up_to_the_counts_of_complexity():
    found = describe("yolov5s6_pose", 128, num_keypoints=5, width_factor=0.25)
    model = build_model(load_variants()["yolov5s6_pose"], 5, 0.25, seed=0).eval()
    counted = {"gmacs": count_macs(model, 128)["conv"] / 1e9, "params_m": count_parameters(model.fuse()) / 1e6}
    for key, value in counted.items():
        assert found[key] == pytest.approx(value) == pytest.approx(sum(part[key] for part in found["parts"].values()))
    layers, heads = found["layers"], found["heads"]
    assert [row["shape"][1:] for row in layers if row["number"] in (23, 26, 29, 32)] == [
        [128 // s] * 2 for s in (8, 16, 32, 64)]
    assert layers[25]["inputs"] == [24, 20]  # where PANet's way down takes in its way up
    assert [h["level"] for h in heads] == ["P3", "P4", "P5", "P6"]
    assert heads[0]["box"]["shape"] == [18, 16, 16] and heads[0]["keypoints"]["shape"] == [45, 16, 16]
    assert heads[0]["keypoints"]["convolutions"] == 12
    one = layers[1]  # by hand: 3×3 from 8 to 16 channels on a 32 × 32 map
    assert one["shape"] == [16, 32, 32] and one["stride"] == 4 and block_name(one) == "1  Conv 3×3 /2"
    assert [one["gmacs"] * 1e9, one["params_m"] * 1e6] == pytest.approx([16 * 32 * 32 * 8 * 9, 16 * 8 * 9 + 16])
    person = describe("yolov5s6_person", 128, 5, 0.25)
    assert all(h["keypoints"] is None for h in person["heads"]) and person["parts"]["keypoints"]["gmacs"] == 0
    assert person["layers"] == layers  # the same network up to the heads
    assert found["gmacs"] - person["gmacs"] == pytest.approx(found["parts"]["keypoints"]["gmacs"])


def test_figure2_is_drawn_without_overlaps_and_bad_input_refused(tmp_path: Path, monkeypatch):
    with pytest.raises(StudyError, match="yolov5s6_pos.*did you mean 'yolov5s6_pose'"):
        write_architecture(tmp_path, "yolov5s6_pos")
    for size in (0, -64, 100):
        with pytest.raises(StudyError, match=rf"input_size {size} px is not a positive multiple of 64"):
            write_architecture(tmp_path, input_size=size)
    assert not (tmp_path / "architecture.json").exists()
    rows = write_architecture(tmp_path)
    assert [row["part"] for row in rows][0] == "backbone" and sum(row["share (%)"] for row in rows) == pytest.approx(
        100, abs=0.3)
    monkeypatch.setattr("yolopose.analysis.architecture.describe", lambda *_: pytest.fail("made again"))
    assert write_architecture(tmp_path) == rows
    blocks, height, _ = layout(read_json(tmp_path / "architecture.json"))
    assert len(blocks) == 33 + 8
    for a, b in combinations(blocks.values(), 2):
        assert a.right <= b.x or b.right <= a.x or a.y + a.h <= b.y or b.y + b.h <= a.y
    assert all(b.x >= 0 and b.right <= 10.4 and b.y >= 0 and b.y + b.h <= height for b in blocks.values())
    figure = draw_architecture(ResultSet(tmp_path))
    renderer = figure.canvas.get_renderer()
    texts = [t.get_window_extent(renderer) for t in figure.axes[0].texts if t.get_text()]
    edge = figure.get_window_extent(renderer)
    assert all(edge.x0 <= t.x0 and t.x1 <= edge.x1 and edge.y0 <= t.y0 and t.y1 <= edge.y1 for t in texts)
    assert not [1 for a, b in combinations(texts, 2) if a.padded(-1).overlaps(b.padded(-1))]
