"""GMACs and parameters against hand counts and the numbers that the paper prints."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.conftest import REPO
from yolopose.complexity import CONVENTIONS, complexity_rows, count_macs, write_complexity
from yolopose.config import load_experiments, load_study, load_variants
from yolopose.results import read_csv

CONV_ONLY_640 = {"yolov5s6_pose": 10.09, "yolov5m6_pose": 29.39, "yolov5l6_pose": 64.58}  # reference §1.9


def printed(table: int) -> list[dict[str, str]]:
    """This project's rows of a printed table (the rows that name an experiment)."""
    return [row for row in read_csv(REPO / f"results/paper/table{table}.csv") if row["experiment"]]


# variant -> (parameters in millions, GMACs at 960 px); input size -> GMACs of s6
TABLE1 = {load_experiments()[r["experiment"]].variant: (float(r["params_m"]), float(r["gmacs"])) for r in printed(1)}
TABLE4 = {int(r["input_size"]): float(r["gmacs"]) for r in printed(4)}


class TwoConvolutions(nn.Module):
    """3→4 3×3 with batch norm, then 4→2 1×1 with bias, on H×W, then enlarged to 2H×2W."""

    def __init__(self):
        super().__init__()
        self.a, self.bn, self.b = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.up(self.b(self.bn(self.a(x))))

    def fuse(self) -> TwoConvolutions:
        self.a, self.bn = torch.nn.utils.fusion.fuse_conv_bn_eval(self.a, self.bn), nn.Identity()
        return self


def test_conventions_by_hand():
    cells = 8 * 8
    conv = cells * (4 * 3 * 9 + 2 * 4)
    counted = count_macs(TwoConvolutions().eval(), 8)
    assert counted["conv"] * 1e9 == pytest.approx(conv)
    upsampled = 4 * cells * 2  # fvcore counts one for each element that nearest-neighbour upsampling makes
    assert counted["fused_bias"] * 1e9 == pytest.approx(conv + upsampled + cells * (4 + 2))  # both biased once fused
    assert counted["fvcore_unfused"] * 1e9 == pytest.approx(conv + upsampled + cells * 4 * 2)  # two per norm element


@pytest.fixture(scope="module")
def at_384():
    """Counts at 384 px; every count of these networks is proportional to the area (all sizes are multiples of 64)."""
    variants = load_variants()
    return {v: {r["convention"]: r for r in complexity_rows(variants[v], [384], 17)} for v in TABLE1}


def scaled(rows: dict, convention: str, size: int) -> float:
    return rows[convention]["gmacs"] * (size / 384) ** 2


def test_the_printed_tables_are_read():
    assert list(TABLE1) == ["yolov5s6_pose", "yolov5m6_pose", "yolov5l6_pose"]
    assert TABLE1["yolov5l6_pose"] == (87.0, 145.6)
    assert list(TABLE4) == [1280, 960, 640, 576, 512, 448, 384]


@pytest.mark.parametrize("variant", TABLE1)
def test_table1_digits(at_384, variant):
    parameters, gmacs = TABLE1[variant]
    assert round(at_384[variant]["fused_bias"]["params_m"], 1) == parameters
    assert round(scaled(at_384[variant], "fused_bias", 960), 1) == gmacs
    assert scaled(at_384[variant], "conv", 640) == pytest.approx(CONV_ONLY_640[variant], abs=0.005)


def test_no_single_convention_gives_all_of_table4_but_all_stay_close(at_384):
    rows = at_384["yolov5s6_pose"]
    for convention in CONVENTIONS:
        residuals = [abs(scaled(rows, convention, size) - printed) for size, printed in TABLE4.items()]
        assert max(residuals) > 0.005, f"{convention} gives every printed digit"
    for size, printed in TABLE4.items():
        best = min(abs(scaled(rows, c, size) / printed - 1) for c in CONVENTIONS)
        assert best < 0.005
        assert abs(scaled(rows, "fused_bias", size) / printed - 1) < 0.005


def test_counts_scale_with_the_area():
    variant = load_variants()["yolov5s6_pose"]
    rows = complexity_rows(variant, [128, 256], 17, 0.25)
    for small, large in zip(rows[:3], rows[3:], strict=True):
        assert large["gmacs"] == pytest.approx(4 * small["gmacs"], rel=1e-3)


def test_file_holds_every_paper_size_and_keeps_what_is_counted(tmp_path, monkeypatch):
    import yolopose.complexity as module

    counted = []

    def fake(variant, sizes, num_keypoints, factor):
        counted.append((variant.name, sizes[0], factor))
        key = module.complexity_key(variant, sizes[0], num_keypoints, factor)
        return [dict(zip(module.COLUMNS, (variant.name, factor, sizes[0], 1, 1, 1, c, key), strict=True))
                for c in CONVENTIONS]

    monkeypatch.setattr(module, "complexity_rows", fake)
    study = load_study("smoke", results=tmp_path)
    write_complexity(study, progress=False)
    first = (tmp_path / "complexity.csv").read_bytes()
    rows = read_csv(tmp_path / "complexity.csv")
    for variant in TABLE1:
        sizes = {int(r["input_size"]) for r in rows if r["variant"] == variant and float(r["width_factor"]) == 1}
        assert sizes == set(TABLE4)
    assert ("yolov5s6_person", 128, 0.25) in counted
    done = len(counted)
    write_complexity(study, progress=False)
    assert len(counted) == done
    assert (tmp_path / "complexity.csv").read_bytes() == first


def test_a_kill_loses_one_count_and_k_comes_from_the_data_set(tmp_path, monkeypatch):
    import yolopose.complexity as module
    from yolopose.results import write_json

    counted = []

    def fake(variant, sizes, num_keypoints, factor):
        if len(counted) == 3:
            raise KeyboardInterrupt
        counted.append(num_keypoints)
        key = module.complexity_key(variant, sizes[0], num_keypoints, factor)
        return [dict(zip(module.COLUMNS, (variant.name, factor, sizes[0], 1, 1, 1, c, key), strict=True))
                for c in CONVENTIONS]

    monkeypatch.setattr(module, "complexity_rows", fake)
    write_json(tmp_path / "data.json", {"keypoints": {"names": ["a", "b", "c"]}})
    study = load_study("smoke", results=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        write_complexity(study, progress=False)
    assert len(read_csv(tmp_path / "complexity.csv")) == 3 * len(CONVENTIONS)
    counted.clear()
    monkeypatch.setattr(module, "complexity_rows", lambda v, s, k, f: counted.append((k, f)) or [])
    write_complexity(study, progress=False)
    assert {(17, 1.0), (3, 0.25)} == set(counted)


def test_key_follows_the_variant():
    from yolopose.complexity import complexity_key

    variant = load_variants()["yolov5s6_pose"]
    other = SimpleNamespace(**{**variant.__dict__, "width": 0.75})
    assert complexity_key(variant, 960, 17, 1.0) != complexity_key(other, 960, 17, 1.0)
