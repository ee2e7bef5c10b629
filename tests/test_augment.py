"""Letterbox, mosaic, flip, colour and targets."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.coco_folder import COLOURS, decode_targets
from yolopose.data import augment as aug
from yolopose.data.coco import CocoDataset
from yolopose.data.letterbox import PAD_VALUE, Letterbox, letterbox
from yolopose.study.config import AugmentConfig

PLAIN = AugmentConfig(mosaic=0.0, scale=0.0, translate=0.0, flip=0.0, hsv=(0.0, 0.0, 0.0))
side = st.integers(1, 3000)


def sampled(data: CocoDataset, config: AugmentConfig = PLAIN, size: int = 160, index: int = 0,
            key: tuple[int, ...] = (0, 0, 0)) -> aug.Sample:
    return aug.augment(data.train.store, index, size, config, data.schema.flip_indices, aug.sample_generator(*key))


def test_letterbox_equals_the_reference(shared: Path):
    for row in json.loads((shared / "reference" / "official_letterbox_640.json").read_text()):
        box = Letterbox.fit(row["w"], row["h"], 640, truncate=False, scale_up=row["scaleup"])
        assert (box.gain, box.pad_w, box.pad_h) == (row["ratio"], row["pad_w"], row["pad_h"])


@pytest.mark.parametrize(("width", "height", "resized", "pad", "corner"), [
    (640, 480, (640, 480), (0, 80), (0, 80)),
    (500, 333, (640, 426), (0, 107), (0, 107)),  # 333 · 1.28 = 426.24
    (64, 96, (426, 640), (107, 0), (107, 0)),  # 64 · 6.67 = 426.67, truncated
    (640, 427, (640, 427), (0, 106.5), (0, 106)),  # odd slack: the smaller half above
])
def test_letterbox_for_evaluation_by_hand(width, height, resized, pad, corner):
    image, box = letterbox(np.zeros((height, width, 3), np.uint8), 640)
    assert (box.new_width, box.new_height) == resized
    assert (box.pad_w, box.pad_h) == pad and (box.left, box.top) == corner
    inside = np.zeros((640, 640), bool)
    inside[corner[1]:corner[1] + resized[1], corner[0]:corner[0] + resized[0]] = True
    assert (image[inside] == 0).all() and (image[~inside] == PAD_VALUE).all()


@given(side, side, st.integers(32, 1280), st.booleans(), st.booleans(),
       st.lists(st.tuples(st.floats(-100, 3000), st.floats(-100, 3000)), min_size=1, max_size=5))
def test_letterbox_and_back(width, height, size, truncate, scale_up, points):
    box = Letterbox.fit(width, height, size, truncate, scale_up)
    np.testing.assert_allclose(box.invert(box.apply(points)), points, rtol=1e-9, atol=1e-6)
    clipped = box.invert(box.apply(points), clip=True)
    assert (clipped >= 0).all() and (clipped <= (width, height)).all()
    # The reference's one gain and unrounded pads differ by less than a pixel of the input over the whole image.
    corners = np.array([(0, 0), (width, height)])
    official = corners * box.gain + (box.pad_w, box.pad_h)
    assert np.abs(box.apply(corners) - official).max() < 2


def test_letterbox_shrinks_by_area_and_enlarges_bilinearly():
    """Of a 1 px checkerboard, bilinear samples at a third of the size would keep the pattern; area averages it."""
    board = (np.indices((96, 96)).sum(0) % 2 * 255).astype(np.uint8)
    image, _ = letterbox(np.repeat(board[:, :, None], 3, 2), 32)
    assert set(np.unique(image)) == {113, 142}  # 4 or 5 of 9 pixels are white
    small = np.random.default_rng(0).integers(0, 255, (20, 20, 3), np.uint8)
    np.testing.assert_array_equal(letterbox(small, 30)[0], cv2.resize(small, (30, 30), interpolation=cv2.INTER_LINEAR))


@pytest.mark.parametrize(("width", "height", "how", "gain", "resized", "corner"), [
    (100, 50, {"scale_up": False}, 1, (100, 50), (270, 295)),
    (1280, 640, {"scale_up": False}, 0.5, (640, 320), (0, 160)),
    (64, 96, {"truncate": False}, 640 / 96, (427, 640), (106, 0)),  # 426.67, and a slack of 213: the smaller half left
    (427, 640, {}, 1, (427, 640), (106, 0)),
    (3000, 1, {}, 640 / 3000, (640, 1), (0, 319)), (1, 3000, {}, 640 / 3000, (1, 640), (319, 0))])  # never no pixel
def test_letterbox_rounded_and_not_enlarged_by_hand(width, height, how, gain, resized, corner):
    box = Letterbox.fit(width, height, 640, **how)
    assert (box.gain, box.new_width, box.new_height, box.left, box.top) == (gain, *resized, *corner)
    assert box.invert(np.array([(-50, -50), (700, 700)]), clip=True).tolist() == [[0, 0], [width, height]]


def test_letterbox_into_a_place_of_its_own():
    place = np.zeros((64, 64, 3), np.uint8)
    image, _ = letterbox(np.full((32, 64, 3), 9, np.uint8), 64, out=place)
    assert image is place and (place[16:48] == 9).all() and (place[:16] == PAD_VALUE).all()


def test_plain_sample_is_the_letterboxed_image(tiny_data: CocoDataset):
    """Without zoom and shift a 160 × 120 image in 160 px is moved by 20 px and is otherwise untouched."""
    sample = sampled(tiny_data)
    np.testing.assert_array_equal(sample.image[20:140], tiny_data.train.load_image(0))
    flipped = sampled(tiny_data, replace(PLAIN, flip=1.0))
    assert flipped.flipped and (flipped.image[:, ::-1] == sample.image).all()
    assert (sample.image[:20] == PAD_VALUE).all() and (sample.image[140:] == PAD_VALUE).all()
    np.testing.assert_allclose(sample.boxes_xyxy, tiny_data.train.boxes_xyxy(0) + np.float32([0, 20, 0, 20]))
    np.testing.assert_allclose(sample.keypoints[0, :, :2], tiny_data.train.keypoints(0)[0, :, :2] + [0, 20])
    sample = sampled(tiny_data, size=320)  # both treat pixels as areas: no half pixel between training and testing
    image, box = letterbox(tiny_data.train.load_image(0), 320)
    assert np.abs(sample.image.astype(int) - image).max() <= 8  # cv2.warpAffine interpolates in steps of 1/32 px
    np.testing.assert_allclose(sample.keypoints[0, :, :2], box.apply(tiny_data.train.keypoints(0)[0, :, :2]), rtol=1e-6)


def test_mosaic_tiles_by_hand():
    """Canvas 200, centre (120, 90), images 100 × 50 px into size 100: gain 1; (100, 100) goes to (50, 50), no zoom."""
    images, centre, middle = np.full((4, 2), (100, 50)), np.array([120.0, 90.0]), np.array([50.0, 50.0])
    tiles = aug.plan_mosaic(np.arange(4), images, 100, centre, 1.0, middle)
    assert [t.offset for t in tiles] == [(-30, -10), (70, -10), (-30, 40), (70, 40)]
    assert [t.window for t in tiles] == [(0, 0, 70, 40), (70, 0, 100, 40), (0, 40, 70, 90), (70, 40, 100, 90)]
    # Twice as large about the canvas centre: everything moves away from (50, 50).
    zoomed = aug.plan_mosaic(np.arange(4), images, 100, centre, 2.0, middle)
    assert zoomed[3].offset == (90, 30) and zoomed[3].scale == 2 and zoomed[3].window == (90, 30, 100, 100)
    # Centre (50, 50): the first tile is cut at the canvas to its lower right quarter; half zoom shows it.
    tiles = aug.plan_mosaic(np.arange(4), np.full((4, 2), (100, 100)), 100, middle, 0.5, middle)
    assert tiles[0].offset == (-25, -25) and tiles[0].window == (0, 0, 25, 25)
    assert tiles[3].offset == (25, 25) and tiles[3].window == (25, 25, 75, 75)
    (tile,) = aug.plan_single(7, np.array([100, 50]), 100, 0.5, np.array([60.0, 40.0]))
    # Letterboxed corner (0, 25) is (-50, -25) from the centre, halved (-25, -12.5), and the centre is at (60, 40).
    assert tile == aug.Tile(7, 0.5, (35.0, 27.5), (35.0, 27.5, 85.0, 52.5))
    (tile,) = aug.plan_single(7, np.array([400, 200]), 100, 0.5, np.array([60.0, 40.0]))  # four times as large a file
    assert tile == aug.Tile(7, 0.125, (35.0, 27.5), (35.0, 27.5, 85.0, 52.5))


class Share:
    """A generator that gives the same ``share`` of every range, and of ``random`` itself."""

    def __init__(self, share: float):
        self.share = share

    def random(self) -> float:
        return self.share

    def uniform(self, low: float, high: float, size: int = 1) -> np.ndarray | float:
        value = low + self.share * (high - low)
        return value if size == 1 else np.full(size, value)

    def integers(self, high: int, size: int) -> np.ndarray:
        return np.full(size, int(self.share * high))


@pytest.mark.parametrize(("share", "zoom", "shift", "gains", "centre"), [
    (0.25, 0.8, 45.0, (0.9, 0.75, 0.6), 75), (0.5, 1.0, 50.0, (1, 1, 1), 100),
    (0.75, 1.2, 55.0, (1.1, 1.25, 1.4), 125)])
@pytest.mark.parametrize("chance", [0.5, 0.6, 1.0])
def test_what_the_draws_become(tiny_data: CocoDataset, monkeypatch, share, zoom, shift, gains, centre, chance):
    """Zoom 1 ± scale, shift 0.5 ± translate of the side, gains 1 ± hsv, centre of the mosaic from 0.5 to 1.5 sides."""
    seen: list[np.ndarray] = []
    monkeypatch.setattr(aug, "jitter_colour", lambda image, gains: seen.append(gains) or image)
    config = AugmentConfig(mosaic=chance, scale=0.4, translate=0.1, flip=chance, hsv=(0.2, 0.5, 0.8))
    store = tiny_data.train.store
    sample = aug.augment(store, 3, 100, config, tiny_data.schema.flip_indices, Share(share))
    place = np.full(2, shift)
    if share < chance:
        indices = np.array([3, *[int(share * len(store))] * 3])
        tiles = aug.plan_mosaic(indices, store.sizes[indices], 100, np.full(2, float(centre)), zoom, place)
    else:
        tiles = aug.plan_single(3, store.sizes[3], 100, zoom, place)
    assert sample.flipped is (share < chance) and [t.index for t in sample.tiles] == [t.index for t in tiles]
    for tile, expected in zip(sample.tiles, tiles, strict=True):
        assert (tile.scale, *tile.offset, *tile.window) == pytest.approx(
            (expected.scale, *expected.offset, *expected.window))
    assert len(seen) == 1 and seen[0] == pytest.approx(gains)
    assert len(sample.area_shares) == len(sample.boxes_xyxy) == len(sample.keypoints)
    aug.augment(store, 3, 100, replace(config, hsv=(0.0, 0.0, 0.0)), tiny_data.schema.flip_indices, Share(share))
    assert len(seen) == 1, "without colour nothing is converted"
    aug.augment(store, 3, 100, replace(config, hsv=(0.0, 0.0, 0.1)), tiny_data.schema.flip_indices, Share(share))
    assert len(seen) == 2


@pytest.mark.parametrize(("scale", "reduce"), [
    (1.5, 1), (1.0, 1), (0.51, 1), (0.5, 2), (0.26, 2), (0.25, 4), (0.126, 4), (0.125, 8), (0.01, 8)])
def test_images_are_decoded_no_smaller_than_they_are_shown(scale, reduce):
    assert aug.Tile(0, scale, (0.0, 0.0), (0.0, 0.0, 1.0, 1.0)).reduce == reduce


class Ramp:
    """A store of one image, (30, 40) px, whose red is the column and whose green is the row."""

    def load_image(self, index: int, reduce: int) -> np.ndarray:
        assert (index, reduce) == (0, 1)
        row, column = np.indices((30, 40))
        return np.stack((column, row, np.full_like(row, 200)), 2).astype(np.uint8)


def test_pixels_land_where_points_do():
    """A pixel's centre p is drawn from (p − offset) / scale, and only pixels with their centre in the window are."""
    tile = aug.Tile(0, 2.0, (-6.0, 4.0), (2.6, 10.5, 50.4, 61.6))
    image = aug.render([tile], Ramp(), 64)
    inside = np.zeros((64, 64), bool)
    inside[10:62, 3:50] = True  # the centres 10.5 and 3.5 … 61.5 and 49.5
    assert (image[~inside] == PAD_VALUE).all() and (image[inside][:, 2] == 200).all()
    for row, column in ((10, 3), (30, 20), (61, 49)):  # bilinear of a ramp: exact but for rounding
        x, y = (column + 0.5 + 6) / 2 - 0.5, (row + 0.5 - 4) / 2 - 0.5  # as a pixel's index
        assert image[row, column, :2] == pytest.approx([x, y], abs=0.51)
    whole = aug.render([aug.Tile(0, 2.0, (0.0, 0.0), (0.0, 0.0, 80.0, 60.0))], Ramp(), 80)
    assert (whole[:60, :, 2] == 200).all(), "nothing from beyond the image is mixed in at its edges"
    empty = aug.Tile(0, 2.0, (0.0, 0.0), (3.6, 0.0, 4.4, 9.0))  # no pixel's centre
    assert (aug.render([empty, aug.Tile(0, 1.0, (0.0, 0.0), (0.0, 5.0, 9.0, 5.2))], Ramp(), 8) == PAD_VALUE).all()


@pytest.mark.parametrize(("box", "kept"), [  # in a window of 60 px
    ((0, 0, 2, 2), False), ((0, 0, 2.01, 2.01), True), ((0, 0, 30, 2), False), ((0, 0, 2, 30), False),
    ((-18, 0, 2.02, 30), True), ((-18.18, 0, 2.02, 30), False), ((40, 50, 80, 100), False),
    ((40, 49.95, 80, 99.95), True), ((0, 0, 59.9, 3), True), ((0, 0, 60, 3), False),
    ((0, 0, 40.8, 2.02), False), ((0, 0, 2.02, 40.8), False),
    ((0, 0, 40, 2.02), True), ((0, 0, 2.02, 40), True), ((10, 10, 10, 30), False), ((70, 10, 90, 30), False)])
def test_what_remains_of_a_box_decides_whether_it_stays(box, kept):
    """More than 2 px of each side, more than 10 % of the area, and an aspect below 20."""
    tile = aug.Tile(0, 1.0, (0.0, 0.0), (0.0, 0.0, 60.0, 60.0))
    placed, joints, keep = aug.place_labels(tile, np.float32([box]), np.zeros((1, 3, 3), np.float32))
    assert keep.tolist() == [kept] and len(placed) == len(joints) == int(kept)


def test_joints_in_the_window_and_beyond_it():
    """Window 10 … 60 × 20 … 70: the near edges are in, the far ones out; what is out is absent."""
    tile = aug.Tile(0, 0.5, (5.0, 10.0), (10.0, 20.0, 60.0, 70.0))  # image px 10 … 110 × 20 … 120
    points = np.float32([[10, 20, 1], [9.9, 50, 2], [50, 19.9, 2], [109.9, 119.9, 2], [110, 50, 2], [50, 120, 2],
                         [50, 50, 0]])
    _, joints, _ = aug.place_labels(tile, np.float32([[20, 30, 100, 110]]), points[None])
    assert joints[0] == pytest.approx(np.float32(
        [[10, 20, 1], [0, 0, 0], [0, 0, 0], [59.95, 69.95, 2], [0, 0, 0], [0, 0, 0], [0, 0, 0]]))


def test_labels_out_of_view_by_hand():
    tile = aug.Tile(0, 1.0, (-20.0, 0.0), (0.0, 0.0, 60.0, 60.0))
    boxes = np.float32([[10, 10, 50, 50],  # becomes -10 … 30: clipped, three quarters visible
                        [0, 0, 21, 50],  # 1 px wide after clipping: dropped
                        [0, 0, 23, 59],  # 3 of 23 px visible, aspect 59 / 3 < 20: kept
                        [0, 0, 22.2, 55],  # 2.2 of 22.2 px are under 10 %: dropped
                        [30, 10, 32.9, 70]])  # aspect 50 / 2.9 < 20: kept, cut at the bottom
    keypoints = np.zeros((5, 3, 3), np.float32)
    keypoints[0] = [[15, 20, 2], [20, 20, 1], [45, 60, 2]]  # x -5: left; x 0: in view; y 60: on the far edge, out
    keypoints[2] = [[5, 5, 2]] * 3
    placed, joints, kept = aug.place_labels(tile, boxes, keypoints)
    assert kept.tolist() == [True, False, True, False, True]
    np.testing.assert_allclose(placed, [[0, 10, 30, 50], [0, 0, 3, 59], [10, 10, 12.9, 60]], rtol=1e-6)
    assert joints[0].tolist() == [[0, 0, 0], [0, 20, 1], [0, 0, 0]]
    assert not joints[1].any(), "a person whose joints are all gone stays as a box"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 1.0]), st.sampled_from([64, 160, 200]))
def test_joints_follow_the_pixels(tiny_data: CocoDataset, seed: int, mosaic: float, size: int):
    """Under every present joint lies its own colour (left and right swapped by a flip), well inside its square."""
    config = AugmentConfig(mosaic=mosaic, hsv=(0.0, 0.0, 0.0))
    sample = sampled(tiny_data, config, size, seed % len(tiny_data.train), (seed, 0, 0))
    assert sample.image.shape == (size, size, 3) and sample.image.dtype == np.uint8
    colours = np.array(COLOURS)[tiny_data.schema.flip_indices if sample.flipped else slice(None)]
    smallest = min(tile.scale for tile in sample.tiles)
    for box, joints in zip(sample.boxes_xyxy, sample.keypoints, strict=True):
        assert (box >= 0).all() and (box <= size).all() and (box[2:] - box[:2] > 2).all()
        assert not joints[joints[:, 2] == 0].any()
        for (x, y, v), colour in zip(joints, colours, strict=True):
            assert 0 <= x <= size and 0 <= y <= size
            column, row = min(int(x), size - 1), min(int(y), size - 1)
            if v and smallest > 0.4:
                assert np.abs(sample.image[row, column].astype(int) - colour).max() < 100


def test_a_sample_is_a_function_of_seed_epoch_and_position_and_an_epoch_of_its_order(tiny_data: CocoDataset):
    def make(*key: int) -> np.ndarray:
        return sampled(tiny_data, AugmentConfig(), 96, 1, key).image

    np.testing.assert_array_equal(make(0, 1, 2), make(0, 1, 2))
    assert all((make(0, 1, 2) != make(*other)).any() for other in ((1, 1, 2), (0, 2, 2), (0, 1, 3)))
    first, second = aug.epoch_order(0, 0, 100), aug.epoch_order(0, 1, 100)
    assert sorted(first) == sorted(second) == list(range(100))
    assert (first != second).any() and (first == aug.epoch_order(0, 0, 100)).all()


joint = st.tuples(st.floats(0, 640, width=32), st.floats(0, 640, width=32), st.sampled_from([0, 1, 2]))
labels = st.lists(st.tuples(*[st.floats(0, 1, width=32)] * 4, st.lists(joint, min_size=3, max_size=3)), max_size=4)


@given(labels)
def test_flipping_twice_changes_nothing_and_targets_decode_to_their_labels(rows: list):
    boxes = np.float32([[x * 600, y * 600, x * 600 + 4 + w * 36, y * 600 + 4 + h * 36] for x, y, w, h, _ in rows])
    joints = np.float32([row[4] for row in rows]).reshape(-1, 3, 3)
    joints[joints[:, :, 2] == 0] = 0
    once = aug.flip_labels(boxes := boxes.reshape(-1, 4), joints, 640, np.array([0, 2, 1]))
    assert (once[0][:, 2] > once[0][:, 0]).all()
    twice = aug.flip_labels(*once, 640, np.array([0, 2, 1]))
    for again, first in zip(twice, (boxes, joints), strict=True):
        np.testing.assert_allclose(again, first, atol=1e-4)
    targets = aug.encode_targets(boxes, joints, 5)
    assert targets.shape == (len(rows), 15) and targets.dtype == np.float32
    again = decode_targets(targets, 5)
    np.testing.assert_allclose(again[0], boxes, atol=1e-3)
    np.testing.assert_array_equal(again[1], joints)
    assert len(decode_targets(targets, 4)[0]) == 0


def test_flip_and_target_row_by_hand():
    joints = np.float32([[[12, 21, 2], [0, 0, 0], [0, 25, 1]]])
    boxes, joints = aug.flip_labels(np.float32([[10, 20, 30, 40]]), joints, 100, np.array([0, 2, 1]))
    assert boxes.tolist() == [[70, 20, 90, 40]]
    assert joints.tolist() == [[[88, 21, 2], [100, 25, 1], [0, 0, 0]]]  # x = 0 with v = 1 is a real joint
    row = aug.encode_targets(np.float32([[10, 20, 30, 60]]), np.float32([[[1, 2, 2], [0, 0, 0], [5, 6, 1]]]), 3)
    assert row.tolist() == [[3, 0, 20, 40, 20, 40, 1, 2, 2, 0, 0, 0, 5, 6, 1]]
    row = aug.encode_targets(np.float32([[10, 20, 30, 60]]), np.float32([[[1, 2, 2]]]), 3, np.float32([0.25]))
    assert row.tolist() == [[3, 0, 20, 40, 20, 40, 1, 2, 2, 0.25]]


def test_colour_by_hand():
    """Pure red has hue 0, saturation and value 255; half the value is a red of 127; hue 90 of 60 · 1.5 is cyan."""
    red, green = np.full((1, 1, 3), (255, 0, 0), np.uint8), np.full((1, 1, 3), (0, 255, 0), np.uint8)
    assert aug.jitter_colour(red.copy(), np.array([1, 1, 0.5])).tolist() == [[[127, 0, 0]]]
    assert aug.jitter_colour(green.copy(), np.array([1.5, 1, 1])).tolist() == [[[0, 255, 255]]]
    assert aug.jitter_colour(green.copy(), np.array([4, 1, 1])).tolist() == [[[0, 255, 0]]]  # 240 modulo 180 is 60
    blue = np.full((1, 1, 3), (0, 0, 255), np.uint8)  # hue 120: 264 modulo 180 is 84, which 8 bits cannot hold before
    assert aug.jitter_colour(blue.copy(), np.array([2.2, 1, 1])).tolist() == [[[0, 255, 204]]]
    assert aug.jitter_colour(blue.copy(), np.array([1, 0.5, 1])).tolist() == [[[128, 128, 255]]]
    assert aug.jitter_colour(red.copy(), np.array([1, 0, 1])).tolist() == [[[255, 255, 255]]]
    assert aug.jitter_colour(red.copy(), np.array([1, 1, 2])).tolist() == [[[255, 0, 0]]]  # saturates
