"""Verdicts by hand-computed cases: numbers, claims, orderings, seeds, and what users get wrong."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests import fabricated
from tests.fabricated import FULL, MINI
from yolopose.report import claims, verdicts
from yolopose.report.claims import ORDERING_FLOOR, UNDECIDED, decide, decide_claims, describe, write_comparison
from yolopose.report.compare import compare_with_paper, same_digits
from yolopose.report.measured import ResultSet, load_results
from yolopose.report.page import write_report
from yolopose.report.quantities import Value, combine
from yolopose.report.seeds import Measurement, difference, t975
from yolopose.report.tables import UNDEFINED, write_tables
from yolopose.report.verdicts import NOT_COMPARABLE, NOT_REPRODUCED, NOT_RUN, REPRODUCED, WITHIN_NOISE
from yolopose.study.paper import REFERENCE_DIR
from yolopose.utils.errors import StudyError
from yolopose.utils.files import read_csv, read_json, write_json

# AP is half of AP50 (fabricated.metrics): steps of 8 points of AP50 are 4 of AP, beyond the reduced margin of 3.
NOTHING = ResultSet(Path("nothing"))


def claims_of(folder: Path) -> dict[str, dict[str, str]]:
    return {claim["id"]: claim for claim in decide_claims(folder)}


def compared(folder: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in compare_with_paper(folder)}


@given(st.integers(0, 20000), st.floats(-0.499, 0.499))
def test_same_digits_is_rounding(tenths: int, jitter: float) -> None:
    assert same_digits((tenths + jitter) / 10, f"{tenths / 10:.1f}")
    assert not same_digits((tenths + jitter + (1.01 if jitter > -0.4 else 2)) / 10, f"{tenths / 10:.1f}")


def test_counts_compare_at_any_scale_and_accuracies_never_at_a_reduced_one(mini: Path) -> None:
    rows = compared(mini)
    ours = [r for r in rows.values() if r["experiment"] and r["metric"].startswith("A")]
    assert {r["verdict"] for r in ours} == {NOT_COMPARABLE, NOT_RUN}
    assert all(r.get("difference") is None for r in ours)
    s6 = rows["table1.row10.AP50"]
    assert (s6["measured"], s6["printed"], s6["verdict"]) == (50.0, "87.6", NOT_COMPARABLE)
    assert "reduced scale" in s6["note"]
    assert rows["table1.row12.gmacs"]["verdict"] == REPRODUCED  # 145.554 prints as 145.6
    assert rows["table2.row14.params_m"]["verdict"] == REPRODUCED
    assert rows["table4.row1.gmacs"]["verdict"] == REPRODUCED  # 40.53 against 40.62: 0.2 %
    assert rows["table4.row1.gmacs"]["tolerance"] == "0.5 %"
    others = [r["verdict"] for r in rows.values() if not r["experiment"]]
    assert len(others) > 100 and set(others) == {NOT_RUN}
    text = (mini / "complexity.csv").read_text().replace("15.08654", "15.2")
    (mini / "complexity.csv").write_text(text)
    assert compared(mini)["table1.row10.params_m"]["verdict"] == NOT_REPRODUCED
    assert claims_of(mini)["C20"]["verdict"] == NOT_REPRODUCED


def test_full_scale_compares_and_its_recipe_on_other_data_does_not(tmp_path: Path) -> None:
    rows = compared(folder := fabricated.study(tmp_path / "paper", {"s6": 90.0, "m6": 89.0}, **FULL))
    whole = outcome(folder, "{matches_printed: {table: 1, metric: AP50}}")  # l6, which was not run, is not the reason
    assert (whole.verdict, whole.reason) == (NOT_REPRODUCED, "")
    assert whole.values == "s6 90.0 (printed 87.6); m6 89.0 (printed 89.1)"
    assert rows["table1.row10.AP50"]["verdict"] == NOT_REPRODUCED  # 90.0 against 87.6
    assert rows["table1.row10.AP50"]["difference"] == pytest.approx(2.4)
    assert rows["table1.row11.AP50"]["verdict"] == REPRODUCED  # 89.0 against 89.1
    assert rows["table2.row13.AP"]["verdict"] == NOT_RUN
    assert rows["table2.row13.AP"]["note"] == "the data set has no test-dev images"
    row = compared(fabricated.study(tmp_path / "other", {"s6": 87.6}, **FULL | {"images": 120}))["table1.row10.AP50"]
    assert row["verdict"] == NOT_COMPARABLE and "120 images" in row["note"]
    found = claims_of(fabricated.study(tmp_path / "printed", {"s6": 87.6, "m6": 89.1, "l6": 90.2}, **FULL))
    assert found["C13"]["verdict"] == found["C03"]["verdict"] == REPRODUCED  # 90.2 against 88.4, margin 0.5
    assert found["C12"]["verdict"] == NOT_REPRODUCED  # AP is half of AP50 in fabricated metrics
    assert found["C04"]["verdict"] == NOT_RUN and found["C03"]["reason"] == ""
    undecided = claims_of(fabricated.study(tmp_path / "near", {"l6": 88.6}, **FULL))["C03"]  # against 88.4
    assert undecided["verdict"] == NOT_COMPARABLE and undecided["reason"] == f"{UNDECIDED} of 0.5; run more seeds"


@pytest.mark.parametrize(("gap", "scores", "expected"), [
    (0.5, [1.0], REPRODUCED), (-0.6, [1.0], NOT_REPRODUCED), (1.0, [60.0, 62.0], NOT_REPRODUCED),
    (1.0, [60.0, 61.0, 62.0], WITHIN_NOISE), (2.6, [60.0, 61.0, 62.0], NOT_REPRODUCED)])  # half-width 4.303 / √3 = 2.48
def test_accuracy_verdict_needs_three_seeds_for_noise(gap: float, scores: list[float], expected: str) -> None:
    assert verdicts.accuracy_verdict(gap, Measurement(dict(enumerate(scores)))) == expected


def test_intervals_by_hand() -> None:
    a, b = Measurement({0: 50.0, 1: 51.0, 2: 52.0}), Measurement({0: 52.0, 1: 53.0, 2: 57.0})
    mean, half = difference(a, b)  # paired: 2, 2, 5 -> mean 3, sd √3, half 4.303 · √3 / √3
    assert mean == pytest.approx(3.0) and half == pytest.approx(4.303)
    _, welch = difference(a, Measurement({5: 52.0, 6: 53.0, 7: 57.0}))
    variance = 1 / 3 + 7 / 3
    freedom = variance**2 / ((1 / 3) ** 2 / 2 + (7 / 3) ** 2 / 2)
    assert welch == pytest.approx(t975(freedom) * math.sqrt(variance))
    assert difference(a, Measurement({0: 1.0}))[1] is None
    assert Measurement({0: 1.0}).deviation is None and Measurement({0: 1.0}).half_width is None
    assert t975(1) == 12.706 and t975(30) == 2.042 and t975(500) == 1.96
    one, other = Value(10.0, "10", (3.0, 3.0), True), Value(5.0, "5", (4.0, 1.0), True)  # half-widths propagate
    assert combine("difference", [one, other]).sides[0] == pytest.approx(5.0)
    assert combine("ratio", [one, other]).sides[0] == pytest.approx(2 * math.hypot(0.3, 0.8))
    assert combine("sum", [one, Value(1.0, "1", None, True)]).sides is None
    nought = Value(0.0, "0", (3.0, 3.0), True)  # the interval of a combination with 0 is that of its other part
    assert combine("ratio", [nought, other]).sides[0] == pytest.approx(3 / 5)
    assert combine("product", [nought, other]).sides[0] == pytest.approx(15)
    assert combine("product", [one, other, Value(2.0, "2")]).sides[0] == pytest.approx(2 * math.hypot(3 * 5, 4 * 10))


def stored_keys(rule: Any) -> list[tuple[str, str]]:
    """Files and keys of all stored numbers that a rule speaks about."""
    if not isinstance(rule, (dict, list)):
        return []
    found = [pair for part in (rule.values() if isinstance(rule, dict) else rule) for pair in stored_keys(part)]
    if "stored" in rule:
        parts = [rule[part] for part in ("key", "low", "high", "half") if part in rule]
        found += [(rule["stored"], key) for key in parts]
    if isinstance(rule, dict) and "interval" in rule:  # whose key has three
        found = [(file, f"{key}.{end}") for file, key in found for end in ("difference", "low", "high")]
    return found


@pytest.mark.parametrize("seeds", [1, 2])
@pytest.mark.parametrize("score", [0.0, -1.0])
def test_every_rule_has_a_verdict_where_nothing_was_learned(tmp_path: Path, score: float, seeds: int) -> None:
    """All accuracies 0, or undefined, with one seed or an interval of width 0; all stored numbers 0."""
    every = dict.fromkeys((*MINI, "s6_relu", "s6_r640", "s6_l1", "s6_l1_scaled", "s6_from_person"), [0.0] * seeds)
    root = fabricated.study(tmp_path / "mini", every, test_dev=0.0)
    fabricated.ablations(root, every, half_width=0.0)
    for path in root.rglob("metrics.json"):
        undefined = {name: score for name in ("AP", "AP50", "AP75", "APL", "APM", "AR")}
        write_json(path, dict.fromkeys(("val", "val_all", "test_dev", "val_int8"), undefined | {"images": 1000}))
    keys = {pair for claim in claims.load_claims() for pair in stored_keys(claim["rule"])}
    for file in {file for file, _ in keys} - {"ablations.json"}:
        value = read_json(REFERENCE_DIR / "mini" / file.replace("s6/", "s6/seed0/"))
        for *above, last in (key.split(".") for name, key in keys if name == file):
            part = value
            for name in above:
                part = part[int(name) if isinstance(part, list) else name]
            part[int(last) if isinstance(part, list) else last] = 0
        write_json(root / file.replace("s6/", "s6/seed0/"), value)
    found = claims_of(root)
    assert {claim["verdict"] for claim in found.values()} <= set(verdicts.VERDICTS)
    undecided = [c for c in found.values() if c["verdict"] in (NOT_COMPARABLE, NOT_RUN, WITHIN_NOISE)]
    assert all(c["reason"] or "interval" in c["values"] for c in undecided)
    assert found["C54"]["verdict"] == NOT_COMPARABLE and found["C42"]["verdict"] != REPRODUCED
    assert write_report(root, fabricated.NOWHERE).is_file()


@pytest.mark.parametrize("drop", [0.0, -0.0, 1e-300])
def test_a_rule_that_cannot_be_computed_is_a_verdict_with_its_reason(mini: Path, drop: float) -> None:
    """8 bits lose nothing in a model that learned nothing: how much of that mixed precision brings back is unknown."""
    gap = {"AP": {"difference": drop, "low": drop, "high": drop}}
    write_json(mini / "quantization.json", {
        "models": [], "curve": [{"experiment": "s6_relu", "fraction": 0.0, "AP": 0.0, "share_layers_16bit": 0.0,
                                 "share_gmacs_16bit": 0.0}],
        "changes": {"s6_relu": dict.fromkeys(("int16", "int8", "mixed"), gap)},
        "contrasts": {"mixed_minus_int8": gap, "relu_minus_silu_int8": gap}})
    claim = claims_of(mini)["C54"]
    assert claim["verdict"] == NOT_COMPARABLE and "has no value: there is nothing to divide by" in claim["reason"]
    write_comparison(mini)
    assert write_report(mini, fabricated.NOWHERE).is_file()


def test_claims_that_the_papers_tables_decide() -> None:
    found = {c["id"]: c["verdict"] for c in decide_claims(NOTHING)}
    holds = ["C01", "C02", "C05", "C06", "C07", "C09", "C10", "C25", "C28", "C30", "C32", "C36", "C37", "C44", "C45",
             "C46", "C49", "C51", "C52"]
    fails = ["C08", "C11", "C27", "C31", "C35", "C38", "C39", "C40", "C41", "C47", "C53"]
    assert {name: found[name] for name in holds} == dict.fromkeys(holds, REPRODUCED)
    assert {name: found[name] for name in fails} == dict.fromkeys(fails, NOT_REPRODUCED)
    assert all(verdict == NOT_RUN for name, verdict in found.items() if name not in holds + fails)


def test_orderings_hold_at_reduced_scale_and_name_it_and_all_is_written(mini: Path) -> None:
    found, counts, rows = claims_of(mini), write_comparison(mini), read_csv(mini / "claims.csv")
    assert sum(counts.values()) == len(rows) == len(found) and list(rows[0]) == claims.CLAIM_COLUMNS
    assert found["C16"]["verdict"] == found["C17"]["verdict"] == REPRODUCED
    assert found["C16"]["scale"] == "mini: width × 0.5, 128 px, 1 seed"
    assert found["C42"]["verdict"] == NOT_RUN and "make ablations" in found["C42"]["reason"]
    assert found["C03"]["verdict"] == found["C12"]["verdict"] == NOT_COMPARABLE
    assert found["C18"]["verdict"] == NOT_COMPARABLE  # all at 49.0 on test-dev: within the margin
    assert found["C18"]["reason"].startswith("undecided: one seed, difference within the margin of 3 (m6 − s6 = +0.0)")
    assert [found[f"C{i}"]["scale"] for i in (20, 21, 22, 23, 24)] == ["true width and size"] * 5
    assert found["C24"]["verdict"] == NOT_REPRODUCED  # 22.80 / 18.78 = 1.21
    assert found["C29"]["verdict"] == NOT_RUN and "make ablations" in found["C29"]["reason"]
    fabricated.ablations(mini, {"s6_faithful": [20.0, 21.0, 22.0], "s6": [50.0, 51.0, 51.5]})
    assert claims_of(mini)["C42"]["verdict"] == REPRODUCED
    assert claims_of(mini)["C42"]["scale"] == "mini: width × 0.5, 128 px, 3 seeds"


@pytest.mark.parametrize(("m6", "reduced", "full"), [
    (57.0, REPRODUCED, REPRODUCED), (56.0, NOT_COMPARABLE, REPRODUCED), (52.0, NOT_COMPARABLE, NOT_COMPARABLE),
    (50.0, NOT_COMPARABLE, NOT_COMPARABLE), (47.0, NOT_COMPARABLE, NOT_REPRODUCED),
    (43.0, NOT_REPRODUCED, NOT_REPRODUCED)])
def test_one_seed_needs_the_margin_and_never_yields_within_noise(tmp_path: Path, m6, reduced, full) -> None:
    # AP is half of AP50: margins of 3 and 1 points of AP are 6 and 2 points of AP50, and must be exceeded
    scores = {"s6": 50.0, "m6": m6, "l6": 70.0, "s6_faithful": 49.0}
    for name, options, expected in (("mini", {}, reduced), ("paper", FULL, full)):
        found = claims_of(fabricated.study(tmp_path / name, scores, **options))
        assert found["C16"]["verdict"] == expected
        assert (UNDECIDED in found["C16"]["reason"]) == (expected == NOT_COMPARABLE)
        assert WITHIN_NOISE not in {claim["verdict"] for claim in found.values()}


def test_what_touches_a_limit_is_within_it() -> None:
    measured = Measurement(dict(enumerate([60.0, 61.0, 62.0])))
    assert verdicts.accuracy_verdict(measured.half_width, measured) == WITHIN_NOISE
    for ends, expected in (((0.1, 1), REPRODUCED), ((0, 1), WITHIN_NOISE), ((0, 0), WITHIN_NOISE),
                           ((-1, 0), WITHIN_NOISE), ((-1, -0.1), NOT_REPRODUCED)):
        assert verdicts.interval_verdict(*ends) == expected


@pytest.mark.parametrize(("best", "decided"), [(5.0, True), (4.99, False)])
def test_an_order_is_decided_from_the_floor_on(tmp_path: Path, best: float, decided: bool) -> None:
    """And so is a comparison that names one."""
    folder = fabricated.study(tmp_path / "mini", {"s6": 0.5, "m6": best})
    order = "{ordering: [s6, m6], metric: AP50, split: val, margin: 0.5, margin_reduced: 3.0}"
    found = [outcome(folder, rule) for rule in (order, f"{{compare: [3, '>', 2], floor: {best}}}")]
    assert [one.verdict for one in found] == [REPRODUCED if decided else NOT_COMPARABLE] * 2
    assert all(("not learned" in one.reason) != decided for one in found)


@pytest.mark.parametrize(("advantage", "half", "expected"), [
    (0.6, None, REPRODUCED), (0.5, None, NOT_COMPARABLE), (-0.5, None, NOT_COMPARABLE), (-0.6, None, NOT_REPRODUCED),
    (0.3, 0.2, REPRODUCED), (0.2, 0.2, WITHIN_NOISE), (-0.2, 0.2, WITHIN_NOISE), (-0.3, 0.2, NOT_REPRODUCED)])
def test_the_interval_decides_and_the_margin_only_with_one_seed(advantage, half, expected) -> None:
    assert verdicts.measured_verdict(advantage, half, margin=0.5) == expected


@pytest.mark.parametrize(("name", "scores", "expected"), [
    ("C03", {"l6": [88.6, 88.7, 88.8]}, REPRODUCED),  # 88.7 against 88.4: +0.3, in the margin of 0.5; half-width 0.25
    ("C03", {"l6": [88.5, 88.7, 88.9]}, WITHIN_NOISE),  # half-width 0.50
    ("C03", {"l6": [88.0, 88.1, 88.0]}, NOT_REPRODUCED),  # −0.37, half-width 0.14
    ("C17", {"m6": [52.0, 53.1, 54.2]}, REPRODUCED), ("C17", {"m6": [49.0, 52.0, 51.5]}, WITHIN_NOISE),
    ("C17", {"m6": [45.0, 46.1, 46.9]}, NOT_REPRODUCED)])
def test_several_seeds_decide_by_interval(tmp_path: Path, name: str, scores: dict, expected: str) -> None:
    full = FULL if name == "C03" else {}
    others = {} if full else {"s6": [50.0, 51.0, 52.0], "l6": [70.0, 71.0, 72.0]}
    claim = claims_of(fabricated.study(tmp_path / "results", others | scores, **full))[name]
    assert claim["verdict"] == expected and claim["scale"].endswith("3 seeds")
    assert full or "interval" in claim["reason"]


def test_smoke_and_unlearned_models_decide_nothing(tmp_path: Path) -> None:
    folder = fabricated.study(tmp_path / "smoke", MINI, profile="smoke")
    smoke = claims_of(folder)["C16"]
    bad = claims_of(fabricated.study(tmp_path / "mini", {"s6": 0.5, "m6": 2.0, "l6": 4.0}))["C17"]
    assert smoke["verdict"] == bad["verdict"] == NOT_COMPARABLE
    assert "smoke" in smoke["reason"] and "not learned" in bad["reason"]
    write_json(folder / "timed.json", {"ms": 1.0})
    assert outcome(folder, "{compare: [{stored: timed.json, key: ms}, '<', 2]}").verdict == NOT_COMPARABLE
    with pytest.raises(ValueError, match="half, or low and high"):
        outcome(folder, "{compare: [{stored: timed.json, key: ms, low: ms}, '<', 2]}")


def outcome(results: Path | ResultSet, rule: str) -> claims.Outcome:
    return decide(load_results(results), yaml.safe_load(rule))


@pytest.mark.parametrize(("rule", "expected"), [
    ("{compare: [2, '>', 1]}", REPRODUCED), ("{compare: [2, '>', 2]}", NOT_REPRODUCED),
    ("{compare: [2, '>=', 2]}", REPRODUCED), ("{compare: [3, '>', 2], margin: 1}", NOT_REPRODUCED),
    ("{compare: [1, '<', 2]}", REPRODUCED), ("{compare: [2, '<=', 1.9]}", NOT_REPRODUCED),
    ("{compare: [1.05, '==', 1], margin: 0.05}", REPRODUCED),
    ("{compare: [1.06, '==', 1], margin: 0.05}", NOT_REPRODUCED),
    ("{compare: [3, '>=', 2], margin: 1}", REPRODUCED), ("{compare: [1, '>=', 2]}", NOT_REPRODUCED),
    ("{compare: [{printed: AP, table: 4, reduce: max, between: {gmacs: [10.15, 10.15]}}, '>', 0]}", REPRODUCED),
    ("{all: [{compare: [1, '<', 2]}, {undecidable: later}]}", NOT_RUN),
    ("{all: [{compare: [2, '<', 1]}, {undecidable: later}]}", NOT_REPRODUCED),
    ("{fact: {holds: true, source: x}}", REPRODUCED), ("{compare: [{ratio: [283.0, 66.3]}, '>', 4]}", REPRODUCED),
    ("{compare: [{measured: AP, experiment: s6, split: val}, '>', 4]}", NOT_RUN),
    ("{compare: [{complexity: gmacs, experiment: s6}, '>', 4]}", NOT_RUN),
    *[(rule, None) for rule in (
        "{compare: [1, '~', 2]}", "{nonsense: 1}", "{compare: [{printed: AP, table: 1, method: DEKR}, '>', 1]}",
        "{compare: [{planet: 1}, '>', 1]}", "{compare: [{printed: AP, table: 1, colour: red}, '>', 1]}",
        "{matches_printed: {table: 9, metric: AP}}", "{compare: [1, '>', 2], all: []}")]])
def test_rules_by_hand(rule: str, expected: str | None) -> None:
    """Of several rules the worst verdict is that of all, with its own reasons alone."""
    if expected is None:  # malformed
        with pytest.raises((ValueError, KeyError)):
            outcome(NOTHING, rule)
    else:
        assert (found := outcome(NOTHING, rule)).verdict == expected
        assert (expected in (REPRODUCED, NOT_REPRODUCED)) == (found.reason in ("", "x"))
        assert found.values.endswith("(false)") == (expected == NOT_REPRODUCED)
        assert describe(yaml.safe_load(rule))


LOSSES = {"s6_l1": [30.0, 31.0, 32.0], "s6_l1_scaled": [34.0, 35.2, 36.0], "s6": [40.0, 41.0, 42.4]}
TABLE3 = ("{ordering: [s6_l1, s6_l1_scaled, s6], metric: AP, split: val, margin: 0.5, margin_reduced: 3.0, "
          "set: ablations, bootstrap: true}")


@pytest.mark.parametrize(("scores", "half_width", "expected"), [
    (LOSSES, 0.01, REPRODUCED),  # steps of 2 and 3 points; over images ± 1
    (LOSSES, 0.025, WITHIN_NOISE),  # over seeds both steps stand; over images the first does not
    (LOSSES | {"s6_l1_scaled": [29.0, 31.0, 38.0]}, 0.001, WITHIN_NOISE),  # over images it stands, over seeds not
    (LOSSES | {"s6": [30.0, 31.0, 32.0]}, 0.01, NOT_REPRODUCED),  # the last step is −2
    *[({"s6_faithful": [40.0], "s6": [s6]}, half_width, expected) for s6, half_width, expected in (  # the margin is 6
        (48.0, 0.01, REPRODUCED), (48.0, 0.05, NOT_COMPARABLE), (44.0, 0.001, NOT_COMPARABLE),
        (32.0, 0.01, NOT_REPRODUCED))]])
def test_an_ordering_needs_both_intervals_or_margin_and_bootstrap(mini, scores, half_width, expected) -> None:
    fabricated.ablations(mini, scores, half_width=half_width)
    found = outcome(mini, TABLE3.replace("s6_l1, s6_l1_scaled, s6", ", ".join(scores)))
    assert found.verdict == expected
    if "s6_l1" in scores:
        assert found.scale.endswith("3 seeds")
        assert found.reason.count("over seeds") == found.reason.count("over images") == 2
    if half_width == 0.025:  # without the bootstrap the seeds alone decide
        assert outcome(mini, TABLE3.replace(", bootstrap: true", "")).verdict == REPRODUCED


def test_a_reduced_scale_may_have_fewer_experiments(mini: Path, tmp_path: Path) -> None:
    rule = ("{ordering: [s6_r384, s6_r640, s6], reduced: [s6_r640, s6], metric: AP, split: val, margin: 0.5, "
            "margin_reduced: 3.0, set: ablations}")
    scores = {"s6_r640": [20.0, 21.0], "s6": [40.0, 41.1]}
    fabricated.ablations(mini, scores)
    found = outcome(mini, rule)
    assert found.verdict == REPRODUCED and "s6_r384" not in found.values
    full = fabricated.study(tmp_path / "paper", {"s6": 80.0}, **FULL)
    fabricated.ablations(full, scores, **FULL)
    assert outcome(full, rule).verdict == NOT_RUN
    assert "at a reduced scale s6_r640 < s6" in describe(yaml.safe_load(rule))


def test_what_the_ablations_alone_have_is_named_and_what_they_lack_is_not_run(mini: Path) -> None:
    found = outcome(mini, TABLE3)
    assert (found.verdict, found.scale) == (NOT_RUN, "") and "make ablations runs them" in found.reason
    folder = fabricated.ablations(mini, LOSSES)
    row = compared(mini)["table3.row1.AP50"]
    assert (row["measured"], row["seeds"], row["verdict"]) == (31.0, 3, NOT_COMPARABLE)
    assert row["note"].startswith("from make ablations, 12,000 images: reduced scale")
    fabricated.run(folder, "s6_l1", 3, 33.0)
    fabricated.run(folder, "s6_l1_scaled", 3, 37.0)
    assert "of other seeds" in outcome(mini, TABLE3).reason
    write_json(folder / "ablations.json", {"version": 1, "pairs": {}})
    assert "no paired bootstrap of s6_l1_scaled against s6_l1" in outcome(mini, TABLE3).reason
    quantity = "{compare: [{measured: AP, experiment: s6_dw1, split: val, set: ablations}, '>', 1]}"
    assert "s6_dw1 was not run" in outcome(mini, quantity).reason
    with pytest.raises(ValueError, match="known: ablations"):
        outcome(mini, "{compare: [1, '<', 2], set: elsewhere}")
    with pytest.raises(ValueError, match="of val, not of test_dev"):
        outcome(mini, TABLE3.replace("split: val", "split: test_dev").replace(", set: ablations", "").replace(
            "s6_l1, s6_l1_scaled, s6", "s6, m6"))


@pytest.mark.parametrize(("rule", "expected", "said"), [
    ("{compare: [{stored: timed.json, key: slope.ms}, '<=', 0.5]}", REPRODUCED, "0.5 ≤ 0.5"),
    ("{compare: [{stored: timed.json, key: slope.ms, half: slope.half}, '<', 1]}", REPRODUCED, "0.5 ± 0.2 < 1"),
    ("{compare: [{stored: timed.json, key: slope.ms, half: slope.half}, '<', 0.6]}", WITHIN_NOISE, ""),
    ("{compare: [{stored: timed.json, key: slope.ms, half: slope.half}, '==', 0.35]}", WITHIN_NOISE, ""),
    ("{compare: [{stored: timed.json, key: slope.ms, half: slope.half}, '==', 0.2]}", NOT_REPRODUCED, ""),
    ("{compare: [{stored: timed.json, key: slope.ms, half: slope.half}, '==', 0.2], margin: 0.15}", WITHIN_NOISE, ""),
    ("{compare: [{stored: timed.json, key: slope.ms, half: slope.half}, '==', 0.2], margin: 0.3}", REPRODUCED, ""),
    ("{compare: [{stored: timed.json, key: slope.ms, low: slope.low, high: slope.high}, '<', .7]}", WITHIN_NOISE, ""),
    ("{compare: [{stored: timed.json, key: slope.ms, low: slope.low, high: slope.high}, '<', 0.9]}", REPRODUCED, ""),
    ("{compare: [{stored: timed.json, key: slope.ms, low: slope.low, high: slope.high}, '>', .35]}", REPRODUCED,
     "0.5 (0.4 to 0.8) > 0.35"),  # only the side that looks towards the other number counts
    ("{compare: [0.35, '<', {stored: timed.json, key: slope.ms, low: slope.low, high: slope.high}]}", REPRODUCED, ""),
    ("{compare: [{stored: timed.json, key: sizes.1}, '==', 4]}", REPRODUCED, ""),
    ("{compare: [{stored: timed.json, key: standalone}, '==', 1]}", REPRODUCED, ""),
    ("{compare: [{stored: s6/tta.json, key: gain}, '>', 0]}", NOT_REPRODUCED, "-1"),
    ("{compare: [{stored: s6/tta.json, key: gain, percent: true}, '==', -100]}", REPRODUCED, ""),
    ("{interval: {stored: timed.json, key: gain, percent: true}}", REPRODUCED, "+2, 95 % interval +1 to +3"),
    ("{interval: {stored: timed.json, key: loss}}", NOT_REPRODUCED, ""),
    ("{interval: {stored: timed.json, key: nothing}}", WITHIN_NOISE, "-0.1 to +0.3"),
    ("{interval: {stored: timed.json, key: slope}}", NOT_RUN, "has no slope.difference"),
    ("{compare: [{stored: timed.json, key: slope.none}, '<', 1]}", NOT_RUN, "timed.json has no slope.none"),
    ("{compare: [{stored: timed.json, key: name}, '<', 1]}", NOT_RUN, "not a number"),
    ("{compare: [{stored: export.json, key: size}, '<', 1]}", NOT_RUN, "export.json does not exist"),
    ("{compare: [{stored: m6/tta.json, key: gain}, '<', 1]}", NOT_RUN, "the joints are mirrored"),
    ("{compare: [{stored: ablations.json, key: pairs.s6_l1.s6.seeds.2, set: ablations}, '==', 2]}", REPRODUCED, ""),
])
def test_stored_values_by_hand(mini: Path, rule: str, expected: str, said: str) -> None:
    write_json(mini / "timed.json", {"slope": {"ms": 0.5, "half": 0.2, "low": 0.4, "high": 0.8}, "sizes": [3, 4],
                                       "standalone": True, "name": "s6",
                                       "gain": {"difference": 0.02, "low": 0.01, "high": 0.03},
                                       "loss": {"difference": -0.2, "low": -0.3, "high": -0.1},
                                       "nothing": {"difference": 0.1, "low": -0.1, "high": 0.3}})
    fabricated.ablations(mini, LOSSES)
    write_json(mini / "s6" / "seed0" / "tta.json", {"gain": -1.0})
    write_json(mini / "m6" / "seed0" / "tta.json", {"status": "not run", "reason": "the joints are mirrored"})
    found = outcome(mini, rule)
    assert found.verdict == expected and said in found.values + found.reason
    assert "timed.json" in describe(yaml.safe_load(rule)) or "timed.json" not in rule


def test_rules_in_words() -> None:
    table3, compare, interval, stored = (describe(yaml.safe_load(rule)) for rule in (
        TABLE3, "{compare: [{measured: AP, experiment: s6, split: val}, '>', 5], margin: 0.5}",
        "{interval: {stored: s6/tta.json, key: gains.multiscale.AP, percent: true}}",
        "{compare: [{stored: s6/tta.json, key: gain, half: spread}, '>', 0]}"))
    for words in ("over seeds and paired bootstrap over images, both", f"the best model reaches AP {ORDERING_FLOOR:g}",
                  "smoke", "margin 0.5 at full scale, 3 at a reduced one"):
        assert words in table3
    assert table3.endswith("measured by make ablations")
    assert compare.endswith("; one seed: margin 0.5; several: 95 % interval")
    assert interval == "the 95 % interval of gains.multiscale.AP of s6/tta.json lies above 0"
    assert stored.startswith("gain of s6/tta.json > 0; one seed")


def test_unusable_folders_and_rules_are_named(tmp_path: Path, mini: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(StudyError, match="holds no results"):
        load_results(tmp_path / "empty")
    metrics = mini / "s6" / "seed0" / "metrics.json"
    for file, text, said in ((metrics, '{"val": ', "metrics.json: is not JSON"),
                             (metrics, "[]", "metrics.json: must be a mapping"),
                             (mini / "complexity.csv", "variant,gmacs\nx,1\n", "complexity.csv: line 2: missing")):
        kept = file.read_text()
        file.write_text(text)
        with pytest.raises(StudyError, match=said):
            load_results(mini)
        file.write_text(kept)
    claim = claims.load_claims()[0] | {"rule": {"compare": [1, "~", 2]}}
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump([claim]))
    with pytest.raises(StudyError, match="C01.rule"):
        decide_claims(mini, tmp_path)


def test_half_written_and_mixed_runs_are_told(mini: Path) -> None:
    (mini / "m6" / "seed0" / "metrics.json").unlink()
    record = read_json(path := fabricated.run(mini, "s6", 1, 51.0) / "run.json")
    record["config"]["train"]["lr"] = 0.5
    write_json(path, record)
    found = load_results(mini)
    assert found.unfinished == ["m6/seed0: no metrics.json"] and "m6" not in found.runs
    assert found.mixed == ["s6: its seeds were made by different configurations; run it again"]
    assert list(found.runs) == ["s6", "l6", "s6_faithful", "s6_paper_eq"]


def test_quantized_splits_stand_in_table_5_and_an_undefined_accuracy_is_not_called_not_run(mini: Path) -> None:
    """COCO's evaluator gives −1 where nobody is of that size: at 128 px no person is large."""
    path = fabricated.run(mini, "s6_relu", 0, 48.0) / "metrics.json"
    write_json(path, read_json(path) | {"val_int8": fabricated.metrics(44.0, 1000)})
    metrics = read_json(path := mini / "s6" / "seed0" / "metrics.json")
    write_json(path, metrics | {"val": metrics["val"] | {"APL": -1.0}})
    found = load_results(mini)
    assert found.measure("s6", "val", "APM") is found.measure("s6", "val", "APL") is None
    assert found.measure("s6", "val", "AP50").by_seed == {0: 50.0}
    rows = compared(mini)
    assert rows["table5.row3.AP50"]["measured"] == 44.0 and rows["table5.row4.AP50"]["verdict"] == NOT_RUN
    assert rows["table1.row10.APL"]["verdict"] == NOT_COMPARABLE and "undefined" in rows["table1.row10.APL"]["note"]
    write_tables(mini)
    table = (mini / "tables" / "table1.md").read_text()
    line = next(line for line in table.splitlines() if "YOLOv5s6-pose" in line)
    assert UNDEFINED in line and "96 × 96 px" in table
