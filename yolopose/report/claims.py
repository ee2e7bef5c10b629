"""The claims of ``results/paper/claims.yaml``: decided by their rules, and the rules in words. A rule is data: a form
of :data:`FORMS` over ``yolopose.report.quantities``, listed with examples in the README of ``results/paper``."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from yolopose.report import verdicts
from yolopose.report.compare import COMPARISON_COLUMNS, compare_with_paper
from yolopose.report.measured import PAIRS, PairedInterval, ResultSet, load_results, paired_interval
from yolopose.report.quantities import SMOKE_REASON, Missing, NotComparable, evaluate, pick_set, read_number
from yolopose.report.rules import OPERATIONS, SYMBOLS, Claim
from yolopose.report.seeds import Measurement, difference
from yolopose.report.verdicts import NOT_COMPARABLE, NOT_REPRODUCED, NOT_RUN, REPRODUCED, WITHIN_NOISE, measured_verdict
from yolopose.study.paper import PAPER_DIR
from yolopose.utils.errors import StudyError
from yolopose.utils.files import write_csv
from yolopose.utils.typed import held, read_yaml

CLAIM_COLUMNS = ["id", "claim", "where", "kind", "decided_by", "evidence", "rule", "tolerance", "values", "verdict",
                 "scale", "reason"]
AS_PRINTED = {"paper": "printed numbers", "official code": "official code, as read"}  # in place of a scale
UNDECIDED = "undecided: one seed, difference within the margin"
# Below this AP or AP50 in percent even the best model has not learned the task, and their order means nothing.
ORDERING_FLOOR = 5.0
NAMES = {"gmacs": "GMACs", "params_m": "parameters", "gflops_single_pass": "GFLOPs of one pass"}


def load_claims(paper_dir: Path = PAPER_DIR) -> list[dict[str, Any]]:
    """The claims; a ``StudyError`` names what is malformed, and an id that is used twice."""
    path, claims = paper_dir / "claims.yaml", {}
    for place, stored in enumerate(read_yaml(path, list[dict[str, Any]])):
        claim = vars(held(Claim, stored, path, "correct it", str(stored.get("id", f"claim {place + 1}"))))
        if claim["id"] in claims:
            raise StudyError(f"{path}: id {claim['id']} is used twice; give each claim its own")
        claims[claim["id"]] = claim
    return list(claims.values())


def decide_claims(results: ResultSet | Path | str, paper_dir: Path = PAPER_DIR) -> list[dict[str, Any]]:
    """All claims, decided: rows with ``CLAIM_COLUMNS``. A malformed rule is a ``StudyError`` that names the claim."""
    results, rows = load_results(results), []
    for claim in load_claims(paper_dir):
        try:
            outcome = decide(results, claim["rule"])
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise StudyError(f"{paper_dir / 'claims.yaml'}: {claim['id']}.rule: {error}; correct it") from error
        scale = outcome.scale or AS_PRINTED.get(claim["decided_by"])
        if scale is None and outcome.verdict != NOT_RUN:
            scale = "true width and size" if claim["kind"] == "compute" else results.scale()
        row = claim | vars(outcome) | {"claim": claim["text"], "evidence": "; ".join(claim["evidence"]),
                                       "rule": describe(claim["rule"]), "scale": scale or ""}
        rows.append({column: row[column] for column in CLAIM_COLUMNS})
    return rows


def write_comparison(results_dir: Path | str) -> dict[str, int]:
    """Write ``comparison.csv`` and ``claims.csv`` into a results folder; returns how many claims got each verdict."""
    results = load_results(results_dir)
    write_csv(results.root / "comparison.csv", compare_with_paper(results), COMPARISON_COLUMNS)
    claims = decide_claims(results)
    write_csv(results.root / "claims.csv", claims, CLAIM_COLUMNS)
    return {verdict: sum(claim["verdict"] == verdict for claim in claims) for verdict in verdicts.VERDICTS}


@dataclass(frozen=True)
class Outcome:
    """A verdict, the numbers that led to it, the reason where it is not plain from them, and the scale of the runs."""

    verdict: str
    values: str = ""
    reason: str = ""
    scale: str = ""


def decide(results: ResultSet, rule: dict[str, Any]) -> Outcome:
    """The outcome of one rule; a malformed one is a ``ValueError`` or ``KeyError``."""
    forms = [decide_form for name, decide_form in FORMS.items() if name in rule]
    if len(forms) != 1:
        raise ValueError(f"needs exactly one of {', '.join(FORMS)}")
    try:
        outcome = forms[0](pick_set(results, rule.get("set")), rule)
    except Missing as error:
        outcome = Outcome(error.verdict, "", str(error))
    if "set" not in rule or outcome.verdict == NOT_RUN:
        return outcome
    return replace(outcome, scale=pick_set(results, rule["set"]).scale())


def _all(results: ResultSet, rule: dict[str, Any]) -> Outcome:
    outcomes = [decide(results, part) for part in rule["all"]]
    verdict = verdicts.worst(o.verdict for o in outcomes)
    reasons = dict.fromkeys(o.reason for o in outcomes if o.verdict == verdict and o.reason)
    scales = dict.fromkeys(o.scale for o in outcomes if o.scale)
    return Outcome(verdict, "; ".join(o.values for o in outcomes if o.values), "; ".join(reasons), "; ".join(scales))


def _compare(results: ResultSet, rule: dict[str, Any]) -> Outcome:
    left, operator, right = rule["compare"]
    if operator not in SYMBOLS:
        raise ValueError(f"unknown operator {operator!r}")
    if "floor" in rule and (best := evaluate(results, rule["floor"])).number < ORDERING_FLOOR:
        raise NotComparable(f"the best is {best.number:.2g}, under {ORDERING_FLOOR:g}: the task was not learned")
    a, b, margin = evaluate(results, left), evaluate(results, right), float(rule.get("margin", 0))
    gap, half = a.number - b.number, None
    if a.sides is not None and b.sides is not None:
        low, high = gap - math.hypot(a.sides[0], b.sides[1]), gap + math.hypot(a.sides[1], b.sides[0])
        half = gap - low if gap > 0 else high - gap  # the side of the interval that looks towards 0
    values = f"{a.text} {'against' if operator == '==' else SYMBOLS[operator]} {b.text}"
    advantage, reason = gap if operator[0] == ">" else -gap, ""
    if operator == "==":
        beyond = abs(gap) > margin + 1e-9 + (half or 0)
        verdict = REPRODUCED if abs(gap) <= margin + 1e-9 else NOT_REPRODUCED if beyond else WITHIN_NOISE
    elif a.measured or b.measured:
        verdict = measured_verdict(advantage, half, margin)
    else:
        holds = advantage > margin + 1e-9 or ("=" in operator and advantage >= margin - 1e-9)
        verdict = REPRODUCED if holds else NOT_REPRODUCED
    if verdict == NOT_COMPARABLE:
        reason = f"{UNDECIDED} of {margin:g}; run more seeds"
    elif verdict == WITHIN_NOISE:
        reason = f"95 % interval of the difference: {low:+.3g} to {high:+.3g}"
    return Outcome(verdict, f"{values} (false)" if verdict == NOT_REPRODUCED else values, reason)


def _ordering(results: ResultSet, rule: dict[str, Any]) -> Outcome:
    split, metric, full = rule["split"], rule["metric"], results.full_scale
    names = rule["ordering"] if full else rule.get("reduced", rule["ordering"])
    if len(names) < 2:
        raise ValueError("ordering needs two experiments")
    margin = float(rule["margin" if full else "margin_reduced"])
    found = {name: results.measure(name, split, metric) for name in names}
    if lacking := [name for name, value in found.items() if value is None]:
        raise Missing(results.why_missing(lacking[0], split))
    values = f"{metric} on {split}: " + " < ".join(f"{name} {value}" for name, value in found.items())
    if results.profile == "smoke":
        return Outcome(NOT_COMPARABLE, values, SMOKE_REASON)
    if max(value.mean for value in found.values()) < ORDERING_FLOOR:
        reason = f"no model reached {metric} {ORDERING_FLOOR:g}: the task was not learned"
        return Outcome(NOT_COMPARABLE, values, reason)
    steps, bootstrap = [], rule.get("bootstrap")
    if bootstrap and split != "val":
        raise ValueError(f"bootstrap: the paired bootstrap is of val, not of {split}")
    for (one, x), (two, y) in pairwise(found.items()):
        images = _bootstrap(results, one, two, metric, set(x.by_seed) & set(y.by_seed)) if bootstrap else None
        steps.append(_step(f"{two} − {one}", x, y, margin, images))
    return Outcome(verdicts.worst(verdict for verdict, _ in steps), values, "; ".join(reason for _, reason in steps))


def _bootstrap(results: ResultSet, one: str, two: str, metric: str, seeds: set[int]) -> PairedInterval:
    """The stored interval of ``two − one`` over resampled images, of the seeds that were measured."""
    found = paired_interval(results, one, two, metric)
    if found is None:
        raise Missing(f"{PAIRS} has no paired bootstrap of {two} against {one}; make ablations writes it")
    if set(found.seeds) != seeds:
        raise Missing(f"{PAIRS} is older than the runs: its {two} against {one} is of other seeds; "
                      "make ablations writes it again")
    return found


def _step(label: str, x: Measurement, y: Measurement, margin: float, images: PairedInterval | None) -> tuple[str, str]:
    """Verdict and reason of one step of an ordering, that ``y`` is above ``x``; ``images`` must agree where given."""
    gap, half = difference(x, y)
    verdict = measured_verdict(gap, half, margin)
    reason = f"{label} = {gap:+.1f}"
    if half is not None:
        reason = f"{label}: 95 % interval {gap - half:+.1f} to {gap + half:+.1f}"
    elif verdict == NOT_COMPARABLE:
        reason = f"{UNDECIDED} of {margin:g} ({reason}); run more seeds"
    if images is None:
        return verdict, reason
    reason += f", over images {images}" if half is None else f" over seeds, {images} over images"
    if verdict not in (NOT_COMPARABLE, verdicts.interval_verdict(images.low, images.high)):
        verdict = NOT_COMPARABLE if half is None else WITHIN_NOISE  # the two kinds of chance do not both exclude 0
    return verdict, reason


def _interval(results: ResultSet, rule: dict[str, Any]) -> Outcome:
    fields = dict(rule["interval"])
    results, key = pick_set(results, fields.pop("set", None)), fields.pop("key")
    gain, low, high = (read_number(results, key=f"{key}.{part}", **fields) for part in ("difference", "low", "high"))
    return Outcome(verdicts.interval_verdict(low, high), f"{gain:+.3g}, 95 % interval {low:+.3g} to {high:+.3g}")


def _matches_printed(results: ResultSet, rule: dict[str, Any]) -> Outcome:
    wanted = {key: _listed(value) for key, value in rule["matches_printed"].items()}
    rows = [row for row in compare_with_paper(results)
            if row["experiment"] and all(row[key] in values for key, values in wanted.items())]
    if not rows:
        raise ValueError(f"no printed number matches {rule['matches_printed']}")
    values = "; ".join(f"{r['experiment']} {r['measured']} (printed {r['printed']})" for r in rows
                       if r.get("measured") is not None)
    verdict = verdicts.worst(row["verdict"] for row in rows)
    notes = [row["note"] for row in rows if row["verdict"] == verdict != REPRODUCED and row["note"]]
    return Outcome(verdict, values, "; ".join(dict.fromkeys(notes)))


FORMS: dict[str, Callable[[ResultSet, dict[str, Any]], Outcome]] = {
    "compare": _compare, "ordering": _ordering, "interval": _interval, "all": _all, "matches_printed": _matches_printed,
    "fact": lambda _, rule: Outcome((NOT_REPRODUCED, REPRODUCED)[rule["fact"]["holds"]], "", rule["fact"]["source"]),
    "undecidable": lambda _, rule: Outcome(NOT_RUN, "", rule["undecidable"]),
}


def describe(rule: dict[str, Any]) -> str:
    """One rule of ``claims.yaml`` as a sentence."""
    margin = f", margin {rule['margin']:g}" if rule.get("margin") else ""
    match rule:
        case {"set": name, **rest}:
            return f"{describe(rest)}; measured by make {name}"
        case {"compare": [left, operator, right]}:
            if operator == "==":
                margin = margin.replace("margin", "tolerance")
            elif _measured(left) or _measured(right):
                margin = f"; one seed: margin {rule.get('margin', 0):g}; several: 95 % interval"
            return f"{_words(left)} {SYMBOLS[operator]} {_words(right)}{margin}"
        case {"ordering": order, "metric": metric}:
            reduced = f" (at a reduced scale {' < '.join(rule['reduced'])})" if "reduced" in rule else ""
            images = " over seeds and paired bootstrap over images, both" if rule.get("bootstrap") else ""
            return (f"{metric} on {rule['split']}: {' < '.join(order)}{reduced}; one seed: margin {rule['margin']:g} "
                    f"at full scale, {rule['margin_reduced']:g} at a reduced one; several: 95 % interval{images}; "
                    f"decided only where the best model reaches {metric} {ORDERING_FLOOR:g}, and never in the smoke "
                    "profile")
        case {"interval": quantity}:
            return f"the 95 % interval of {_words(quantity)} lies above 0"
        case {"matches_printed": {"table": tables, "metric": metrics}}:
            tables, metrics = _listed(tables), [NAMES.get(metric, metric) for metric in _listed(metrics)]
            where = f"{'Tables' if len(tables) > 1 else 'Table'} {' and '.join(map(str, tables))}"
            return f"{' and '.join(metrics)} of {where}, measured, equal the printed ones within their tolerance"
        case {"all": rules}:
            return "all of: " + "; ".join(map(describe, rules))
        case {"fact": {"source": source}}:
            return f"read in {source.partition(':')[0]}"
    return "no rule: " + rule["undecidable"].partition(";")[0]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _measured(quantity: Any) -> bool:
    """Whether a quantity is measured, with an interval, or made of one that is."""
    return isinstance(quantity, dict) and (bool({"measured", "half", "low"} & set(quantity)) or any(
        _measured(part) for parts in quantity.values() if isinstance(parts, list) for part in parts))


def _words(quantity: Any) -> str:
    match quantity:
        case int() | float():
            return f"{quantity:g}"
        case {"set": name, **rest}:
            return f"{_words(rest)} of the {name}"
        case {"stored": file, "key": key}:
            return f"{key} of {file}"
        case {"analytic": name, **arguments}:
            return f"{name}({', '.join(f'{k} {v:g}' for k, v in arguments.items())})"
        case {"printed": metric, "table": table, **fields}:
            who = "other methods" if fields.pop("others", False) else ""
            reduce, between = fields.pop("reduce", ""), fields.pop("between", {})
            bounds = (f"{NAMES.get(k, k)} {low:g} to {high:g}" for k, (low, high) in between.items())
            words = (reduce, NAMES.get(metric, metric), who, *(_selector(k, v) for k, v in fields.items()), *bounds)
            return f"Table {table} " + " ".join(filter(None, words))
    for operation, symbol in OPERATIONS.items():
        if operation in quantity:
            return "(" + symbol.join(map(_words, quantity[operation])) + ")"
    (kind, metric), *fields = quantity.items()
    kind = "counted" if kind == "complexity" else kind
    return " ".join([kind, NAMES.get(metric, metric), *(_selector(key, value) for key, value in fields)])


def _selector(key: str, value: Any) -> str:
    forms = {"row": f"row {value}", "input_size": f"{value} px", "split": f"on {value}"}
    return f"{value} bits" if key == "bits" and str(value).isdigit() else forms.get(key, str(value))
