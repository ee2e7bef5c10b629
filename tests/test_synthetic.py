"""The embedded data set: determinism, COCO's conventions, what the labels say about the pixels, resumption."""

import errno
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from tests.coco_folder import tree
from yolopose.analysis.dataset import dataset_statistics
from yolopose.data.synthetic import compose as composer
from yolopose.data.synthetic import generate as generator
from yolopose.data.synthetic.body import keypoints, person_patches
from yolopose.data.synthetic.compose import DIFFICULTIES, compose
from yolopose.data.synthetic.generate import CATEGORY, SyntheticSpec, generate, render_image
from yolopose.data.synthetic.looks import Looks, side_colours
from yolopose.data.synthetic.person import LIVELY, Drawn, Person, draw_person, sample_person
from yolopose.data.synthetic.raster import Camera, Light, Patch, rasterise
from yolopose.data.synthetic.skeleton import ARM_LIMITS, LEG_LIMITS, Pose, Proportions, Skeleton, sample_pose
from yolopose.study.config import STUDY
from yolopose.utils.errors import StudyError
from yolopose.utils.files import read_json

LIGHT = Light(np.array([0.0, -0.8, -0.6]), 0.5, 0.6)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> tuple[Path, SyntheticSpec]:
    """A data set of six chunks, made in one process."""
    root = tmp_path_factory.mktemp("synthetic") / "near"
    spec = SyntheticSpec("near", 64, train=34, val=17, test_dev=5, seed=3)
    generate(root, spec, workers=1, progress=False)
    return root, spec


@cache
def scenes(difficulty: str, size: int, count: int) -> list[tuple[np.ndarray, list[dict]]]:
    return [compose(np.random.default_rng([5, i]), DIFFICULTIES[difficulty], size) for i in range(count)]


def person(yaw: float, pose: Pose | None = None) -> Person:
    """A bald adult of known pose, so that no hair hides a keypoint."""
    pose = pose or Pose(arms=np.array([[0, 35, 0, 5]] * 2, float), legs=np.array([[0, 6, 0, 0, 0]] * 2, float))
    rng = np.random.default_rng(1)
    while (looks := Looks(rng)).hair_style != "bald" or looks.backpack is not None:
        pass
    return Person(Skeleton(pose, Proportions(), yaw, 0.0), looks, Camera(180.0, (120, 130), 6.0), np.zeros(4))


def draw(someone: Person, size: int = 240) -> tuple[Drawn, np.ndarray]:
    image, owner = np.full((size, size, 3), 120, np.uint8), np.zeros((size, size), np.uint8)
    return draw_person(someone, LIGHT, image, owner, 1), owner


def test_same_bytes_whatever_the_number_of_workers_and_what_another_spec_left(small, tmp_path):
    root, spec = small
    stray = tmp_path / "again.partial" / "train2017" / "stray.jpg"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"")
    (tmp_path / "again.partial" / "fingerprint").write_text("another")
    generate(tmp_path / "again", spec, workers=2, progress=False)
    assert tree(tmp_path / "again") == tree(root)


def test_image_depends_on_seed_split_and_number_alone():
    one, more, other = (SyntheticSpec("near", 80, n, 1, 1, seed) for n, seed in ((5, 4), (50, 4), (5, 5)))
    assert render_image(one, "train", 3) == render_image(more, "train", 3)
    codes = {render_image(one, split, 0)[0] for split in generator.SPLITS}
    assert len(codes | {render_image(other, "train", 0)[0]}) == 4


def test_layout_is_coco_and_a_complete_data_set_is_left_alone_and_other_data_refused(small):
    root, spec = small
    for name, folder, count in (("train", "train2017", 34), ("val", "val2017", 17)):
        content = read_json(root / "annotations" / f"person_keypoints_{name}2017.json")
        assert len(content["images"]) == count == len(list((root / folder).iterdir()))
        assert content["categories"][0]["keypoints"] == CATEGORY["keypoints"] and len(CATEGORY["keypoints"]) == 17
        assert all(len(i["file_name"]) == 16 and (root / folder / i["file_name"]).exists() for i in content["images"])
        assert len({a["id"] for a in content["annotations"]}) == len(content["annotations"])
    public = read_json(root / "annotations" / "image_info_test-dev2017.json")
    assert "annotations" not in public and len(public["images"]) == 5
    server = COCO(str(root / "server" / "person_keypoints_test-dev2017.json"))
    assert set(server.getImgIds()) == {i["id"] for i in public["images"]}
    assert read_json(root / "dataset.json")["fingerprint"] == spec.fingerprint() and not (root / "chunks").exists()
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    generate(root, spec, workers=1, progress=False)
    assert before == {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    with pytest.raises(StudyError, match="other data"):
        generate(root, SyntheticSpec("near", 64, 1, 1, 1), workers=1, progress=False)


def test_interrupted_generation_goes_on_where_it_was(small, tmp_path, monkeypatch):
    root, spec = small
    target, partial = tmp_path / "resumed", tmp_path / "resumed.partial"
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
    assert not target.exists() and partial.exists()
    later = []
    monkeypatch.setattr(generator, "_draw_chunk", lambda task: later.append(task[2:]) or real(task))
    generate(target, spec, workers=1, progress=False)
    assert calls == [("train", 0)] and ("train", 0) not in later and len(later) == 5  # of six chunks
    assert tree(target) == tree(root) and not partial.exists()


def test_disk_errors_name_folder_and_remedy(tmp_path, monkeypatch):
    for code, words in ((errno.ENOSPC, "no space left.*; free"), (errno.EACCES, "not writable; .* a folder that")):
        monkeypatch.setattr(generator, "_draw_chunk", Mock(side_effect=OSError(code, "refused")))
        with pytest.raises(StudyError, match=f"data.partial: {words}"):
            generate(tmp_path / "data", SyntheticSpec("near", 64, 2, 0, 0), workers=1, progress=False)


def test_fingerprint_follows_spec_and_generator_and_bad_specs_are_named(monkeypatch):
    spec = SyntheticSpec("near", 128, 1, 1, 1)
    for change in ({"difficulty": "far"}, {"image_size": 63}, {"train": -1}, {"seed": -2}):
        with pytest.raises(StudyError, match=f"synthetic data: {next(iter(change))} "):
            replace(spec, **change)
    names = {spec.fingerprint(), replace(spec, difficulty="coco").fingerprint(), replace(spec, seed=1).fingerprint()}
    monkeypatch.setattr(generator, "GENERATOR_VERSION", "another")
    assert len(names | {spec.fingerprint()}) == 4


@pytest.mark.parametrize("chosen", [("near", 144, 80), ("coco", 128, 120), ("coco", 64, 40)])
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
    for image, entries in scenes("near", 144, 80):
        for a in (a for a in entries if not a["iscrowd"]):
            code = coco_mask.merge(coco_mask.frPyObjects(a["segmentation"], *image.shape[:2]))
            difference = coco_mask.toBbox(code) - a["bbox"]  # x, y, width, height
            off.append(np.abs([*difference[:2], *(difference[:2] + difference[2:])]).max())
            ratios.append(coco_mask.area(code) / a["area"])
    assert len(ratios) > 100 and abs(np.mean(ratios) - 1) < 0.02 and min(ratios) > 0.7 and max(ratios) < 1.3
    # A detached line of pixels, one wide, can get lost when pycocotools fills its outline.
    assert np.mean(np.array(off) > 1) < 0.03
    labelled = [a for _, entries in scenes("near", 144, 80) for a in entries if a["num_keypoints"]]
    assert 0.45 < np.mean([a["area"] / (a["bbox"][2] * a["bbox"][3]) for a in labelled]) < 0.6  # as thick as bodies


def test_crowd_is_one_region_without_keypoints_and_run_lengths_are_pycocotools():
    crowded, regions = replace(DIFFICULTIES["near"], crowd=1.0), 0
    for i in range(6):
        image, entries = compose(np.random.default_rng([3, i]), crowded, 160)
        for a in (a for a in entries if a["iscrowd"]):
            code, regions = coco_mask.frPyObjects(a["segmentation"], *image.shape[:2]), regions + 1
            assert coco_mask.area(code) == a["area"] and coco_mask.toBbox(code).tolist() == a["bbox"]
            assert not any(a["keypoints"]) and a["num_keypoints"] == 0
    assert regions >= 4
    rng = np.random.default_rng(0)
    for chance in (0.0, 0.1, 0.5, 1.0):
        mask = rng.random((13, 7)) < chance
        assert (coco_mask.decode(coco_mask.frPyObjects(composer.run_lengths(mask), 13, 7)) == mask).all()
    assert composer.crowd_annotation(np.zeros((13, 7), bool)) is None


def test_annotation_of_a_known_mask():
    mask = np.zeros((40, 50), bool)
    mask[10:30, 5:15] = True
    points = np.full((17, 2), 100.0)  # outside of the picture
    points[5:11] = [[7.26, 12], [12, 12], [6, 20], [20, 20], [8, 25], [49.99, 5]]
    shown = np.ones(17, bool)
    shown[7] = False  # left elbow behind the own body; right elbow outside of the mask: something covers it
    drawn = Drawn(points, shown, np.ones(17), 200)

    def annotate(**changes):
        return composer.person_annotation(np.random.default_rng(0), replace(person(0), **changes), drawn, mask, 0.0)

    a = annotate()
    labels = np.array(a["keypoints"]).reshape(17, 3)
    assert a["bbox"] == [5, 10, 10, 20] and a["area"] == 200 and a["segmentation"] == composer.outline(mask)
    # The right wrist has neither neighbour in sight (its elbow is hidden) but the other wrist is: it can be placed.
    assert labels[5:11, 2].tolist() == [2, 2, 1, 1, 2, 1] and a["num_keypoints"] == 6
    assert labels[5, 0] == 7.3 and labels[10, 0] == 49.9 and not labels[:5].any() and not labels[11:].any()
    assert [annotate(labelled=False)[key] for key in ("num_keypoints", "area")] == [0, 200]
    drawn.alone = 5000  # almost all of this person is behind something
    assert annotate() is None


def test_sides_and_visibility_follow_the_heading():
    (front, _), (away, _), (side, _) = (draw(person(yaw)) for yaw in (0, 180, 90))
    for left, right in ((1, 2), (3, 4), (5, 6), (9, 10), (11, 12), (15, 16)):  # left is right when facing the camera
        assert front.points[left, 0] > front.points[right, 0] and away.points[left, 0] < away.points[right, 0]
    assert (np.diff(front.points[[0, 5, 11, 13, 15], 1]) > 0).all()  # nose above shoulders above hips ...
    assert front.shown.all()
    assert not away.shown[:3].any() and away.shown[5:].all()  # the back of the head hides nose and eyes
    # yaw 90 faces the left of the picture; the person's left side is towards the camera
    assert side.shown[[0, 1, 3, 5]].all() and not side.shown[[2, 4, 6, 12]].any()
    # One arm behind the back.
    pose = Pose(arms=np.array([[-45, -5, 70, 95], [0, 35, 0, 5]], float))
    front, away = (draw(person(yaw, pose))[0].shown[[9, 10]].tolist() for yaw in (0, 180))
    assert front == [False, True] and away == [True, True]


def test_drawn_person_covers_its_keypoints_and_leaves_no_holes_and_outside_is_nobody():
    for scale, origin in ((100.0, (-500.0, 30.0)), (20.0, (60.5, 30.0)), (100.0, (30.0, 900.0))):
        drawn, _ = draw(replace(person(0), camera=Camera(scale, origin, 6.0)), size=60)
    assert drawn.alone == 0 and not drawn.shown.any(), "outside of the picture"
    drawn, owner = draw(person(0))
    places = drawn.points.astype(int)
    assert (owner[places[:, 1], places[:, 0]] == 1).all() and drawn.alone == owner.sum()
    count, _, stats, _ = cv2.connectedComponentsWithStats((owner == 0).astype(np.uint8), connectivity=4)
    assert all(stats[i, cv2.CC_STAT_AREA] > 20 for i in range(1, count))


def test_nearer_surface_wins():
    square = np.array([[[-0.2, -0.2, 0], [0.2, -0.2, 0]], [[-0.2, 0.2, 0], [0.2, 0.2, 0]]], float)
    towards = np.broadcast_to([0.0, 0.0, -1.0], square.shape)
    red, blue = (np.full((2, 2, 3), c, np.uint8) for c in ((0, 0, 200), (200, 0, 0)))
    patches = [Patch(square - [0, 0, 0.5], towards, red), Patch(square, towards, blue),
               Patch(square - 1, -towards, blue)]
    colour, depth = rasterise(patches, Camera(50.0, (20.0, 20.0), 5.0), Light(np.array([0, 0, -1.0]), 1.0, 0.0), 41, 41)
    assert colour[20, 20, 2] > 150 and colour[20, 20, 0] == 0 and depth[20, 20] == pytest.approx(-0.5)
    assert colour[0, 0, 3] == 0 and np.isinf(depth[0, 0])


@pytest.mark.parametrize("family", sorted(LIVELY.poses))
def test_poses_respect_the_limits_and_bones_keep_their_length(family):
    rng = np.random.default_rng(2)
    for _ in range(20):
        pose = sample_pose(rng, {family: 1.0})
        for angles, limits in ((pose.arms, ARM_LIMITS), (pose.legs, LEG_LIMITS)):
            assert (angles >= limits[:, 0]).all() and (angles <= limits[:, 1]).all()
        s = Skeleton(pose, size := Proportions(), rng.uniform(-180, 180), 10.0)
        for limbs, lengths in ((s.arms, [size.upper_arm, size.forearm]), (s.legs, [size.thigh, size.shank])):
            assert np.linalg.norm(np.diff(limbs, axis=1), axis=-1) == pytest.approx(np.array([lengths] * 2))
        points, _, _ = keypoints(s)
        assert points.shape == (17, 3) and np.isfinite(points).all()
        assert all(np.isfinite(p.points).all() for p in person_patches(s, Looks(rng), 100.0))


def test_as_many_people_face_left_as_right_and_colours_tell_their_sides_apart():
    rng = np.random.default_rng(0)
    people = [sample_person(rng, 5.0, LIVELY).skeleton for _ in range(400)]
    forward = np.array([-s.chest_frame[0, 2] for s in people])  # x of the direction in which the chest points
    arms = np.array([[np.linalg.norm(s.arms[i, 2] - s.legs[i, 0]) for i in (0, 1)] for s in people])
    assert 0.43 < (forward > 0).mean() < 0.57
    assert abs((arms[:, 0] - arms[:, 1]).mean()) < 0.03  # neither arm is the one that always gestures
    left, right = np.array([side_colours(rng) for _ in range(300)]).transpose(1, 0, 2)  # (300, BGR) each
    assert ((left[:, 0] > left[:, 2]) | (left[:, 1] > left[:, 2])).all()  # cool: blue or green over red
    assert (right[:, 2] >= right[:, 0]).all() and (right.max(1) > left.max(1) + 25).all()  # warm and lighter


def test_statistics_of_two_known_persons():
    first = {"image_id": 1, "bbox": [0, 0, 10, 20], "area": 100, "num_keypoints": 12, "iscrowd": 0,
             "keypoints": [1, 1, 2] * 10 + [1, 1, 1] * 2 + [0, 0, 0] * 5}
    second = first | {"bbox": [0, 10, 10, 20], "area": 81, "keypoints": [1, 1, 2] * 17}
    content = {"images": [{"id": 1, "width": 100, "height": 50}], "categories": [CATEGORY],
               "annotations": [first, second, first | {"iscrowd": 1, "num_keypoints": 0}]}
    s = dataset_statistics(content)
    assert (s["images"], s["persons"], s["persons_per_image"]["mean"]) == (1, 2, 2.0)
    assert s["sqrt_area"]["mean"] == pytest.approx((0.10 + 0.09) / 2)
    assert s["visibility"] == {"v0": round(5 / 34, 4), "v1": round(2 / 34, 4), "v2": round(27 / 34, 4)}
    assert s["visibility_by_joint"]["right_ankle"] == {"v0": 0.5, "v1": 0.0, "v2": 0.5}
    assert s["keypoints_per_person"]["mean"] == 14.5 and s["mask_to_box"]["mean"] == pytest.approx(0.4525)
    assert s["overlap"] == {"iou_0.1": 1.0, "iou_0.3": 1.0, "iou_0.5": 0.0}  # IoU 100 / 300
    assert dataset_statistics(content | {"annotations": []}) == {"images": 0, "persons": 0}


def test_stored_coco_numbers_are_the_oracles(shared):
    file = shared / "oracles" / "coco-val2017-reconstructed" / "person_keypoints_val2017_reconstructed.json"
    assert dataset_statistics(read_json(file)).items() <= read_json(STUDY / "coco_val_statistics.json").items()


def test_coco_difficulty_resembles_coco():
    """Loose: 120 images; the table in the notebook shows the numbers of a real data set side by side."""
    coco = read_json(STUDY / "coco_val_statistics.json")
    found = scenes("coco", 128, 120)
    images = [{"id": i, "width": image.shape[1], "height": image.shape[0]} for i, (image, _) in enumerate(found)]
    annotations = [a | {"image_id": i} for i, (_, entries) in enumerate(found) for a in entries]
    ours = dataset_statistics({"images": images, "annotations": annotations, "categories": [CATEGORY]})
    assert ours["visibility"] == pytest.approx(coco["visibility"], rel=0, abs=0.08)
    for name, key in (("sqrt_area", "q50"), ("persons_per_image", "mean")):
        assert ours[name][key] == pytest.approx(coco[name][key], rel=0.3)
    assert abs(ours["overlap"]["iou_0.1"] - coco["overlap"]["iou_0.1"]) < 0.12


THREADS = """
import sys, cv2, numpy as np; from pathlib import Path; root = Path(sys.argv[1])
from yolopose.data.coco import load_dataset
from yolopose.data.loader import TrainLoader
from yolopose.data.synthetic.generate import SyntheticSpec, generate
from yolopose.study.config import load_study
use_threads = lambda: (cv2.setNumThreads(2), cv2.GaussianBlur(np.zeros((2000, 2000, 3), np.uint8), (9, 9), 2))
use_threads()
generate(root, SyntheticSpec("near", 64, 17, 1, 1), workers=2, progress=False)
use_threads()
data = load_dataset(root)
next(TrainLoader(data.train, load_study("smoke").run("s6", 0), data.schema, 1).batches(0))"""


def test_workers_start_after_opencv_has_used_threads(tmp_path):
    """A forked worker that touches OpenCV's thread pool waits for threads that only its parent has."""
    subprocess.run([sys.executable, "-c", THREADS, str(tmp_path / "new")], check=True, timeout=90)
