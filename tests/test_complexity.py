"""GMACs and parameters against hand counts and the numbers that the paper prints."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from tests.conftest import REPO
from yolopose.analysis import complexity
from yolopose.analysis.complexity import complexity_rows, count_gmacs, count_macs, write_complexity
from yolopose.models.yolov5 import build_model
from yolopose.report.compare import decoder_depth_rows
from yolopose.study.config import load_experiments, load_study, load_variants
from yolopose.study.paper import CONVENTIONS, DECODER_LADDER
from yolopose.utils.errors import StudyError
from yolopose.utils.files import read_csv, write_json

CONV_ONLY_640 = {"yolov5s6_pose": 10.09, "yolov5m6_pose": 29.39, "yolov5l6_pose": 64.58}  # reference §1.9


def printed(table: int) -> list[dict[str, str]]:
    """This project's rows of a printed table (the rows that name an experiment)."""
    return [row for row in read_csv(REPO / f"results/paper/table{table}.csv") if row["experiment"]]


# variant -> (parameters in millions, GMACs at 960 px); input size -> GMACs of s6
TABLE1 = {load_experiments()[r["experiment"]].variant: (float(r["params_m"]), float(r["gmacs"])) for r in printed(1)}
TABLE4 = {int(r["input_size"]): float(r["gmacs"]) for r in printed(4)}


class TwoConvolutions(nn.Sequential):
    """3→4 3×3 with batch norm, then 4→2 1×1 with bias, on H×W, then enlarged to 2H×2W."""

    def __init__(self):
        super().__init__(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1),
                         nn.Upsample(scale_factor=2, mode="nearest"))

    def fuse(self) -> nn.Module:
        self[0], self[1] = torch.nn.utils.fusion.fuse_conv_bn_eval(self[0], self[1]), nn.Identity()
        return self


def test_conventions_by_hand():
    cells = 8 * 8
    conv = cells * (4 * 3 * 9 + 2 * 4)
    counted = count_macs(TwoConvolutions().eval(), 8)
    assert counted["conv"] == conv
    upsampled = 4 * cells * 2  # fvcore counts one for each element that nearest-neighbour upsampling makes
    assert counted["fused_bias"] == conv + upsampled + cells * (4 + 2)  # both biased once fused
    assert counted["fvcore_unfused"] == conv + upsampled + cells * 4 * 2  # two per norm element


@pytest.fixture(scope="module")
def counted() -> dict[str, list[dict]]:
    """Rows of the pose models and of the ladder at 640 and 960 px."""
    variants = load_variants()
    return {v: complexity_rows(variants[v], [640, 960], 17) for v in dict.fromkeys((*TABLE1, *DECODER_LADDER))}


def gmacs(rows: list[dict], convention: str, size: int = 960) -> float:
    """Every count of these networks is proportional to the area (all sizes are multiples of 64)."""
    return next(r["gmacs"] for r in rows if (r["convention"], r["input_size"]) == (convention, 960)) * (size / 960) ** 2


@pytest.mark.parametrize("variant", TABLE1)
def test_table1_digits(counted, variant):
    rows, (parameters, printed) = counted[variant], TABLE1[variant]
    assert round(rows[0]["params_m"], 1) == parameters and round(gmacs(rows, "fused_bias"), 1) == printed
    at_640 = next(r["gmacs"] for r in rows if (r["convention"], r["input_size"]) == ("conv", 640))
    assert at_640 == pytest.approx(gmacs(rows, "conv", 640)) == pytest.approx(CONV_ONLY_640[variant], abs=0.005)


def test_no_single_convention_gives_all_of_table4_but_all_stay_close(counted):
    assert list(TABLE1) == ["yolov5s6_pose", "yolov5m6_pose", "yolov5l6_pose"]
    assert TABLE1["yolov5l6_pose"] == (87.0, 145.6) and list(TABLE4) == [1280, 960, 640, 576, 512, 448, 384]
    found = {c: [(gmacs(counted["yolov5s6_pose"], c, size), printed) for size, printed in TABLE4.items()]
             for c in CONVENTIONS}
    for convention, pairs in found.items():
        assert max(abs(ours - printed) for ours, printed in pairs) > 0.005, f"{convention} gives every printed digit"
    assert all(abs(ours / printed - 1) < 0.005 for ours, printed in found["fused_bias"])
    assert {c: sum(f"{ours:.2f}" == f"{printed:.2f}" for ours, printed in pairs) for c, pairs in found.items()} == {
        "conv": 0, "fused_bias": 1, "fvcore_unfused": 0}
    for below in (0.005, 0.0):  # rounded or cut off: no count proportional to the area gives the table
        lows, highs = np.array([[(printed - below + more) / (size / 64) ** 2 for size, printed in TABLE4.items()]
                                for more in (0, 0.01)])
        assert lows.max() > highs.min()


@pytest.mark.parametrize("variant", ["yolov5s6_pose", "yolov5s6_pose_faithful", "yolov5s6_person"])
def test_scaled_counts_equal_those_at_the_size_itself(variant):
    """Of one block a stage: proportionality is a property of the layers, not of their number."""
    model = build_model(replace(load_variants()[variant], depth=0.1, decoder_depth=1), 17, 0.25, seed=0).eval()
    assert count_gmacs(model, [192])[192] == {c: macs / 1e9 for c, macs in count_macs(model, 192).items()}


class WithAConstantPart(TwoConvolutions):
    """Has a branch whose map does not grow with the input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + self[2](torch.zeros(1, 4, 1, 1))


def test_counts_that_do_not_follow_the_area_are_refused():
    with pytest.raises(ValueError, match="not proportional"):
        count_gmacs(WithAConstantPart().eval(), [128])
    with pytest.raises(ValueError, match=r"\[100\] are no multiples of 64"):
        count_gmacs(TwoConvolutions().eval(), [128, 100])


def test_the_decoder_ladder_is_within_half_a_percent_of_the_readme_and_by_hand(counted):
    ladder = decoder_depth_rows([row for rows in counted.values() for row in rows])
    assert [row["printed"] for row in ladder] == [19.4, 20.1, 20.8, 21.5, 22.2, 22.8]
    for row in ladder:
        for convention in ("fused_bias", "fvcore_unfused"):
            assert abs(row[f"{convention}_residual"]) < 0.5
            assert row[f"{convention}_residual"] == pytest.approx(100 * (row[convention] / row["printed"] - 1))
    assert {c: sum(row[f"{c}_digits"] for row in ladder) for c in CONVENTIONS} == {
        "conv": 0, "fused_bias": 1, "fvcore_unfused": 5}
    assert [round(row["conv"], 2) for row in ladder] == [19.24, 19.94, 20.63, 21.32, 22.02, 22.71]  # reference §7
    # One more stage: a depth-wise 3×3 and a point-wise convolution on every scale's C channels.
    macs = sum((960 // stride) ** 2 * c * (9 + c) for stride, c in ((8, 128), (16, 256), (32, 384), (64, 512)))
    for a, b in zip(ladder, ladder[1:], strict=False):
        assert (b["conv"] - a["conv"]) * 1e9 == pytest.approx(macs, abs=2e3)  # the rows have six decimals


def test_decoder_ladder_without_counts_and_with_a_contradiction_and_as_the_readme_rows(tmp_path):
    row = decoder_depth_rows([])[0]
    assert row["printed"] == 19.4 and row["conv"] is None and row["conv_residual"] is None
    (tmp_path / "decoder_depth.csv").write_text("depth,gmacs\n3,20.8\n3,20.9\n")
    with pytest.raises(StudyError, match="depth 3 are both 20.8 and 20.9"):
        decoder_depth_rows([], tmp_path)
    rows = read_csv(REPO / "results/paper/decoder_depth.csv")
    readme = [r for r in read_csv(REPO / "results/paper/readme_checkpoints.csv") if r["group"] == "decoder"]
    keys = ("input_size", "gmacs", "AP", "AP50", "checkpoint")
    assert [[r[k] for k in keys] for r in rows] == [[r[k] for k in keys] for r in readme]
    assert all(f"s6 {r['depth']} depth-wise" in other["model"] and f"lr {r['lr']}" in other["note"]
               for r, other in zip(rows, readme, strict=True))
    for row in rows:
        if row["experiment"]:
            variant = load_variants()[load_experiments()[row["experiment"]].variant]
            assert variant.decoder_depth == int(row["depth"]) and variant.name == DECODER_LADDER[int(row["depth"]) - 1]


@pytest.fixture
def counter(monkeypatch):
    """A counter that takes no time, notes variant, sizes, keypoints, width factor, and is killed at ``stop_after``."""
    def rows(variant, sizes, num_keypoints, factor):
        if len(about.calls) == about.stop_after:
            raise KeyboardInterrupt
        about.calls.append((variant.name, tuple(sizes), num_keypoints, factor))
        return [dict(zip(complexity.COLUMNS, (variant.name, factor, size, 1, 1, 1, c, complexity.complexity_key(
            variant, size, num_keypoints, factor)), strict=True)) for size in sizes for c in CONVENTIONS]

    about = SimpleNamespace(calls=[], stop_after=None)
    monkeypatch.setattr(complexity, "complexity_rows", rows)
    return about


def test_the_file_holds_every_paper_size_and_only_what_is_missing_is_counted(tmp_path, counter):
    study, path = load_study("smoke", results=tmp_path), tmp_path / "complexity.csv"
    write_complexity(study)
    whole, rows = path.read_bytes(), read_csv(path)
    at_true_width = {v: {int(r["input_size"]) for r in rows if r["variant"] == v and float(r["width_factor"]) == 1}
                     for v in load_variants()}
    assert all(at_true_width[variant] == set(TABLE4) for variant in TABLE1)
    assert all(at_true_width[variant] == {960} for variant in DECODER_LADDER[:-1])
    assert ("yolov5s6_person", (128,), 17, 0.25) in counter.calls
    assert len({r["key"] for r in rows}) * len(CONVENTIONS) == len(rows)
    counter.calls.clear()
    write_complexity(study)
    assert counter.calls == [] and path.read_bytes() == whole
    gone = next(r["key"] for r in rows if r["variant"] == "yolov5m6_pose" and r["input_size"] == "512")
    m6 = load_variants()["yolov5m6_pose"]
    keys = [complexity.complexity_key(variant, 512, 17, 1.0) for variant in (m6, replace(m6, width=0.7))]
    assert keys[0] == gone != keys[1]
    path.write_bytes(whole.replace(gone.encode(), b"0" * 16))  # a stale row
    write_complexity(study)
    assert counter.calls == [("yolov5m6_pose", (512,), 17, 1.0)] and path.read_bytes() == whole


def test_a_kill_loses_one_model_and_k_comes_from_the_data_set(tmp_path, counter):
    write_json(tmp_path / "data.json", {"keypoints": {"names": ["a", "b", "c"]}})
    study, counter.stop_after = load_study("smoke", results=tmp_path), 2
    with pytest.raises(KeyboardInterrupt):
        write_complexity(study)
    assert len(read_csv(tmp_path / "complexity.csv")) == 2 * len(TABLE4) * len(CONVENTIONS)
    done = {name for name, *_ in counter.calls}
    counter.calls, counter.stop_after = [], None
    write_complexity(study)
    assert not {name for name, *_ in counter.calls[:1]} & done
    assert {(k, factor) for *_, k, factor in counter.calls} == {(17, 1.0), (3, 0.25)}
