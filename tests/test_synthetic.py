"""The embedded data set: determinism, COCO's conventions, what the labels say about the pixels, resumption."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from yolopose.analysis.dataset import dataset_statistics, statistics_table
from yolopose.data.synthetic import generate as generator
from yolopose.data.synthetic.body import keypoints, person_patches
from yolopose.data.synthetic.compose import (
    DIFFICULTIES,
    compose,
    crowd_annotation,
    outline,
    person_annotation,
    run_lengths,
)
from yolopose.data.synthetic.generate import CATEGORY, SyntheticSpec, generate, render_image, render_scene
from yolopose.data.synthetic.looks import sample_looks, side_colours
from yolopose.data.synthetic.person import Drawn, Person, draw_person, sample_person
from yolopose.data.synthetic.raster import Camera, Light, Patch, rasterise
from yolopose.data.synthetic.skeleton import ARM_LIMITS, FAMILIES, LEG_LIMITS, Pose, Proportions, sample_pose, solve
from yolopose.utils.errors import StudyError

LIGHT = Light(np.array([0.0, -0.8, -0.6]), 0.5, 0.6)
NAMES = CATEGORY["keypoints"]


def hashes(root: Path) -> dict[str, str]:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> tuple[Path, SyntheticSpec]:
    """A data set of 100 images, made in one process."""
    root = tmp_path_factory.mktemp("synthetic") / "near"
    spec = SyntheticSpec("near", 96, train=70, val=20, test_dev=10, seed=3)
    generate(root, spec, workers=1, progress=False)
    return root, spec


@pytest.fixture(scope="module")
def scenes() -> list[tuple[np.ndarray, list[dict]]]:
    return [render_scene(np.random.default_rng([5, i]), "near", 144) for i in range(120)]


def person(yaw: float, pose: Pose | None = None, seed: int = 1) -> Person:
    """A bald adult of known pose, so that no hair hides a joint."""
    pose = pose or Pose(arms=np.array([[0, 35, 0, 5]] * 2, float), legs=np.array([[0, 6, 0, 0, 0]] * 2, float))
    rng = np.random.default_rng(seed)
    looks = sample_looks(rng)
    while looks.hair_style != "bald" or looks.backpack is not None:
        looks = sample_looks(rng)
    return Person(solve(pose, Proportions(), yaw, 0.0), looks, 6.0, np.array([-0.4, -0.6, 0.4, 0.6]))


def draw(someone: Person, scale: float = 180.0, size: int = 240) -> tuple[Drawn, np.ndarray]:
    image, owner = np.full((size, size, 3), 120, np.uint8), np.zeros((size, size), np.uint8)
    drawn = draw_person(someone, scale, (size / 2, size / 2 + 10), LIGHT, image, owner, 1)
    return drawn, owner


# ---------------------------------------------------------------- the data set on disk


def test_same_bytes_whatever_the_number_of_workers(small, tmp_path):
    root, spec = small
    generate(tmp_path / "again", spec, workers=2, progress=False)
    assert hashes(tmp_path / "again") == hashes(root)


def test_image_depends_on_seed_split_and_number_alone():
    one, more = (SyntheticSpec("near", 80, n, 1, 1, seed=4) for n in (5, 50))
    assert render_image(one, "train", 3) == render_image(more, "train", 3)
    codes = {render_image(one, split, 0)[0] for split in generator.SPLITS}
    codes.add(render_image(SyntheticSpec("near", 80, 5, 1, 1, seed=5), "train", 0)[0])
    assert len(codes) == 4


def test_layout_is_coco(small):
    from pycocotools.coco import COCO

    root, spec = small
    for name, folder, count in (("train", "train2017", 70), ("val", "val2017", 20)):
        content = json.loads((root / "annotations" / f"person_keypoints_{name}2017.json").read_text())
        assert len(content["images"]) == count == len(list((root / folder).iterdir()))
        assert content["categories"][0]["keypoints"] == NAMES and len(NAMES) == 17
        assert all(len(i["file_name"]) == 16 and (root / folder / i["file_name"]).exists() for i in content["images"])
        ids = [a["id"] for a in content["annotations"]]
        assert len(set(ids)) == len(ids)
    public = json.loads((root / "annotations" / "image_info_test-dev2017.json").read_text())
    assert "annotations" not in public and len(public["images"]) == 10
    server = COCO(str(root / "server" / "person_keypoints_test-dev2017.json"))
    assert set(server.getImgIds()) == {i["id"] for i in public["images"]}
    summary = json.loads((root / "dataset.json").read_text())
    assert summary["fingerprint"] == spec.fingerprint() and not (root / "chunks").exists()


def test_interrupted_generation_goes_on_where_it_was(small, tmp_path, monkeypatch):
    root, spec = small
    target = tmp_path / "resumed"
    real, calls = generator._chunk, []

    def stops_midway(task):
        if len(calls) == 1:
            folder = task[0] / "val2017"
            (folder / "000010000001.jpg").write_bytes(b"half an im")
            raise KeyboardInterrupt
        calls.append(task[2:])
        return real(task)

    monkeypatch.setattr(generator, "_chunk", stops_midway)
    with pytest.raises(KeyboardInterrupt):
        generate(target, spec, workers=1, progress=False)
    assert not target.exists() and (tmp_path / "resumed.partial").exists()
    later = []
    monkeypatch.setattr(generator, "_chunk", lambda task: (later.append(task[2:]), real(task))[1])
    generate(target, spec, workers=1, progress=False)
    assert calls == [("train", 0)] and ("train", 0) not in later
    assert len(later) == len(generator._jobs(spec)) - 1 > 0
    assert hashes(target) == hashes(root)
    assert not (tmp_path / "resumed.partial").exists()


def test_partial_folder_of_another_spec_is_not_mixed_in(small, tmp_path):
    root, spec = small
    partial = tmp_path / "x.partial"
    (partial / "train2017").mkdir(parents=True)
    (partial / "train2017" / "stray.jpg").write_bytes(b"")
    (partial / "fingerprint").write_text("another")
    generate(tmp_path / "x", spec, workers=1, progress=False)
    assert hashes(tmp_path / "x") == hashes(root)


def test_complete_data_set_is_left_alone_and_other_data_refused(small):
    root, spec = small
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    generate(root, spec, workers=1, progress=False)
    assert before == {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    with pytest.raises(StudyError, match="other data"):
        generate(root, SyntheticSpec("near", 96, 1, 1, 1), workers=1, progress=False)


@pytest.mark.parametrize(("code", "words"), [(errno.ENOSPC, "disk is full"), (errno.EACCES, "cannot be written")])
def test_disk_errors_name_folder_and_remedy(tmp_path, monkeypatch, code, words):
    def fails(task):
        raise OSError(code, "refused")

    monkeypatch.setattr(generator, "_chunk", fails)
    with pytest.raises(StudyError, match=words) as caught:
        generate(tmp_path / "data", SyntheticSpec("near", 64, 2, 0, 0), workers=1, progress=False)
    assert "data.partial" in str(caught.value) and "choose" in str(caught.value)


@pytest.mark.parametrize(
    "arguments", [("far", 128, 1, 1, 1), ("near", 63, 1, 1, 1), ("near", 128, -1, 1, 1), ("near", 128, 1, 1, 1, -2)]
)
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


@pytest.mark.parametrize(("difficulty", "size"), [("near", 128), ("coco", 200), ("coco", 64)])
def test_annotations_keep_cocos_conventions(difficulty, size):
    for i in range(40):
        image, annotations = render_scene(np.random.default_rng([8, i]), difficulty, size)
        height, width = image.shape[:2]
        assert max(height, width) == size and image.dtype == np.uint8
        for a in annotations:
            joints = np.array(a["keypoints"], float).reshape(17, 3)
            labelled = joints[:, 2] > 0
            assert set(joints[:, 2]) <= {0, 1, 2} and not joints[~labelled].any()
            assert (joints[labelled, :2] >= 0).all() and (joints[labelled, :2] < [width, height]).all()
            assert a["num_keypoints"] == labelled.sum()
            x, y, w, h = a["bbox"]
            assert x >= 0 and y >= 0 and x + w <= width and y + h <= height and 0 < a["area"] <= w * h
            assert not (a["iscrowd"] and a["num_keypoints"])


def test_area_box_and_outline_describe_the_same_pixels(scenes):
    from pycocotools import mask as coco_mask

    ratios, off = [], []
    for image, entries in scenes:
        for a in entries:
            if a["iscrowd"]:
                code = coco_mask.frPyObjects(a["segmentation"], *image.shape[:2])
                assert coco_mask.area(code) == a["area"]
                continue
            code = coco_mask.merge(coco_mask.frPyObjects(a["segmentation"], *image.shape[:2]))
            x, y, w, h = coco_mask.toBbox(code)
            left, top, wide, high = a["bbox"]
            off.append(max(abs(x - left), abs(y - top), abs(x + w - left - wide), abs(y + h - top - high)))
            ratios.append(coco_mask.area(code) / a["area"])
    assert len(ratios) > 100 and abs(np.mean(ratios) - 1) < 0.02 and min(ratios) > 0.7 and max(ratios) < 1.3
    # A detached line of pixels, one wide, can get lost when pycocotools fills its outline.
    assert np.mean(np.array(off) > 1) < 0.03


def test_crowd_is_one_region_without_joints():
    from pycocotools import mask as coco_mask

    difficulty = dataclasses.replace(DIFFICULTIES["near"], crowd=1.0)
    regions = 0
    for i in range(6):
        image, entries = compose(np.random.default_rng([3, i]), difficulty, 160)
        for a in entries:
            if a["iscrowd"]:
                code = coco_mask.frPyObjects(a["segmentation"], *image.shape[:2])
                assert coco_mask.area(code) == a["area"] and coco_mask.toBbox(code).tolist() == a["bbox"]
                assert not any(a["keypoints"]) and a["num_keypoints"] == 0
                regions += 1
    assert regions >= 4


def test_bodies_are_as_thick_as_bodies(scenes):
    ratio = [a["area"] / (a["bbox"][2] * a["bbox"][3]) for _, s in scenes for a in s if a["num_keypoints"] > 0]
    assert 0.45 < np.mean(ratio) < 0.6


def test_annotation_of_a_known_mask():
    mask = np.zeros((40, 50), bool)
    mask[10:30, 5:15] = True
    points = np.full((17, 2), 100.0)  # outside of the picture
    points[5:11] = [[7.26, 12], [12, 12], [6, 20], [20, 20], [8, 25], [49.99, 5]]
    shown = np.ones(17, bool)
    shown[7] = False  # left elbow behind the own body; right elbow outside of the mask: something covers it
    drawn = Drawn(Camera(40.0, (10.0, 20.0)), points, shown, np.ones(17), 200)
    a = person_annotation(np.random.default_rng(0), drawn, mask, True, 0.0, 40.0)
    joints = np.array(a["keypoints"]).reshape(17, 3)
    assert a["bbox"] == [5, 10, 10, 20] and a["area"] == 200 and a["segmentation"] == outline(mask)
    # The right wrist has neither neighbour in sight (its elbow is hidden) but the other wrist is: it can be placed.
    assert joints[5:11, 2].tolist() == [2, 2, 1, 1, 2, 1] and a["num_keypoints"] == 6
    assert joints[5, 0] == 7.3 and joints[10, 0] == 49.9 and not joints[:5].any() and not joints[11:].any()
    hidden = person_annotation(np.random.default_rng(0), drawn, mask, False, 0.0, 40.0)
    assert hidden["num_keypoints"] == 0 and hidden["area"] == 200
    drawn.alone = 5000  # almost all of this person is behind something
    assert person_annotation(np.random.default_rng(0), drawn, mask, True, 0.0, 40.0) is None


def test_run_lengths_round_trip():
    from pycocotools import mask as coco_mask

    rng = np.random.default_rng(0)
    for chance in (0.0, 0.1, 0.5, 1.0):
        mask = rng.random((13, 7)) < chance
        code = coco_mask.frPyObjects(run_lengths(mask), 13, 7)
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


def test_drawn_person_covers_its_joints_and_leaves_no_holes():
    import cv2

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
    patches = [
        Patch(square - [0, 0, 0.5], towards, red),
        Patch(square, towards, blue),
        Patch(square - 1, -towards, blue),
    ]
    colour, depth = rasterise(patches, Camera(50.0, (20.0, 20.0)), Light(np.array([0, 0, -1.0]), 1.0, 0.0), 41, 41)
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
        assert np.linalg.norm(np.diff(s.arms, axis=1), axis=-1) == pytest.approx(
            np.array([[size.upper_arm, size.forearm]] * 2)
        )
        assert np.linalg.norm(np.diff(s.legs, axis=1), axis=-1) == pytest.approx(
            np.array([[size.thigh, size.shank]] * 2)
        )
        points, _, _ = keypoints(s)
        assert points.shape == (17, 3) and np.isfinite(points).all()
        assert all(np.isfinite(p.points).all() for p in person_patches(s, sample_looks(rng), 100.0))


def test_as_many_people_face_left_as_right():
    rng = np.random.default_rng(0)
    people = [sample_person(rng, 5.0).skeleton for _ in range(400)]
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
    joints = [[1, 1, 2] * 10 + [1, 1, 1] * 2 + [0, 0, 0] * 5, [1, 1, 2] * 17]
    boxes, areas = [[0, 0, 10, 20], [0, 10, 10, 20]], [100, 81]
    persons = [
        {"image_id": 1, "bbox": b, "area": a, "keypoints": k, "num_keypoints": 12, "iscrowd": 0}
        for b, a, k in zip(boxes, areas, joints, strict=True)
    ]
    crowd = persons[0] | {"iscrowd": 1, "num_keypoints": 0}
    content = {
        "images": [{"id": 1, "width": 100, "height": 50}],
        "categories": [CATEGORY],
        "annotations": [*persons, crowd],
    }
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
    from yolopose.study.config import STUDY

    file = shared / "oracles" / "coco-val2017-reconstructed" / "person_keypoints_val2017_reconstructed.json"
    stored = json.loads((STUDY / "coco_val_statistics.json").read_text())
    assert dataset_statistics(json.loads(file.read_text())).items() <= stored.items()


def test_coco_difficulty_resembles_coco():
    """Loose: 150 images; the table in the notebook shows the numbers of a real data set side by side."""
    from yolopose.study.config import STUDY

    coco = json.loads((STUDY / "coco_val_statistics.json").read_text())
    images, annotations = [], []
    for i in range(150):
        image, entries = render_scene(np.random.default_rng([9, i]), "coco", 128)
        images.append({"id": i, "width": image.shape[1], "height": image.shape[0]})
        annotations += [a | {"image_id": i} for a in entries]
    ours = dataset_statistics({"images": images, "annotations": annotations, "categories": [CATEGORY]})
    for v in ("v0", "v1", "v2"):
        assert abs(ours["visibility"][v] - coco["visibility"][v]) < 0.08
    assert ours["sqrt_area"]["q50"] == pytest.approx(coco["sqrt_area"]["q50"], rel=0.3)
    assert ours["persons_per_image"]["mean"] == pytest.approx(coco["persons_per_image"]["mean"], rel=0.3)
    assert abs(ours["overlap"]["iou_0.1"] - coco["overlap"]["iou_0.1"]) < 0.12


@pytest.mark.parametrize("work", [
    "generate(root / 'new', SyntheticSpec('near', 64, 40, 4, 4), workers=2, progress=False)",
    "next(TrainLoader(load_dataset(root / 'old').train, run, load_dataset(root / 'old').schema, 1).batches(0))",
])
def test_workers_start_after_opencv_has_used_threads(tmp_path, work):
    """A forked worker that touches OpenCV's thread pool waits for threads that only its parent has."""
    generate(tmp_path / "old", SyntheticSpec("near", 64, 40, 4, 4), workers=1, progress=False)
    script = ("import sys, cv2, numpy as np; from pathlib import Path; root = Path(sys.argv[1])\n"
              "from yolopose.study.config import load_study; from yolopose.data.coco import load_dataset\n"
              "from yolopose.data.loader import TrainLoader\n"
              "from yolopose.data.synthetic.generate import SyntheticSpec, generate\n"
              "run = load_study('smoke').run('s6', 0)\n"
              "cv2.setNumThreads(2); cv2.GaussianBlur(np.zeros((2000, 2000, 3), np.uint8), (9, 9), 2)\n" + work)
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=60)
