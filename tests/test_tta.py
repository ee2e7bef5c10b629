"""Test-time augmentation: cost factors, mirroring, frames of the scales, merging, and the file that is written."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lively import SHALLOW, pretend_trained
from tests.tiny import CPU
from yolopose.evaluation import tta
from yolopose.evaluation.evaluate import predict_split
from yolopose.evaluation.tta import COLOUR_MODES, MODES, SCALES, Mode, evaluate_tta, predict_views, unmirror
from yolopose.models.checkpoints import load_weights
from yolopose.models.decode import Poses, cell_indices, decode
from yolopose.models.heads import Detect
from yolopose.models.yolov5 import YOLOPose, build_model
from yolopose.study.config import EvaluateConfig, load_study, load_variants
from yolopose.utils.errors import StudyError
from yolopose.utils.files import read_json, write_json

CFG = EvaluateConfig()
FLIP = [1, 0]  # two joints, left and right


@pytest.mark.parametrize(("size", "scales", "flip", "printed", "actual"), [
    (960, (1.0,), False, 1, 1), (960, (1.0,), True, 2, 2),
    (960, SCALES, False, 5.25, (512**2 + 960**2 + 1920**2) / 960**2),  # half of 960 px is 480, padded to 512
    (960, SCALES, False, 5.25, 5.28444), (960, SCALES, True, 10.5, 10.56889),
    (128, SCALES, False, 5.25, 5.25),  # 64, 128 and 256 need no padding
    (320, SCALES, False, 5.25, 0.36 + 1 + 4)])  # 160 becomes 192
def test_cost_factors_by_hand(size, scales, flip, printed, actual):
    assert tta.cost_factor(size, scales, flip) == (printed, pytest.approx(actual, rel=1e-6))


@pytest.mark.parametrize(("size", "scales", "message"), [
    (960, (), "without a scale"), (960, (0.0,), "must be a positive number"), (960, (1.0, -1.0), "positive number"),
    (960, (float("nan"),), "positive number"), (960, (float("inf"),), "positive number"),
    (64, SCALES, r"scale 0\.5 of an input of 64 px is 32 px, less than the stride of 64 px.*at least 128 px")])
def test_scales_that_make_no_sense_are_refused(size, scales, message):
    with pytest.raises(StudyError, match=message):
        tta.cost_factor(size, scales, False)


@given(st.integers(64, 2000), st.floats(1.0, 4.0))
def test_sides_are_the_next_multiple_of_the_stride(size, scale):
    side = tta.view_side(size, scale)
    assert side % 64 == 0 and 0 <= side - round(size * scale) < 64


def head(joints: int = 2) -> Detect:
    return Detect([8] * 4, (8, 16, 32, 64), torch.full((4, 3, 2), 40.0), joints)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([64, 128, 192]), st.booleans())
def test_unmirroring_twice_is_the_identity(seed, side, permute):
    detect = head(3)
    cells = 3 * sum((side // s) ** 2 for s in detect.strides)
    decoded = torch.rand(2, cells, 15, generator=torch.Generator().manual_seed(seed)) * 300
    flip = [0, 2, 1] if permute else None
    once = unmirror(decoded, side, detect, flip)
    assert not torch.equal(once, decoded)
    torch.testing.assert_close(unmirror(once, side, detect, flip), decoded, atol=1e-3, rtol=0)


def test_unmirroring_by_hand():
    """64 px: 8 × 8 cells at stride 8; anchor 1, row 2, column 5 becomes column 2, x becomes 64 − x."""
    decoded = torch.zeros(1, 3 * (64 + 16 + 4 + 1), 12)
    row = [44, 20, 8, 6, 0.9, 0.8, 40, 18, 0.7, 50, 22, 0.6]
    decoded[0, 1 * 64 + 2 * 8 + 5] = torch.tensor(row)
    for flip, joints in ((FLIP, [14, 22, 0.6, 24, 18, 0.7]), (None, [24, 18, 0.7, 14, 22, 0.6])):
        found = unmirror(decoded, 64, head(), flip)[0, 1 * 64 + 2 * 8 + 2]
        assert found.tolist() == pytest.approx([20, 20, 8, 6, 0.9, 0.8, *joints])


def test_decoded_grid_is_the_one_that_unmirroring_expects():
    detect = head()
    raw = [torch.zeros(1, 3, 128 // stride, 128 // stride, 12) for stride in detect.strides]
    torch.testing.assert_close(unmirror(decode(raw, detect), 128, detect, FLIP)[..., :6], decode(raw, detect)[..., :6])


@pytest.mark.parametrize("shape", [(128, 128), (100, 128), (128, 80)])
def test_the_flip_test_treats_an_image_and_its_mirror_image_alike(shape):
    """Whatever the weights: what the mirrored image gives is the mirrored prediction, left and right exchanged."""
    model = build_model(load_variants()["yolov5s6_pose"], 3, 0.125, seed=1).fuse()
    image = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    flip = [0, 2, 1]
    (plain,), (mirrored,) = (
        tta.merge_views(predict_views(model, [x], 128, (1.0,), True, CPU), MODES[1], model.detect, flip)
        for x in (image, np.ascontiguousarray(image[:, ::-1])))
    torch.testing.assert_close(unmirror(mirrored, 128, model.detect, flip), plain, atol=1e-2, rtol=0)
    assert (unmirror(mirrored, 128, model.detect, None) - plain).abs().max() > 1


class Blocks(torch.nn.Module):
    """One person: the two blocks are its joints. Joint 0 is the red one (``by`` colour) or the one further right."""

    def __init__(self, by: str = "colour", blind_at: int | None = None):
        super().__init__()
        self.detect, self.by, self.blind_at = head(), by, blind_at

    def forward(self, x):
        raw = [torch.full((len(x), 3, x.shape[2] // s, x.shape[3] // s, 12), -12.0) for s in self.detect.strides]
        for i, image in enumerate(x):
            joints = [centre_of(image, 0), centre_of(image, 2)]
            if x.shape[3] == self.blind_at or None in joints:
                continue
            if self.by == "geometry":
                joints.sort(reverse=True)
            centre = np.mean(joints, 0)
            column, line = cell = (centre // 8).astype(int)
            assert cell_indices(line + 1, column + 1, CPU)[line, column].tolist() == [column, line]
            extent = [(abs(joints[0][0] - joints[1][0]) / 40) ** 0.5 / 2] * 2
            row = torch.logit(torch.tensor([*(centre / 8 - cell + 0.5) / 2, *extent, 0.9, 0.99]))
            kpt = np.insert((np.array(joints) / 8 - cell + 0.5) / 2, 2, 3.0, 1)
            raw[0][i, 0, line, column] = torch.cat((row, torch.tensor(kpt).flatten()))
        return raw


def centre_of(image: torch.Tensor, channel: int) -> tuple[float, float] | None:
    """Centre in px of where one colour channel outshines the other two by far."""
    rest = torch.stack([image[c] for c in range(3) if c != channel]).amax(0)
    rows, columns = torch.nonzero(image[channel] - rest > 0.5, as_tuple=True)
    return None if len(rows) == 0 else (columns.float().mean().item() + 0.5, rows.float().mean().item() + 0.5)


RED, BLUE = (82.0, 50.0), (34.0, 66.0)  # block centres in px of the image; the person's is (58, 58), inside a cell


def blocks(width: int = 128, height: int = 128, left: int = 0) -> np.ndarray:
    """The image; ``left`` moves the person to the left."""
    image = np.full((height, width, 3), 114, np.uint8)
    image[42:58, 74 - left:90 - left] = (255, 0, 0)
    image[58:74, 26 - left:42 - left] = (0, 0, 255)
    return image


def joints_of(model, mode: Mode, image: np.ndarray, size: int = 128) -> tuple[list, float]:
    views = predict_views(model, [image], size, mode.scales, True in mode.mirrored, CPU)
    found = tta.find_poses(views, mode, model.detect, FLIP, CFG)[0]
    assert len(found) == 1
    return found.keypoints[0, :, :2].flatten().tolist(), found.scores.item()


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0, 0.75])
@pytest.mark.parametrize("shape", [(128, 128), (128, 100), (97, 128), (200, 150)])
@pytest.mark.parametrize("size", [128, 160])
@pytest.mark.parametrize("mirrored", [(False,), (True,)])
def test_every_scale_and_its_mirror_land_on_the_same_pixels(scale, shape, size, mirrored):
    if round(size * scale) < 64:
        pytest.skip("below the stride")
    found, score = joints_of(Blocks(), Mode("one", (scale,), mirrored, permute=False), blocks(*shape), size)
    assert found == pytest.approx([*RED, *BLUE], abs=1.0 / min(1, scale * size / max(shape)))
    assert score == pytest.approx(0.9 * 0.99, abs=1e-4)


def test_all_views_together_land_on_the_same_pixels():
    plain, score = joints_of(Blocks(), MODES[0], blocks())
    assert plain == pytest.approx([*RED, *BLUE], abs=1e-3)
    for mode in (MODES[2], Mode("both", SCALES, tta.BOTH, permute=False)):
        together, agreed = joints_of(Blocks(), mode, blocks())
        assert together == pytest.approx(plain, abs=0.1) and agreed == pytest.approx(score, abs=1e-4)


def test_the_permutation_is_right_for_geometry_and_wrong_for_colours():
    """The reason why drawn people, whose colours tell left from right, contradict the flip test."""
    permuted, kept = MODES[1], COLOUR_MODES[0]
    middle = [(a + b) / 2 for a, b in zip(RED, BLUE, strict=True)]
    for by, right, wrong in (("geometry", permuted, kept), ("colour", kept, permuted)):
        assert joints_of(Blocks(by), right, blocks())[0] == pytest.approx([*RED, *BLUE], abs=1e-3)
        assert joints_of(Blocks(by), wrong, blocks())[0] == pytest.approx([*middle, *middle], abs=1e-3)


def test_what_one_view_misses_lowers_the_score_and_moves_nothing():
    """The price of averaging: 56 px is where cell 7 begins, and its mirror image 72 px where the partner of 6 does, so
    that the views use different cells; or scale 2 sees nobody."""
    for model, mode, left in ((Blocks(), COLOUR_MODES[0], 2), (Blocks(blind_at=256), Mode("two", (1.0, 2.0)), 0)):
        found, score = joints_of(model, mode, blocks(left=left))
        assert found == pytest.approx([82 - left, 50, 34 - left, 66], abs=1e-3)
        assert score == pytest.approx(0.9 * 0.99 / 2, abs=1e-3)


def test_nobody_at_any_scale_is_an_empty_result():
    views = predict_views(Blocks(), [np.full((90, 128, 3), 114, np.uint8), blocks()], 128, SCALES, True, CPU)
    empty, one = tta.find_poses(views, MODES[3], head(), FLIP, CFG)
    assert len(empty) == 0 and empty.keypoints.shape == (0, 2, 3) and len(one) == 1
    views = predict_views(Blocks(), [np.zeros((3, 5, 3), np.uint8)], 128, SCALES, True, CPU)  # less than the stride
    assert {key: tuple(t.shape[1:]) for key, t in views.decoded.items()}[2.0, True] == (3 * (1024 + 256 + 64 + 16), 12)


def test_average_by_hand():
    """Scores 0.75 · 0.8 = 0.6 and 0.2 · 1: places at 3 : 1, the score 0.4."""
    a = torch.tensor([[[10.0, 20, 30, 40, 0.75, 0.8, 100, 200, 0.8]]])
    b = torch.tensor([[[14.0, 24, 34, 44, 0.2, 1.0, 104, 204, 0.4]]])
    assert tta.average(a, b).flatten().tolist() == pytest.approx([11, 21, 31, 41, 0.4, 1.0, 101, 201, 0.7])
    torch.testing.assert_close(tta.average(a, b), tta.average(b, a))
    b[..., 4] = 0
    torch.testing.assert_close(tta.average(a, b)[..., 6:], a[..., 6:])
    a[..., 4] = 0
    assert tta.average(a, b).isfinite().all()


def poses(*rows) -> Poses:
    """Rows of x1, score: boxes 100 px wide at x1, one joint at x1 + 50."""
    x, scores = (torch.tensor(column) for column in zip(*rows, strict=True)) if rows else (torch.zeros(0),) * 2
    zero = torch.zeros_like(x)
    return Poses(torch.stack((x, zero, x + 100, zero + 100), 1), scores,
                 torch.stack((x + 50, zero + 50, zero + 1), 1)[:, None])


def test_consensus_by_hand():
    found = tta.consensus([poses((0.0, 0.6), (300.0, 0.9)), poses((8.0, 0.3), (600.0, 0.5)), poses()], 0.65, 10)
    # 0.9 / 3 alone; (0.6 + 0.3) / 3 together at (2 · 0 + 1 · 8) / 3, with an IoU of 92 / 108; 0.5 / 3 alone
    assert found.scores.tolist() == pytest.approx([0.3, 0.3, 0.5 / 3])
    assert sorted(found.keypoints[:2, 0, 0].tolist()) == pytest.approx([8 / 3 + 50, 350])
    assert found.boxes_xyxy[2].tolist() == [600, 0, 700, 100]
    assert len(tta.consensus([poses((0.0, 0.6), (300.0, 0.9)), poses()], 0.65, 1)) == 1
    apart = tta.consensus([poses((0.0, 0.6)), poses((30.0, 0.3))], 0.65, 10)  # IoU 70 / 130
    assert apart.scores.tolist() == pytest.approx([0.3, 0.15])
    assert len(tta.consensus([poses(), poses()], 0.65, 10)) == 0


@pytest.fixture
def study(tiny_data, tmp_path):
    """Smoke on a tiny folder, with untrained weights where training would have left its own."""
    study = load_study("smoke", tiny_data.train.image_dir.parent, tmp_path / "results")
    pretend_trained(study, tiny_data, "s6", untrained())
    return study


def untrained() -> YOLOPose:
    return build_model(replace(load_variants()["yolov5s6_pose"], **SHALLOW), 3, 0.125, seed=0)


def test_single_mode_is_the_evaluation_without_augmentation(study, tiny_data):
    model, _ = load_weights(study.run_dir("s6", 0) / "weights.pt")
    model.fuse()
    images = [tiny_data.val.load_image(i) for i in range(4)]
    views = predict_views(model, images, 128, (1.0,), False, CPU)
    merged = tta.merge_views(views, MODES[0], model.detect, [0, 2, 1])
    assert len(merged) == 1 and torch.equal(merged[0], views.decoded[1.0, False])
    expected = predict_split(model, tiny_data.val.subset(range(4)), 128, replace(CFG, batch_size=4), CPU)
    found = tta.find_poses(views, MODES[0], model.detect, [0, 2, 1], CFG)
    assert sum(map(len, found)) == len(expected) > 0
    got = torch.cat([p.keypoints.flatten(1) for p in found])
    torch.testing.assert_close(got, torch.tensor([e["keypoints"] for e in expected]), atol=0.02, rtol=0)


def test_the_file_holds_every_mode_and_is_not_measured_twice(study, tiny_data, monkeypatch):
    rows = evaluate_tta(study, tiny_data, resamples=20)
    record = read_json(study.run_dir("s6", 0) / "tta.json")
    assert [row["mode"] for row in rows] == ["single", "flip", "multiscale", "multiscale+flip", "mirrored view alone"]
    assert [m["printed_factor"] for m in record["modes"]] == [1, 2, 5.25, 10.5, 1]
    assert [m["actual_factor"] for m in record["modes"]] == [1, 2, 5.25, 10.5, 1]
    single, flip, scales, both, _ = record["modes"]
    assert single["gain"] is None and single["time_factor"] == 1
    assert flip["gain"]["AP"]["low"] <= flip["gain"]["AP"]["difference"] <= flip["gain"]["AP"]["high"]
    assert flip["gain"]["AP"]["difference"] == pytest.approx(flip["metrics"]["AP"] - single["metrics"]["AP"])
    assert record["gains"] == {m["mode"]: m["gain"] for m in record["modes"] if m["gain"]}
    assert both["seconds"]["network"] > scales["seconds"]["network"] > single["seconds"]["network"] > 0
    assert record["flip_valid"] and record["flip_reason"] == "" and record["settings"]["images"] == 8
    assert {"git", "packages", "hardware", "weights_sha256"} <= set(record)

    monkeypatch.setattr(tta, "measure_tta", lambda *_: pytest.fail("measured again"))
    assert evaluate_tta(study, tiny_data, resamples=20) == rows


def test_other_weights_or_settings_are_measured_again(study, tiny_data, monkeypatch):
    calls, path = [], study.run_dir("s6", 0) / "run.json"
    monkeypatch.setattr(tta, "measure_tta", lambda *a: calls.append(a) or {"modes": []})
    for images in (2, 3, 3):
        evaluate_tta(study, tiny_data, max_images=images, resamples=5)
    write_json(path, read_json(path) | {"weights_sha256": "other"})
    evaluate_tta(study, tiny_data, max_images=3, resamples=5)
    assert len(calls) == 3


def test_drawn_people_get_a_flip_test_that_keeps_the_names(study, tiny_data):
    study = replace(study, profile=replace(study.profile, data=replace(study.profile.data, source="synthetic")))
    pretend_trained(study, tiny_data, "s6", untrained())
    rows = evaluate_tta(study, tiny_data, max_images=4, resamples=5)
    record = read_json(study.run_dir("s6", 0) / "tta.json")
    assert [row["mode"] for row in rows][5:] == [mode.name for mode in COLOUR_MODES]
    assert not record["flip_valid"] and "cool colours on their left" in record["flip_reason"]
    valid = {m["mode"]: m["flip_valid"] for m in record["modes"]}
    assert valid["single"] and valid["multiscale"] and sum(valid.values()) == 2
    kept = next(m for m in record["modes"] if m["mode"] == "flip (colours, no permutation)")
    assert kept["permuted"] is False and kept["printed_factor"] == 2


def test_what_is_no_pose_model_is_refused(study, tiny_data):
    pretend_trained(study, tiny_data, "s6_person")
    small = replace(study, profile=replace(study.profile, sizes={960: 64}), results_dir=study.results_dir / "small")
    pretend_trained(small, tiny_data, "s6", untrained())
    weights = study.run_dir("s6", 0) / "weights.pt"
    weights.write_bytes(b"not a model")
    for chosen, experiment, images, words in (
            (study, "m6", 4, r"m6/seed0/run\.json: not found; .*needs a trained m6: make train"),
            (study, "s6", 0, "max_images=0: leaves no image"),
            (study, "s6_person", 4, r"weights\.pt: a person detector has no keypoints"),
            (study, "s6", 4, r"weights\.pt: is not the file that run.json describes"),
            (small, "s6", 4, "less than the stride of 64 px")):
        with pytest.raises(StudyError, match=words):
            evaluate_tta(chosen, tiny_data, experiment, images)
    assert not weights.with_name("tta.json").exists()
