"""The embedded data set: determinism, COCO's conventions, what the labels say about the pixels, resumption."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from yolopose.analysis.dataset import dataset_statistics, statistics_table
from yolopose.data.synthetic import compose as composer
from yolopose.data.synthetic import generate as generator
from yolopose.data.synthetic.body import keypoints, person_patches
from yolopose.data.synthetic.compose import DIFFICULTIES, compose, crowd_annotation, outline, person_annotation
from yolopose.data.synthetic.generate import CATEGORY, SyntheticSpec, generate, render_image
from yolopose.data.synthetic.looks import sample_looks, side_colours
from yolopose.data.synthetic.person import LIVELY, Drawn, Person, draw_person, sample_person
from yolopose.data.synthetic.raster import Camera, Light, Patch, rasterise
from yolopose.data.synthetic.skeleton import ARM_LIMITS, FAMILIES, LEG_LIMITS, Pose, Proportions, sample_pose, solve
from yolopose.study.config import STUDY
from yolopose.utils.errors import StudyError

LIGHT = Light(np.array([0.0, -0.8, -0.6]), 0.5, 0.6)
NAMES = CATEGORY["keypoints"]


def hashes(root: Path) -> dict[str, str]:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> tuple[Path, SyntheticSpec]:
    """A data set of six chunks, made in one process."""
    root = tmp_path_factory.mktemp("synthetic") / "near"
    spec = SyntheticSpec("near", 64, train=34, val=17, test_dev=5, seed=3)
    generate(root, spec, workers=1, progress=False)
    return root, spec


@cache
def scenes(difficulty: str, size: int, count: int = 120) -> list[tuple[np.ndarray, list[dict]]]:
    return [compose(np.random.default_rng([5, i]), DIFFICULTIES[difficulty], size) for i in range(count)]


def coco_code(annotation: dict, image: np.ndarray) -> dict:
    """The annotation's mask as pycocotools reads it."""
    code = coco_mask.frPyObjects(annotation["segmentation"], *image.shape[:2])
    return code if annotation["iscrowd"] else coco_mask.merge(code)


def person(yaw: float, pose: Pose | None = None) -> Person:
    """A bald adult of known pose, so that no hair hides a keypoint."""
    pose = pose or Pose(arms=np.array([[0, 35, 0, 5]] * 2, float), legs=np.array([[0, 6, 0, 0, 0]] * 2, float))
    rng = np.random.default_rng(1)
    looks = sample_looks(rng)
    while looks.hair_style != "bald" or looks.backpack is not None:
        looks = sample_looks(rng)
    return Person(solve(pose, Proportions(), yaw, 0.0), looks, 6.0, np.array([-0.4, -0.6, 0.4, 0.6]))


def draw(someone: Person) -> tuple[Drawn, np.ndarray]:
    image, owner = np.full((240, 240, 3), 120, np.uint8), np.zeros((240, 240), np.uint8)
    return draw_person(someone, 180.0, (120, 130), LIGHT, image, owner, 1), owner


# ---------------------------------------------------------------- the data set on disk


def test_same_bytes_whatever_the_number_of_workers_and_what_another_spec_left(small, tmp_path):
    root, spec = small
    partial = tmp_path / "again.partial"
    (partial / "train2017").mkdir(parents=True)
    (partial / "train2017" / "stray.jpg").write_bytes(b"")
    (partial / "fingerprint").write_text("another")
    generate(tmp_path / "again", spec, workers=2, progress=False)
    assert hashes(tmp_path / "again") == hashes(root)


def test_image_depends_on_seed_split_and_number_alone():
    one, more = (SyntheticSpec("near", 80, n, 1, 1, seed=4) for n in (5, 50))
    assert render_image(one, "train", 3) == render_image(more, "train", 3)
    codes = {render_image(one, split, 0)[0] for split in generator.SPLITS}
    codes.add(render_image(SyntheticSpec("near", 80, 5, 1, 1, seed=5), "train", 0)[0])
    assert len(codes) == 4


def test_layout_is_coco(small):
    root, spec = small
    for name, folder, count in (("train", "train2017", 34), ("val", "val2017", 17)):
        content = json.loads((root / "annotations" / f"person_keypoints_{name}2017.json").read_text())
        assert len(content["images"]) == count == len(list((root / folder).iterdir()))
        assert content["categories"][0]["keypoints"] == NAMES and len(NAMES) == 17
        assert all(len(i["file_name"]) == 16 and (root / folder / i["file_name"]).exists() for i in content["images"])
        ids = [a["id"] for a in content["annotations"]]
        assert len(set(ids)) == len(ids)
    public = json.loads((root / "annotations" / "image_info_test-dev2017.json").read_text())
    assert "annotations" not in public and len(public["images"]) == 5
    server = COCO(str(root / "server" / "person_keypoints_test-dev2017.json"))
    assert set(server.getImgIds()) == {i["id"] for i in public["images"]}
    summary = json.loads((root / "dataset.json").read_text())
    assert summary["fingerprint"] == spec.fingerprint() and not (root / "chunks").exists()


def test_interrupted_generation_goes_on_where_it_was(small, tmp_path, monkeypatch):
    root, spec = small
    target = tmp_path / "resumed"
    real, calls = generator._draw_chunk, []

    def stops_midway(task):
        if len(calls) == 1:
            (task[0] / "val2017" / "000010000001.jpg").write_bytes(b"half an im")
            raise KeyboardInterrupt
        calls.append(task[2:])
        return real(task)

    monkeypatch.setattr(generator, "_draw_chunk", stops_midway)
    with pytest.raises(KeyboardInterrupt):
        generate(target, spec, workers=1, progress=False)
    assert not target.exists() and (tmp_path / "resumed.partial").exists()
    later = []
    monkeypatch.setattr(generator, "_draw_chunk", lambda task: (later.append(task[2:]), real(task))[1])
    generate(target, spec, workers=1, progress=False)
    assert calls == [("train", 0)] and ("train", 0) not in later
    assert len(later) == 5  # of six chunks
    assert hashes(target) == hashes(root)
    assert not (tmp_path / "resumed.partial").exists()


def test_complete_data_set_is_left_alone_and_other_data_refused(small):
    root, spec = small
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    generate(root, spec, workers=1, progress=False)
    assert before == {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    with pytest.raises(StudyError, match="other data"):
        generate(root, SyntheticSpec("near", 64, 1, 1, 1), workers=1, progress=False)


@pytest.mark.parametrize(("code", "words"), [(errno.ENOSPC, "no space left.*; free"),
                                            (errno.EACCES, "not writable; .* a folder that")])
def test_disk_errors_name_folder_and_remedy(tmp_path, monkeypatch, code, words):
    def fails(task):
        raise OSError(code, "refused")

    monkeypatch.setattr(generator, "_draw_chunk", fails)
    with pytest.raises(StudyError, match=words) as caught:
        generate(tmp_path / "data", SyntheticSpec("near", 64, 2, 0, 0), workers=1, progress=False)
    assert "data.partial" in str(caught.value)


@pytest.mark.parametrize("arguments", [("far", 128, 1, 1, 1), ("near", 63, 1, 1, 1), ("near", 128, -1, 1, 1),
                                       ("near", 128, 1, 1, 1, -2)])
def test_bad_specs(arguments):
    with pytest.raises(StudyError, match="synthetic data: "):
        SyntheticSpec(*arguments)


def test_fingerprint_follows_spec_and_generator(monkeypatch):
    spec = SyntheticSpec("near", 128, 1, 1, 1)
    others = [SyntheticSpec("coco", 128, 1, 1, 1), SyntheticSpec("near", 128, 1, 1, 1, seed=1)]
    assert len({s.fingerprint() for s in (spec, *others)}) == 3
    old = spec.fingerprint()
    monkeypatch.setattr(generator, "GENERATOR_VERSION", "another")
    assert spec.fingerprint() != old


# ---------------------------------------------------------------- annotations


@pytest.mark.parametrize("chosen", [("near", 144), ("coco", 128), ("coco", 64, 40)])
def test_annotations_keep_cocos_conventions(chosen):
    for image, entries in scenes(*chosen):
        height, width = image.shape[:2]
        assert max(height, width) == chosen[1] and image.dtype == np.uint8
        for a in entries:
            labels = np.array(a["keypoints"], float).reshape(17, 3)
            labelled = labels[:, 2] > 0
            assert set(labels[:, 2]) <= {0, 1, 2} and not labels[~labelled].any()
            assert (labels[labelled, :2] >= 0).all() and (labels[labelled, :2] < [width, height]).all()
            assert a["num_keypoints"] == labelled.sum()
            x, y, w, h = a["bbox"]
            assert x >= 0 and y >= 0 and x + w <= width and y + h <= height and 0 < a["area"] <= w * h
            assert not (a["iscrowd"] and a["num_keypoints"])


def test_area_box_and_outline_describe_the_same_pixels():
    ratios, off = [], []
    for image, entries in scenes("near", 144):
        for a in entries:
            code = coco_code(a, image)
            if a["iscrowd"]:
                assert coco_mask.area(code) == a["area"]
                continue
            x, y, w, h = coco_mask.toBbox(code)
            left, top, wide, high = a["bbox"]
            off.append(max(abs(x - left), abs(y - top), abs(x + w - left - wide), abs(y + h - top - high)))
            ratios.append(coco_mask.area(code) / a["area"])
    assert len(ratios) > 100 and abs(np.mean(ratios) - 1) < 0.02 and min(ratios) > 0.7 and max(ratios) < 1.3
    # A detached line of pixels, one wide, can get lost when pycocotools fills its outline.
    assert np.mean(np.array(off) > 1) < 0.03


def test_crowd_is_one_region_without_keypoints():
    difficulty = dataclasses.replace(DIFFICULTIES["near"], crowd=1.0)
    regions = 0
    for i in range(6):
        image, entries = compose(np.random.default_rng([3, i]), difficulty, 160)
        for a in (a for a in entries if a["iscrowd"]):
            code = coco_code(a, image)
            assert coco_mask.area(code) == a["area"] and coco_mask.toBbox(code).tolist() == a["bbox"]
            assert not any(a["keypoints"]) and a["num_keypoints"] == 0
            regions += 1
    assert regions >= 4


def test_bodies_are_as_thick_as_bodies():
    labelled = [a for _, entries in scenes("near", 144) for a in entries if a["num_keypoints"] > 0]
    ratio = [a["area"] / (a["bbox"][2] * a["bbox"][3]) for a in labelled]
    assert 0.45 < np.mean(ratio) < 0.6


def test_annotation_of_a_known_mask():
    mask = np.zeros((40, 50), bool)
    mask[10:30, 5:15] = True
    points = np.full((17, 2), 100.0)  # outside of the picture
    points[5:11] = [[7.26, 12], [12, 12], [6, 20], [20, 20], [8, 25], [49.99, 5]]
    shown = np.ones(17, bool)
    shown[7] = False  # left elbow behind the own body; right elbow outside of the mask: something covers it
    drawn = Drawn(points, shown, np.ones(17), 200)
    a = person_annotation(np.random.default_rng(0), drawn, mask, True, 0.0, 40.0)
    labels = np.array(a["keypoints"]).reshape(17, 3)
    assert a["bbox"] == [5, 10, 10, 20] and a["area"] == 200 and a["segmentation"] == outline(mask)
    # The right wrist has neither neighbour in sight (its elbow is hidden) but the other wrist is: it can be placed.
    assert labels[5:11, 2].tolist() == [2, 2, 1, 1, 2, 1] and a["num_keypoints"] == 6
    assert labels[5, 0] == 7.3 and labels[10, 0] == 49.9 and not labels[:5].any() and not labels[11:].any()
    hidden = person_annotation(np.random.default_rng(0), drawn, mask, False, 0.0, 40.0)
    assert hidden["num_keypoints"] == 0 and hidden["area"] == 200
    drawn.alone = 5000  # almost all of this person is behind something
    assert person_annotation(np.random.default_rng(0), drawn, mask, True, 0.0, 40.0) is None


def test_run_lengths_round_trip():
    rng = np.random.default_rng(0)
    for chance in (0.0, 0.1, 0.5, 1.0):
        mask = rng.random((13, 7)) < chance
        code = coco_mask.frPyObjects(composer.run_lengths(mask), 13, 7)
        assert (coco_mask.decode(code) == mask).all()
    assert crowd_annotation(np.zeros((13, 7), bool)) is None


# ---------------------------------------------------------------- people


def test_left_is_right_in_the_picture_when_facing_the_camera():
    front, back = (draw(person(yaw))[0].points for yaw in (0, 180))
    for left, right in ((1, 2), (3, 4), (5, 6), (9, 10), (11, 12), (15, 16)):
        assert front[left, 0] > front[right, 0] and back[left, 0] < back[right, 0]
    assert front[0, 1] < front[5, 1] < front[11, 1] < front[13, 1] < front[15, 1]  # nose above shoulders above hips ...


def test_visibility_follows_the_heading():
    front, away, side = (draw(person(yaw))[0].shown for yaw in (0, 180, 90))
    assert front.all()
    assert not away[:3].any() and away[5:].all()  # the back of the head hides nose and eyes
    # yaw 90 faces the left of the picture; the person's left side is towards the camera
    assert side[[0, 1, 3, 5]].all() and not side[[2, 4, 6, 12]].any()


def test_arm_behind_the_back_is_hidden_by_the_own_body():
    pose = Pose(arms=np.array([[-45, -5, 70, 95], [0, 35, 0, 5]], float), legs=np.zeros((2, 5)))
    front, away = (draw(person(yaw, pose))[0].shown for yaw in (0, 180))
    assert not front[9] and away[9] and front[10] and away[10]


def test_drawn_person_covers_its_keypoints_and_leaves_no_holes():
    drawn, owner = draw(person(0))
    places = drawn.points.astype(int)
    assert (owner[places[:, 1], places[:, 0]] == 1).all() and drawn.alone == owner.sum()
    count, _, stats, _ = cv2.connectedComponentsWithStats((owner == 0).astype(np.uint8), connectivity=4)
    assert all(stats[i, cv2.CC_STAT_AREA] > 20 for i in range(1, count))


def test_person_outside_the_picture_is_nobody():
    image, owner = np.zeros((60, 60, 3), np.uint8), np.zeros((60, 60), np.uint8)
    for origin in ((-500.0, 30.0), (60.5, 30.0), (30.0, 900.0)):
        drawn = draw_person(person(0), 20.0 if origin[0] > 60 else 100.0, origin, LIGHT, image, owner, 1)
    assert drawn.alone == 0 and not drawn.shown.any()


def test_nearer_surface_wins():
    square = np.array([[[-0.2, -0.2, 0], [0.2, -0.2, 0]], [[-0.2, 0.2, 0], [0.2, 0.2, 0]]], float)
    towards = np.broadcast_to([0.0, 0.0, -1.0], square.shape)
    red, blue = (np.full((2, 2, 3), c, np.uint8) for c in ((0, 0, 200), (200, 0, 0)))
    patches = [Patch(square - [0, 0, 0.5], towards, red), Patch(square, towards, blue),
               Patch(square - 1, -towards, blue)]
    colour, depth = rasterise(patches, Camera(50.0, (20.0, 20.0), 5.0), Light(np.array([0, 0, -1.0]), 1.0, 0.0), 41, 41)
    assert colour[20, 20, 2] > 150 and colour[20, 20, 0] == 0 and depth[20, 20] == pytest.approx(-0.5)
    assert colour[0, 0, 3] == 0 and np.isinf(depth[0, 0])


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_poses_respect_the_limits_and_bones_keep_their_length(family):
    rng = np.random.default_rng(2)
    for _ in range(20):
        pose = sample_pose(rng, {family: 1.0})
        for angles, limits in ((pose.arms, ARM_LIMITS), (pose.legs, LEG_LIMITS)):
            assert (angles >= limits[:, 0]).all() and (angles <= limits[:, 1]).all()
        size = Proportions()
        s = solve(pose, size, rng.uniform(-180, 180), 10.0)
        for limbs, lengths in ((s.arms, [size.upper_arm, size.forearm]), (s.legs, [size.thigh, size.shank])):
            assert np.linalg.norm(np.diff(limbs, axis=1), axis=-1) == pytest.approx(np.array([lengths] * 2))
        points, _, _ = keypoints(s)
        assert points.shape == (17, 3) and np.isfinite(points).all()
        assert all(np.isfinite(p.points).all() for p in person_patches(s, sample_looks(rng), 100.0))


def test_as_many_people_face_left_as_right():
    rng = np.random.default_rng(0)
    people = [sample_person(rng, 5.0, LIVELY).skeleton for _ in range(400)]
    forward = np.array([-s.chest_frame[0, 2] for s in people])  # x of the direction in which the chest points
    arms = np.array([[np.linalg.norm(s.arms[i, 2] - s.legs[i, 0]) for i in (0, 1)] for s in people])
    assert 0.43 < (forward > 0).mean() < 0.57
    assert abs((arms[:, 0] - arms[:, 1]).mean()) < 0.03  # neither arm is the one that always gestures


def test_colours_tell_the_sides_apart():
    rng = np.random.default_rng(0)
    for _ in range(300):
        left, right = side_colours(rng)
        assert left[0] > left[2] or left[1] > left[2]  # cool: blue or green over red
        assert right[2] >= right[0] and right.max() > left.max() + 25  # warm and lighter


# ---------------------------------------------------------------- statistics


def test_statistics_of_two_known_persons():
    first = {"image_id": 1, "bbox": [0, 0, 10, 20], "area": 100, "num_keypoints": 12, "iscrowd": 0,
             "keypoints": [1, 1, 2] * 10 + [1, 1, 1] * 2 + [0, 0, 0] * 5}
    second = first | {"bbox": [0, 10, 10, 20], "area": 81, "keypoints": [1, 1, 2] * 17}
    crowd = first | {"iscrowd": 1, "num_keypoints": 0}
    content = {"images": [{"id": 1, "width": 100, "height": 50}], "categories": [CATEGORY],
               "annotations": [first, second, crowd]}
    s = dataset_statistics(content)
    assert (s["images"], s["persons"], s["persons_per_image"]["mean"]) == (1, 2, 2.0)
    assert s["sqrt_area"]["mean"] == pytest.approx((0.10 + 0.09) / 2)
    assert s["visibility"] == {"v0": round(5 / 34, 4), "v1": round(2 / 34, 4), "v2": round(27 / 34, 4)}
    assert s["visibility_by_joint"]["right_ankle"] == {"v0": 0.5, "v1": 0.0, "v2": 0.5}
    assert s["keypoints_per_person"]["mean"] == 14.5 and s["mask_to_box"]["mean"] == pytest.approx(0.4525)
    assert s["overlap"] == {"iou_0.1": 1.0, "iou_0.3": 1.0, "iou_0.5": 0.0}  # IoU 100 / 300
    assert {r["statistic"] for r in statistics_table({"a": s})} >= {"persons", "joints v1", "overlap iou_0.3"}
    assert dataset_statistics(content | {"annotations": []}) == {"images": 0, "persons": 0}


def test_stored_coco_numbers_are_the_oracles(shared):
    file = shared / "oracles" / "coco-val2017-reconstructed" / "person_keypoints_val2017_reconstructed.json"
    stored = json.loads((STUDY / "coco_val_statistics.json").read_text())
    assert dataset_statistics(json.loads(file.read_text())).items() <= stored.items()


def test_coco_difficulty_resembles_coco():
    """Loose: 120 images; the table in the notebook shows the numbers of a real data set side by side."""
    coco = json.loads((STUDY / "coco_val_statistics.json").read_text())
    images, annotations = [], []
    for i, (image, entries) in enumerate(scenes("coco", 128)):
        images.append({"id": i, "width": image.shape[1], "height": image.shape[0]})
        annotations += [a | {"image_id": i} for a in entries]
    ours = dataset_statistics({"images": images, "annotations": annotations, "categories": [CATEGORY]})
    for v in ("v0", "v1", "v2"):
        assert abs(ours["visibility"][v] - coco["visibility"][v]) < 0.08
    assert ours["sqrt_area"]["q50"] == pytest.approx(coco["sqrt_area"]["q50"], rel=0.3)
    assert ours["persons_per_image"]["mean"] == pytest.approx(coco["persons_per_image"]["mean"], rel=0.3)
    assert abs(ours["overlap"]["iou_0.1"] - coco["overlap"]["iou_0.1"]) < 0.12


WORK = {
    "generate": """
from yolopose.data.synthetic.generate import SyntheticSpec, generate
generate(root.with_name("new"), SyntheticSpec("near", 64, 17, 1, 1), workers=2, progress=False)""",
    "load": """
from yolopose.data.coco import load_dataset
from yolopose.data.loader import TrainLoader
from yolopose.study.config import load_study
data = load_dataset(root)
next(TrainLoader(data.train, load_study("smoke").run("s6", 0), data.schema, 1).batches(0))""",
}


@pytest.mark.parametrize("work", WORK)
def test_workers_start_after_opencv_has_used_threads(small, tmp_path, work):
    """A forked worker that touches OpenCV's thread pool waits for threads that only its parent has."""
    (tmp_path / "data").symlink_to(small[0])
    script = ("import sys, cv2, numpy as np; from pathlib import Path; root = Path(sys.argv[1])\n"
              "cv2.setNumThreads(2); cv2.GaussianBlur(np.zeros((2000, 2000, 3), np.uint8), (9, 9), 2)" + WORK[work])
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "data")], check=True, timeout=60)
