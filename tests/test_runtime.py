"""Run time: the arithmetic of slopes and shares, mosaics with a known number of persons, and what is measured again."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from yolopose.analysis import complexity, runtime, timing
from yolopose.analysis.runtime import almost_free_rows, constant_rows, measure_constant, measure_runtime
from yolopose.analysis.timing import PLANS, Plan, choose_tiles, make_mosaics, seconds_of, slope_interval, take_turns
from yolopose.models.checkpoints import save_weights
from yolopose.models.yolov5 import build_model
from yolopose.released.importer import SCHEMA
from yolopose.study.config import EvaluateConfig, load_profiles, load_study, load_variants
from yolopose.utils.errors import StudyError
from yolopose.utils.files import read_json, write_csv
from yolopose.utils.locks import results_in_use

CPU = torch.device("cpu")
TINY = Plan(("s6",), 128, 0.0, 2, 2, (0, 1, 5, 99), 2, 2)


def photos(counts: list[int]) -> Any:
    """A split whose image ``i`` is one colour, ``i + 1``, and has ``counts[i]`` labelled persons."""
    split = MagicMock(boxes_xyxy=lambda i: np.zeros((counts[i], 4), np.float32),
                      load_image=lambda i: np.full((32, 32, 3), i + 1, np.uint8))
    split.__len__.return_value = len(counts)
    return split


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_the_slopes_interval_holds_the_slope(seed: int) -> None:
    x = np.repeat([0, 2, 8], 6)
    assert slope_interval(x, 3.0 + 0.5 * x) == pytest.approx({"value": 0.5, "low": 0.5, "high": 0.5})  # a straight line
    found = slope_interval(x, 10 - 0.3 * x + np.random.default_rng(seed).normal(0, 1, len(x)))
    assert found["low"] < found["value"] < found["high"]
    assert found["value"] == pytest.approx(-0.3, abs=0.6)


def test_medians_and_quartiles_by_hand() -> None:
    assert timing.quartiles(np.array([4.0, 1.0, 3.0, 2.0, 5.0])) == {"median": 3.0, "q1": 2.0, "q3": 4.0, "least": 1.0}
    assert timing.median_interval(np.full(5, 1.25)) == {"value": 1.25, "low": 1.25, "high": 1.25}
    wide = timing.median_interval(np.array([1.0, 1.2, 1.4, 1.6, 9.0]))
    assert wide["value"] == 1.4 and 1.0 <= wide["low"] < 1.4 < wide["high"] <= 9.0


def test_cases_take_turns_whose_order_turns_round_until_the_budget_ends_but_not_before_the_fewest(monkeypatch) -> None:
    calls: list[str] = []
    cases = [lambda name=name: (calls.append(name), (float(len(calls)),))[1] for name in "ab"]
    a, b = take_turns(cases, budget_s=60, rounds=3)
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"  # the first pair does not count
    assert a.tolist() == [[3.0], [6.0], [7.0]] and b.tolist() == [[4.0], [5.0], [8.0]]
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(next(clock)))
    assert len(take_turns([lambda: (0.0,)], budget_s=5, rounds=50)[0]) == timing.FEWEST_ROUNDS


def test_a_gpu_is_waited_for_before_and_after(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: events.append("wait"))
    assert seconds_of(lambda: events.append("work") or 7, torch.device("cuda"))[1] == 7
    assert events == ["wait", "work", "wait"]
    seconds_of(lambda: events.append("work"), CPU)
    assert events[3:] == ["work"]


@given(st.lists(st.integers(0, 6), min_size=1, max_size=12), st.integers(0, 40), st.integers(1, 9), st.integers(0, 99))
def test_chosen_tiles_have_the_persons(counts: list[int], persons: int, tiles: int, seed: int) -> None:
    chosen = choose_tiles(np.array(counts), persons, tiles, np.random.default_rng(seed))
    if chosen is not None:
        assert len(chosen) <= tiles and sum(counts[i] for i in chosen) == persons
        assert all(counts[i] > 0 for i in chosen)
    elif 1 in counts:
        assert persons > tiles  # with single persons at hand every smaller number can be made


def test_mosaics_show_whom_they_say_and_tiles_that_cannot_hold_them_are_none() -> None:
    rng = np.random.default_rng(0)
    for counts, persons, tiles in (([2, 2], 3, 9), ([1, 2], 9, 4), ([0], 1, 4)):
        assert choose_tiles(np.array(counts), persons, tiles, rng) is None
    assert sorted(choose_tiles(np.array([1, 3]), 12, 4, rng)) == [1, 1, 1, 1]
    counts = [0, 1, 2, 3]
    scenes, left_out = make_mosaics(photos(counts), 64, 3, (0, 2, 7, 28), 3)
    assert left_out == [28] and [persons for persons, _ in scenes] == [0] * 3 + [2] * 3 + [7] * 3
    for persons, image in scenes:
        assert image.shape == (192, 192, 3)
        colours = image[32::64, 32::64, 0]  # the middle of each tile
        assert sum(counts[c - 1] for c in colours.ravel()) == persons
        assert (image == colours.repeat(64, 0).repeat(64, 1)[..., None]).all()
    again, _ = make_mosaics(photos(counts), 64, 3, (0, 2, 7, 28), 3)
    assert all((a == b).all() for (_, a), (_, b) in zip(scenes, again, strict=True))
    ((_, image),), _ = make_mosaics(photos([1]), 64, 2, (1,), 1)  # without empty images places stay grey
    assert sorted(image[32::64, 32::64, 0].ravel()) == [1, 114, 114, 114]


@pytest.mark.parametrize("counts, held", [([5, 5, 9], "0"), ([], "0"), ([1], ""), ([0, 4], ""), ([2], "")])
def test_a_slope_needs_two_numbers_of_persons(counts: list[int], held: str) -> None:
    """With one of them it was NaN, and the whole evaluation ended there."""
    said = timing.too_few_persons(photos(counts), Plan(("s6",), 128, 0.3, 3, 2, (0, 1, 2, 4), 2, 2))
    assert (said or "").partition(" persons alone")[0].rpartition(" of ")[2] == held


def test_slopes_and_shares_by_hand() -> None:
    """Network 100 ms always; decoding 2 ms; NMS 1 ms + 0.5 ms a person at the low threshold, 1 ms at the other."""
    points = [{"persons": n, "network_ms": 100.0, "decode_ms": 2.0, "nms_evaluation_ms": 1 + 0.5 * n,
               "frame_evaluation_ms": 0.0, "nms_use_ms": 1.0, "frame_use_ms": 0.0} for n in (0, 0, 4, 4, 8, 8)]
    found = runtime.summarise_constant(points, {"evaluation": 0.001, "use": 0.25}, tiles=5)
    assert found["network"]["slope_ms"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    low, use = found["thresholds"]["evaluation"], found["thresholds"]["use"]
    assert low["confidence"] == 0.001 and low["after"]["median_ms"] == 5.0
    assert low["after"]["slope_ms"]["value"] == 0.5 == low["total"]["slope_ms"]["value"]
    assert low["after"]["share_at_20"]["value"] == pytest.approx(20 * 0.5 / 105, abs=1e-5)
    assert use["after"]["slope_ms"]["value"] == 0 and use["total"]["median_ms"] == 103.0
    assert found["top_down"]["slope_ms"] == 4.0 and found["top_down"]["share_at_20"] == 0.8
    constant = {"thresholds": found["thresholds"]}
    free = {"s6": {"pose": {"network_ms": {"median": 395.0}}}}
    assert runtime.true_width_shares(free, constant)["evaluation"]["value"] == pytest.approx(20 * 0.5 / 400)
    assert runtime.true_width_shares(free, {"status": "not run"}) is None


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setitem(PLANS, "smoke", TINY)
    monkeypatch.setattr(runtime, "load_variants", lambda: {
        name: replace(v, depth=0.1, width=0.1) for name, v in load_variants().items()})
    return load_study("smoke", results=tmp_path / "smoke", device="cpu")


def train(study, seed: int) -> None:
    """Weights of a quarter-width model that finds people everywhere."""
    model = build_model(load_variants()["yolov5s6_pose"], 17, 0.25, seed=seed)
    with torch.no_grad():
        for conv in model.detect.m:
            conv.bias.view(3, 6)[:, 4:] = 5.0
    save_weights(study.run_dir("s6", 0) / "weights.pt", model, 0.25, 64, SCHEMA.as_dict(), {})


def test_what_is_measured_and_what_is_kept(study) -> None:
    dataset = SimpleNamespace(val=photos([0, 1, 2]), fingerprint="f")
    path = study.results_dir / "runtime.json"
    untrained = measure_runtime(study, dataset)
    assert untrained["constant"]["status"] == "not run" and "s6 with seed 0" in untrained["constant"]["reason"]
    assert untrained["share_at_20_true_width"] is None and constant_rows(untrained) == []
    train(study, 0)
    first = measure_runtime(study, dataset)
    assert first == read_json(path)
    assert first["almost_free"] == untrained["almost_free"]  # not measured again
    s6 = first["almost_free"]["s6"]
    assert first["almost_free"]["weights"] == "untrained" and s6["rounds"] == 2
    assert s6["pose"]["variant"] == "yolov5s6_pose" and s6["person"]["variant"] == "yolov5s6_person"
    for key, unit in (("params", "params_m"), ("gmacs", "gmacs")):
        assert 1 < s6["ratio"][key] == pytest.approx(s6["pose"][unit] / s6["person"][unit], rel=1e-2)
    total = s6["pose"]["total_ms"]
    assert 0 < total["least"] <= total["q1"] <= total["median"] <= total["q3"]
    constant = first["constant"]
    assert constant["left_out"] == [99] and (constant["tile_px"], constant["canvas_px"]) == (64, 128)
    assert [p["persons"] for p in constant["points"]] == [0, 0, 1, 1, 5, 5]
    for point in constant["points"]:
        assert point["candidates_evaluation"] >= point["candidates_use"] >= point["found_use"] > 0
        assert min(v for k, v in point.items() if k.endswith("_ms")) > 0
    assert set(first["share_at_20_true_width"]) == {"evaluation", "use"}
    assert [(r["part"], r["scores above"]) for r in constant_rows(first)] == [
        ("network", ""), ("after the network", 0.001), ("whole image", 0.001), ("after the network", 0.25),
        ("whole image", 0.25)]
    assert almost_free_rows(first)[0]["time ratio"] == s6["ratio"]["total"]["value"]
    stamp = path.stat().st_mtime_ns
    assert measure_runtime(study, dataset) == first and path.stat().st_mtime_ns == stamp
    train(study, 1)
    second = measure_runtime(study, dataset)
    assert second["constant"]["weights_sha256"] != constant["weights_sha256"]
    assert second["almost_free"] == first["almost_free"]


def test_counts_at_hand_are_not_counted_again(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    variant = load_variants()["yolov5s6_pose"]
    key = complexity.complexity_key(variant, 960, 17, 1.0)
    rows = [dict(zip(complexity.COLUMNS, ("v", 1.0, 960, 1, 1, gmacs, convention, key), strict=True))
            for gmacs, convention in ((9.0, "conv"), (18.0, "fused_bias"))]
    write_csv(tmp_path / "complexity.csv", rows)
    monkeypatch.setattr(runtime, "complexity_rows", None)
    assert runtime._gmacs(variant, 640, tmp_path / "complexity.csv") == pytest.approx(18 * (640 / 960) ** 2)


def test_activations_of_untrained_models_do_not_vanish() -> None:
    """Denormal numbers would make the time that of the processor's slow path."""
    variant = replace(load_variants()["yolov5s6_pose"], width=0.1)
    model = runtime.untrained_model(variant, CPU)
    with torch.inference_mode():
        x = torch.rand(1, 3, 128, 128)
        for layer in list(model.model)[:12]:
            x = layer(x)
    assert x.abs().median() > 1e-3


def test_every_profile_has_a_plan_that_fits() -> None:
    assert set(PLANS) == set(load_profiles()) - {"checkpoints"}  # which times nothing
    for plan in PLANS.values():
        assert plan.size_px % 64 == 0 == plan.size_px % plan.tiles and 0 in plan.persons


def test_a_tile_keeps_the_thresholds_of_the_evaluation_and_the_least_of_its_repeats_counts(tmp_path, monkeypatch):
    train(SimpleNamespace(run_dir=lambda *_: tmp_path), 0)
    seconds = iter([9.0] * 6 + [0.5] * 12 + [0.25] * 12)  # the first call does not count
    monkeypatch.setattr(runtime, "seconds_of", lambda work, _: (next(seconds), work()))
    found = measure_constant(tmp_path / "weights.pt", replace(TINY, persons=(0, 1), scenes=1, repeats=2),
                             SimpleNamespace(val=photos([0, 1])), EvaluateConfig(confidence=0.01), CPU)
    assert found["thresholds"]["evaluation"]["confidence"] == 0.01 and found["trained_px"] == 64
    for point in found["points"]:
        assert {value for key, value in point.items() if key.endswith("_ms")} == {250.0}
        assert isinstance(point["found_use"], int) and point["found_use"] > 0


def test_the_lock_is_held_while_writing(study, monkeypatch: pytest.MonkeyPatch) -> None:
    with results_in_use(study.results_dir, "another"), pytest.raises(StudyError, match="another"):
        monkeypatch.setattr(runtime, "measure_almost_free", lambda *_: {"size_px": 1})
        measure_runtime(study, SimpleNamespace(val=photos([0]), fingerprint="f"))
