"""The ablations: rows and verdicts by hand, the stored bootstrap, tables, figures and sentences."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests import fabricated
from tests.fabricated import NOWHERE
from tests.test_bootstrap import paired_bootstrap, scene
from tests.test_scoring import SIGMA
from yolopose.analysis import ablations
from yolopose.analysis.ablations import finished_runs, pairs_of, write_ablations
from yolopose.report.ablations import ablation_rows, rates_by_keypoint, write_ablation_tables
from yolopose.report.figures.ablations import draw_differences, draw_heads, draw_losses
from yolopose.report.figures.write import FIGURES, draw_figure, write_figures
from yolopose.report.findings import heads_finding, holds_from, losses_by_budget, losses_finding
from yolopose.report.measured import ResultSet, load_results, paired_interval
from yolopose.study.config import load_experiments
from yolopose.study.groups import GROUPS
from yolopose.utils.errors import StudyError
from yolopose.utils.files import read_csv, read_json, write_json_gz

ABLATIONS = [name for name in FIGURES if name.startswith("ablation_")]
SCORES = {"s6_l1": [30.0, 31.0, 32.0], "s6_l1_scaled": [34.0, 35.5, 36.0], "s6": [40.0, 41.0, 43.0],
          "s6_faithful": [10.0, 12.0, 11.0], "s6_mixed_layout": [14.0, 15.0, 13.0],
          "s6_misplaced_priors": [39.0, 42.0, 42.0], "s6_dw1": [36.0, 37.0, 38.0], "s6_relu": [38.0, 39.0, 41.2],
          "s6_r640": [20.0, 21.0, 22.0]}


@pytest.fixture
def mini(tmp_path: Path) -> Path:
    root = fabricated.study(tmp_path / "mini", {"s6": 50.0, "s6_faithful": 20.0, "s6_l1": 44.0, "s6_l1_scaled": 47.0})
    fabricated.ablations(root, SCORES)
    return root


def row(root: Path, group: str, experiment: str):
    return next(r for r in ablation_rows(group, load_results(root).ablations) if r.experiment == experiment)


def test_the_ablations_are_a_set_of_their_own_of_experiments_that_exist(mini: Path) -> None:
    for group in GROUPS.values():
        assert set(group.rows) <= set(load_experiments())
        assert all(group.rows[baseline] is None for baseline in group.rows.values() if baseline)
    results = load_results(mini)
    assert set(results.ablations.runs) == set(SCORES) and "s6_dw1" not in results.runs
    assert results.ablations.complexity == results.complexity
    assert (results.ablations.images_seen(), results.images_seen("s6")) == ("12,000 images", "36,000 images")
    assert results.ablations.scale().endswith("3 seeds") and results.commits() == "c0ffee"
    assert load_results(mini / "ablations").ablations is None
    fabricated.ablations(mini / "alone", {"s6": [40.0, 41.0], "s6_relu": [39.0, 38.0]})
    alone = load_results(mini / "alone")  # a results folder, too
    assert not alone.runs and set(alone.ablations.runs) == {"s6", "s6_relu"}
    assert write_ablation_tables(mini / "alone", NOWHERE)


def test_a_row_and_the_rates_of_joints_by_hand(mini: Path) -> None:
    found = row(mini, "losses", "s6_l1")
    gap, half = found.over_seeds("AP")  # AP is half of AP50: −5, −5, −5.5
    assert gap == pytest.approx(-31 / 6) and half == pytest.approx(4.303 * 0.288675 / 3**0.5, rel=1e-4)
    images = found.over_images("AP")
    assert (images.low, images.high) == pytest.approx((gap - 1, gap + 1)) and images.seeds == (0, 1, 2)
    record = found.record()
    assert (record["AP"], record["AP_sd"], record["AP50"], record["seeds"]) == (15.5, 0.5, 31.0, "0 1 2")
    assert (record["AP_seeds_low"], record["AP_seeds_high"]) == (-5.88, -4.45)
    assert (record["AP_images_low"], record["AP_images_high"]) == (-6.17, -4.17)
    assert (record["box_AP"], record["images_seen"], record["measured_from"]) == (50.0, 12000, "run")
    assert row(mini, "losses", "s6").over_seeds("AP") is None and row(mini, "losses", "s6").verdict() == ""
    stored = load_results(mini).ablations  # the interval over images turns round with its pair
    back = paired_interval(stored, "s6_l1", "s6", "AP")
    assert (back.difference, back.low, back.high) == pytest.approx((-images.difference, -images.high, -images.low))
    assert paired_interval(stored, "s6_l1", "s6_nowhere", "AP") is None
    assert paired_interval(load_results(mini), "s6_l1", "s6", "AP") is None  # the main set has no such file
    rates = rates_by_keypoint(stored, "s6_faithful", "far_outside")
    assert {name: value.mean for name, value in rates.items()} == pytest.approx(
        {"left eye": 30.0, "left ear": 15.0, "right eye and ear": 1.5, "other joints": 1.5})
    (mini / "ablations" / "s6" / "seed0" / "joints.json").unlink()
    assert set(rates_by_keypoint(load_results(mini).ablations, "s6", "far_outside")["left eye"].by_seed) == {1, 2}


@pytest.mark.parametrize(("scores", "half_width", "expected"), [
    ([44.0, 45.0, 47.0], 0.01, "better"),  # +2 in AP in each seed; over images +1 to +3
    ([44.0, 45.0, 47.0], 0.03, "within noise"),  # over images −1 to +5
    ([36.0, 37.0, 39.0], 0.01, "worse"),
    ([40.0, 46.0, 49.0], 0.01, "within noise"),  # 0, 2.5, 3: over seeds −2.2 to +5.8
    ([20.0], 0.01, "one seed")])
def test_both_kinds_of_chance_must_exclude_zero(tmp_path, scores, half_width, expected) -> None:
    fabricated.ablations(tmp_path, {"s6": [40.0, 41.0, 43.0][:len(scores)], "s6_relu": scores}, half_width=half_width)
    assert row(tmp_path, "activation", "s6_relu").verdict() == expected


def store(root: Path, name: str, seed: int, predictions: list[dict[str, Any]]) -> None:
    """A finished run with these predictions."""
    fabricated.run(root, name, seed, 40.0)
    write_json_gz(root / name / f"seed{seed}" / "predictions.json.gz", predictions)


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Three experiments with two seeds and stored predictions on a small scene."""
    monkeypatch.setattr(ablations, "RESAMPLES", 60)
    annotations, detections = scene(2, images=25)
    rng, predictions = np.random.default_rng(0), {}
    for name, drop in (("s6", 0.0), ("s6_faithful", 0.5), ("s6_l1", 0.2)):
        for seed in (0, 1):
            predictions[name, seed] = [d for d in detections if rng.random() >= drop]
            store(tmp_path, name, seed, predictions[name, seed])
    ids = [image["id"] for image in annotations["images"]]
    labelled = {a["image_id"] for a in annotations["annotations"] if a["num_keypoints"] and not a["iscrowd"]}
    val = SimpleNamespace(annotations=annotations, with_keypoints=lambda: [i for i in ids if i in labelled],
                          image_ids=lambda chosen=ids: chosen)
    dataset = SimpleNamespace(val=val, fingerprint="fingerprint", schema=SimpleNamespace(sigmas=SIGMA))
    return SimpleNamespace(root=tmp_path, dataset=dataset, predictions=predictions,
                           study=SimpleNamespace(results_dir=tmp_path))


def written(trained: SimpleNamespace) -> dict[str, Any]:
    """``ablations.json``, made anew."""
    write_ablations(trained.study, trained.dataset)
    return read_json(trained.root / "ablations.json")


def test_the_stored_bootstrap_is_the_one_of_the_library(trained: SimpleNamespace) -> None:
    value = written(trained)
    assert set(value["pairs"]) == {"s6", "s6_l1"}
    val = trained.dataset.val
    sets = [[trained.predictions[name, seed] for seed in (0, 1)] for name in ("s6", "s6_faithful")]
    expected = paired_bootstrap(val.annotations, *sets, val.image_ids(val.with_keypoints()), SIGMA, 60)
    boxes = paired_bootstrap(val.annotations, *sets, val.image_ids(), None, 60)
    pair = value["pairs"]["s6"]["s6_faithful"]
    assert pair["pose"] == expected and pair["box"] == boxes and pair["seeds"] == [0, 1]
    assert set(value["pairs"]["s6_l1"]["s6"]) == {"seeds", "inputs", "pose"}  # boxes are asked for in the heads alone
    assert value["far_outside"] == {}
    for seed in (0, 1):
        fabricated.write_joints(trained.root / "s6_faithful" / f"seed{seed}", 0.3)
    far = written(trained)["far_outside"]
    assert far == {"s6_faithful": pytest.approx({"left": (200 * 0.3 + 150 * 0.15) / 350, "right": 0.015})}
    (found,) = [r for r in ablation_rows("heads", load_results(trained.root)) if r.experiment == "s6_faithful"]
    assert found.record()["AP_images_low"] == pytest.approx(100 * expected["AP"]["low"], abs=0.005)


def test_only_what_changed_is_made_again(trained: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    before, path, matched, real = written(trained), trained.root / "ablations.json", [], ablations.rank_detections
    stamp = path.stat().st_mtime_ns
    monkeypatch.setattr(ablations, "rank_detections", lambda *a, **k: matched.append(1) or real(*a, **k))
    assert written(trained) == before and not matched and path.stat().st_mtime_ns == stamp
    store(trained.root, "s6_l1", 1, trained.predictions["s6", 1])
    after = written(trained)
    assert len(matched) == 4  # both seeds of s6_l1 and s6, poses only
    assert after["pairs"]["s6"] == before["pairs"]["s6"] and after["pairs"]["s6_l1"] != before["pairs"]["s6_l1"]


def test_pairs_are_of_common_seeds_and_other_data_and_missing_predictions_are_refused(trained: SimpleNamespace) -> None:
    store(trained.root, "s6_relu", 1, trained.predictions["s6", 0])
    store(trained.root, "s6_dw1", 5, [])
    pairs = written(trained)["pairs"]
    assert pairs["s6"]["s6_relu"]["seeds"] == [1]
    assert "s6_dw1" not in pairs and "s6_dw1" not in pairs["s6"]
    assert ("s6_dw1", "s6", ("pose",)) in set(pairs_of(finished_runs(trained.root)))
    (trained.root / "s6" / "seed0" / "predictions.json.gz").unlink()
    with pytest.raises(StudyError, match=r"seed0.predictions.json.gz: not found; delete .*metrics.json"):
        written(trained)
    trained.dataset.fingerprint = "other"
    with pytest.raises(StudyError, match="data_fingerprint fingerprint is not the data set's"):
        written(trained)


def table(root: Path, group: str) -> dict[str, dict[str, str]]:
    """Rows of a written table by experiment."""
    return {r["experiment"]: r for r in read_csv(root / "tables" / f"ablation_{group}.csv")}


def test_tables_have_printed_numbers_and_intervals(mini: Path) -> None:
    write_ablation_tables(mini, NOWHERE)
    groups = {*GROUPS, "joints"} - {"initialisation"}  # of which nothing but baselines was run
    assert {path.name for path in (mini / "tables").iterdir()} == {
        f"ablation_{name}.{kind}" for name in groups for kind in ("csv", "md")}
    rows = table(mini, "losses")
    assert (rows["s6_l1"]["AP_printed"], rows["s6_l1"]["AP"], rows["s6_l1"]["verdict"]) == ("58.9", "15.5", "worse")
    assert rows["s6"]["measured_from"] == "run" and "s6_oks_person" not in rows
    text = (mini / "tables" / "ablation_losses.md").read_text()
    assert text.startswith("**Ablation: losses.**") and "−5.9 to −4.4" in text and "not comparable with printed" in text
    depth, relu, sizes = (table(mini, group) for group in ("depth", "activation", "resolution"))
    assert (depth["s6"]["gmacs_printed"], depth["s6"]["gmacs_fused_bias"]) == ("22.8", "22.8")
    assert depth["s6_dw4"]["AP_printed"] == "61.8" and depth["s6_dw4"]["measured_from"] == ""
    assert (relu["s6"]["AP_printed"], relu["s6_relu"]["AP_printed"]) == ("63.8", "61.9")
    assert (sizes["s6_r640"]["input_size_here"], sizes["s6_r576"]["AP"]) == ("64", "")
    assert table(mini, "joints")["s6_faithful"]["left_eye_far_outside"] == "30.0"


def test_rows_that_this_run_lacks_come_from_the_reference_and_say_so(tmp_path: Path) -> None:
    own = fabricated.study(tmp_path / "mini", {"s6": 50.0})
    fabricated.ablations(own, {"s6": [40.0, 41.0], "s6_l1": [30.0, 32.0]})
    reference = fabricated.study(tmp_path / "reference", {"s6": 48.0})
    fabricated.ablations(reference, {"s6": [42.0, 43.0, 44.0], "s6_l1_scaled": [38.0, 38.5, 39.0]})
    write_ablation_tables(own, reference)
    rows = table(own, "losses")
    assert [rows[n]["measured_from"] for n in ("s6", "s6_l1", "s6_l1_scaled")] == ["run", "run", "reference"]
    assert rows["s6_l1_scaled"]["AP_difference"] == "-2.25"  # against the reference's own s6, never this run's
    text = (own / "tables" / "ablation_losses.md").read_text()
    assert "scale-normalised L1 (ref)" in text and "(ref) = not in this run" in text and "c0ffee" in text
    alone = fabricated.study(tmp_path / "alone", {"s6": 50.0})
    assert write_ablation_tables(alone, NOWHERE) == [] and write_figures(alone, NOWHERE, ABLATIONS) == []
    write_ablation_tables(alone, reference)
    assert {r["measured_from"] for r in table(alone, "losses").values()} == {"reference", ""}
    fabricated.study(alone, {"s6_l1": 44.0, "s6_faithful": 20.0})  # without ablations there are curves alone
    assert [name for name in ABLATIONS if draw_figure(name, alone)] == ["ablation_losses", "ablation_heads"]


@pytest.mark.parametrize(("budgets", "expected"), [
    ([(10, (1.0, 2.0, 3.0)), (20, (2.0, 3.0, 4.0))], 10),
    ([(10, (3.0, 2.0, 1.0)), (20, (1.0, 2.0, 3.0)), (30, (2.0, 3.0, 4.0))], 20),
    ([(10, (1.0, 2.0, 3.0)), (20, (1.0, 3.0, 2.0))], None),
    ([(10, (1.0, 1.0, 2.0))], None), ([], None)])
def test_from_which_budget_on_the_order_is_the_papers(budgets: list, expected: int | None) -> None:
    assert holds_from(budgets) == expected


def test_findings_quote_the_numbers_and_those_by_budget_are_means_over_seeds(mini: Path) -> None:
    fabricated.run(mini, "s6", 1, 54.0)
    results, share = load_results(mini), 1 - np.exp(-1)
    budgets = dict(losses_by_budget(results))
    assert list(budgets) == [12000, 24000, 36000]
    assert budgets[12000] == pytest.approx((22 * share, 23.5 * share, 26 * share))
    text = losses_finding(results)
    assert "15.5 ± 0.5 with L1" in text and "OKS in its place changes it by +3.1 points" in text
    assert "the order is the paper's from 12,000 images on" in text
    assert "tuned" not in text  # L1 against OKS at the gain that its tuning found: only where that was trained
    fabricated.ablations(mini, SCORES | {"s6_oks_tuned": [44.0, 45.0, 46.0]})
    tuned = losses_finding(load_results(mini))
    assert "with its gain tuned OKS reaches 22.5 ± 0.5: +1.8 points" in tuned and "+7.0 points" in tuned
    heads = heads_finding(results)
    assert "−15.2 points (95 % −" in heads and "left eye 30.0 ± 0.0 % against 1.0 ± 0.0 %" in heads
    assert "From a person detector" not in heads  # was not run here
    assert losses_finding(ResultSet(mini / "nothing")) == heads_finding(ResultSet(mini / "nothing")) == ""


def test_figures_are_repeatable_and_show_what_was_measured(mini: Path) -> None:
    files = fabricated.made_twice(lambda: write_figures(mini, NOWHERE, ABLATIONS), mini / "figures")
    assert set(files) == {f"ablation_{stem}.{kind}" for stem in ("losses", "heads", "differences")
                          for kind in ("png", "svg")}
    results = load_results(mini)
    losses, heads, others = draw_losses(results), draw_heads(results), draw_differences(results)
    assert [text.get_text() for text in losses.axes[1].get_yticklabels()] == ["s6, L1", "s6, scale-normalised L1"]
    assert [axes.get_title(loc="left") for axes in others.axes] == [
        GROUPS[name].title for name in ("depth", "activation", "resolution")]
    bars = [patch.get_height() for patch in heads.axes[2].patches]
    assert sorted(bars)[-2:] == pytest.approx([30.0, 30.0]) and len(bars) == 16  # 4 heads, 4 kinds of joints
