"""The claims of ``results/paper/claims.yaml``: decided by their rules, and the rules in words.

A rule is data, not code. Its forms (README of ``results/paper`` gives examples):

- ``compare: [quantity, operator, quantity]`` with ``margin``: the left must beat the right by more than the margin; for
  ``==`` the margin is the tolerance.
- ``ordering: [experiments, worst first]`` with ``metric``, ``split``, ``margin`` and ``margin_reduced`` (points, at
  full and at reduced scale): at any scale but smoke, where the best model reaches ``ORDERING_FLOOR``. With
  ``bootstrap: true`` the stored paired bootstrap over images must say the same as the seeds; ``reduced`` lists the
  experiments of a reduced scale, where that has not all of them.
- ``interval: quantity``, a ``stored`` object with ``difference``, ``low`` and ``high``: the interval lies above 0.
- ``matches_printed: {table, metric, split, experiment}``: the verdicts of the matching rows of ``comparison.csv``.
- ``all: [rules]``, ``fact: {holds, source}``, ``undecidable: reason``.

``set: ablations`` beside a form takes its measurements from the set of ``make ablations``; quantities are those of
``yolopose.report.quantities``. With several seeds a measured difference decides when its 95 % interval excludes 0 and
is *within noise* otherwise; one seed decides only what exceeds the margin.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from yolopose.report.compare import (
    COMPARISON_COLUMNS,
    NOT_COMPARABLE,
    NOT_REPRODUCED,
    NOT_RUN,
    REPRODUCED,
    VERDICTS,
    WITHIN_NOISE,
    compare_with_paper,
)
from yolopose.report.measured import PAIRS, PairedInterval, ResultSet, load_results, paired_interval
from yolopose.report.quantities import OPERATIONS, SMOKE_REASON, Missing, NotComparable, Quantities, choose_set
from yolopose.report.seeds import Measurement, difference
from yolopose.study.paper import PAPER_DIR
from yolopose.utils.errors import StudyError
from yolopose.utils.files import write_csv

CLAIM_COLUMNS = ["id", "claim", "where", "kind", "decided_by", "evidence", "rule", "tolerance", "values", "verdict",
                 "scale", "reason"]
KEYS = {"id", "text", "where", "kind", "evidence", "rule", "tolerance", "decided_by"}
DECIDERS = ("paper", "official code", "run", "nothing at hand")
UNDECIDED = "undecided: one seed, difference within the margin"
WORST_FIRST = (NOT_REPRODUCED, NOT_RUN, NOT_COMPARABLE, WITHIN_NOISE, REPRODUCED)
SYMBOLS = {"==": "equals", ">=": "≥", "<=": "≤", ">": ">", "<": "<"}
# Below this AP or AP50 in percent even the best model has not learned the task, and their order means nothing.
ORDERING_FLOOR = 5.0
NAMES = {"gmacs": "GMACs", "params_m": "parameters", "gflops_single_pass": "GFLOPs of one pass"}


def load_claims(paper_dir: Path = PAPER_DIR) -> list[dict[str, Any]]:
    """The claims, checked: known keys, unique ids, a known decider.

    Raises:
        StudyError: the file is not YAML or a claim is malformed.
    """
    path = paper_dir / "claims.yaml"
    try:
        claims = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise StudyError(f"{path}: cannot be read as YAML: {error}") from error
    seen = set()
    for claim in claims:
        name = claim.get("id", "?")
        if lacking := KEYS - set(claim):
            raise StudyError(f"{path}: {name}: lacks {', '.join(sorted(lacking))}")
        if unknown := set(claim) - KEYS:
            raise StudyError(f"{path}: {name}: unknown key {', '.join(sorted(unknown))}")
        if name in seen:
            raise StudyError(f"{path}: id {name} is used twice")
        if claim["decided_by"] not in DECIDERS:
            raise StudyError(f"{path}: {name}.decided_by: {claim['decided_by']!r}; known: {', '.join(DECIDERS)}")
        seen.add(name)
    return claims


def decide_claims(results: ResultSet | Path | str, paper_dir: Path = PAPER_DIR) -> list[dict[str, Any]]:
    """Decide all claims from the paper's tables and what a results folder holds.

    Args:
        results: the folder, read or not.
        paper_dir: folder of ``claims.yaml``.

    Returns:
        Rows with the columns of ``CLAIM_COLUMNS``.

    Raises:
        StudyError: as :func:`load_claims`, or a rule is malformed.
    """
    results = load_results(results)
    judge = Judge(results)
    rows = []
    for claim in load_claims(paper_dir):
        try:
            outcome = judge.decide(claim["rule"])
        except (KeyError, TypeError, ValueError) as error:
            raise StudyError(f"{paper_dir / 'claims.yaml'}: {claim['id']}.rule: {error}") from error
        rows.append({
            "id": claim["id"], "claim": claim["text"], "where": claim["where"], "kind": claim["kind"],
            "decided_by": claim["decided_by"], "evidence": "; ".join(claim["evidence"]),
            "rule": describe(claim["rule"]), "tolerance": claim["tolerance"], "values": outcome.values,
            "verdict": outcome.verdict, "scale": outcome.scale or _scale(claim, outcome.verdict, results),
            "reason": outcome.reason})
    return rows


def _scale(claim: dict[str, Any], verdict: str, results: ResultSet) -> str:
    """What the verdict rests on: printed numbers, a model counted at true size, or runs at the profile's scale."""
    if claim["decided_by"] == "paper":
        return "printed numbers"
    if claim["decided_by"] == "official code":
        return "official code, as read"
    if verdict == NOT_RUN:
        return ""
    return "true width and size" if claim["kind"] == "compute" else results.scale()


def write_comparison(results_dir: Path | str) -> dict[str, int]:
    """Write ``comparison.csv`` and ``claims.csv`` into a results folder.

    Returns:
        How many claims got each verdict.
    """
    results = load_results(results_dir)
    write_csv(results.root / "comparison.csv", compare_with_paper(results), COMPARISON_COLUMNS)
    claims = decide_claims(results)
    write_csv(results.root / "claims.csv", claims, CLAIM_COLUMNS)
    return {verdict: sum(claim["verdict"] == verdict for claim in claims) for verdict in VERDICTS}


@dataclass(frozen=True)
class Outcome:
    """A verdict, the numbers that led to it, the reason where it is not plain from them, and the scale of the runs."""

    verdict: str
    values: str = ""
    reason: str = ""
    scale: str = ""


def measured_verdict(advantage: float, half: float | None, margin: float) -> str:
    """Verdict on "the advantage is above 0", measured.

    Args:
        advantage: by how much the claimed side is ahead, in points.
        half: half of its 95 % interval, in points; ``None`` with one seed.
        margin: what one seed must exceed, in points; several seeds decide by the interval alone.
    """
    bar = margin if half is None else half
    if abs(advantage) > bar + 1e-9:
        return REPRODUCED if advantage > 0 else NOT_REPRODUCED
    return NOT_COMPARABLE if half is None else WITHIN_NOISE


def interval_verdict(low: float, high: float) -> str:
    """Verdict on "the difference is above 0" by the interval from ``low`` to ``high``."""
    return REPRODUCED if low > 0 else NOT_REPRODUCED if high < 0 else WITHIN_NOISE


class Judge:
    """Evaluates rules against one results folder and the paper's tables."""

    def __init__(self, results: ResultSet) -> None:
        self.results, self.value = results, Quantities(results).value

    @cached_property
    def comparison(self) -> list[dict[str, Any]]:
        return [row for row in compare_with_paper(self.results) if row["experiment"]]

    def decide(self, rule: dict[str, Any]) -> Outcome:
        """The outcome of one rule.

        Raises:
            ValueError, KeyError: the rule is malformed or selects no row or several.
        """
        forms: dict[str, Callable[[dict[str, Any]], Outcome]] = {
            "compare": self._compare, "ordering": self._ordering, "interval": self._interval, "all": self._all,
            "matches_printed": self._matches_printed,
            "fact": lambda r: Outcome(REPRODUCED if r["fact"]["holds"] else NOT_REPRODUCED, "", r["fact"]["source"]),
            "undecidable": lambda r: Outcome(NOT_RUN, "", r["undecidable"])}
        form = [name for name in forms if name in rule]
        if len(form) != 1:
            raise ValueError(f"needs exactly one of {', '.join(forms)}")
        try:
            if "set" in rule:
                chosen = choose_set(self.results, rule["set"])
                outcome = Judge(chosen).decide({k: v for k, v in rule.items() if k != "set"})
                return outcome if outcome.verdict == NOT_RUN else replace(outcome, scale=chosen.scale())
            return forms[form[0]](rule)
        except Missing as error:
            return Outcome(NOT_RUN, "", str(error))
        except NotComparable as error:
            return Outcome(NOT_COMPARABLE, "", str(error))

    def _all(self, rule: dict[str, Any]) -> Outcome:
        outcomes = [self.decide(part) for part in rule["all"]]
        verdict = worst(o.verdict for o in outcomes)
        reasons = dict.fromkeys(o.reason for o in outcomes if o.verdict == verdict and o.reason)
        scales = dict.fromkeys(o.scale for o in outcomes if o.scale)
        return Outcome(verdict, "; ".join(o.values for o in outcomes if o.values), "; ".join(reasons),
                       "; ".join(scales))

    def _compare(self, rule: dict[str, Any]) -> Outcome:
        left, operator, right = rule["compare"]
        if "floor" in rule and (best := self.value(rule["floor"])).number < ORDERING_FLOOR:
            raise NotComparable(f"the best is {best.number:.2g}, under {ORDERING_FLOOR:g}: the task was not learned")
        a, b, margin = self.value(left), self.value(right), float(rule.get("margin", 0))
        gap = a.number - b.number
        low = high = half = None
        if a.sides is not None and b.sides is not None:
            low, high = gap - math.hypot(a.sides[0], b.sides[1]), gap + math.hypot(a.sides[1], b.sides[0])
            half = gap - low if gap > 0 else high - gap  # the side of the interval that looks towards 0
        if operator not in SYMBOLS:
            raise ValueError(f"unknown operator {operator!r}")
        values = f"{a.text} {'against' if operator == '==' else SYMBOLS[operator]} {b.text}"
        advantage = gap if operator[0] == ">" else -gap
        if operator == "==":
            beyond = abs(gap) > margin + 1e-9 + (half or 0)
            verdict = REPRODUCED if abs(gap) <= margin + 1e-9 else NOT_REPRODUCED if beyond else WITHIN_NOISE
        elif a.measured or b.measured:
            verdict = measured_verdict(advantage, half, margin)
        else:
            holds = advantage > margin + 1e-9 or ("=" in operator and advantage >= margin - 1e-9)
            verdict = REPRODUCED if holds else NOT_REPRODUCED
        reason = ""
        if verdict == NOT_COMPARABLE:
            reason = f"{UNDECIDED} of {margin:g}; run more seeds"
        elif verdict == WITHIN_NOISE:
            reason = f"95 % interval of the difference: {low:+.3g} to {high:+.3g}"
        return Outcome(verdict, f"{values} (false)" if verdict == NOT_REPRODUCED else values, reason)

    def _ordering(self, rule: dict[str, Any]) -> Outcome:
        split, metric, full = rule["split"], rule["metric"], self.results.full_scale
        names = rule["ordering"] if full else rule.get("reduced", rule["ordering"])
        margin = float(rule["margin" if full else "margin_reduced"])
        found = []
        for name in names:
            value = self.results.measure(name, split, metric)
            if value is None:
                raise Missing(self.results.why_missing(name, split))
            found.append(value)
        values = f"{metric} on {split}: " + " < ".join(f"{n} {v}" for n, v in zip(names, found, strict=True))
        if self.results.profile == "smoke":
            return Outcome(NOT_COMPARABLE, values, SMOKE_REASON)
        if max(v.mean for v in found) < ORDERING_FLOOR:
            return Outcome(NOT_COMPARABLE, values,
                           f"no model reached {metric} {ORDERING_FLOOR:g}: the task was not learned")
        if len(names) < 2:
            raise ValueError("ordering needs two experiments")
        steps = []
        for (one, x), (two, y) in pairwise(zip(names, found, strict=True)):
            images = self._bootstrap(one, two, metric, split, x, y) if rule.get("bootstrap") else None
            steps.append(_step(f"{two} − {one}", x, y, margin, images))
        return Outcome(worst(verdict for verdict, _ in steps), values, "; ".join(reason for _, reason in steps))

    def _interval(self, rule: dict[str, Any]) -> Outcome:
        """A stored gain: above 0 where its whole interval is."""
        q = dict(rule["interval"])
        quantities = Quantities(choose_set(self.results, q.pop("set", None)))
        file, key, percent = q.pop("stored"), q.pop("key"), q.pop("percent", False)
        if q:
            raise ValueError(f"interval: unknown key {', '.join(q)}")
        gain, low, high = (quantities.read(file, f"{key}.{part}", percent) for part in ("difference", "low", "high"))
        return Outcome(interval_verdict(low, high), f"{gain:+.3g}, 95 % interval {low:+.3g} to {high:+.3g}")

    def _bootstrap(self, one: str, two: str, metric: str, split: str, x: Measurement, y: Measurement) -> PairedInterval:
        """The stored interval of ``two − one`` over resampled images, of the seeds that were measured."""
        if split != "val":
            raise ValueError(f"bootstrap: the paired bootstrap is of val, not of {split}")
        found = paired_interval(self.results, one, two, metric)
        if found is None:
            raise Missing(f"{PAIRS} has no paired bootstrap of {two} against {one}; make ablations writes it")
        if set(found.seeds) != set(x.by_seed) & set(y.by_seed):
            raise Missing(f"{PAIRS} is older than the runs: its {two} against {one} is of other seeds; "
                          "make ablations writes it again")
        return found

    def _matches_printed(self, rule: dict[str, Any]) -> Outcome:
        wanted = {key: _listed(value) for key, value in rule["matches_printed"].items()}
        rows = [row for row in self.comparison if all(row[key] in values for key, values in wanted.items())]
        if not rows:
            raise ValueError(f"no printed number matches {rule['matches_printed']}")
        values = "; ".join(f"{r['experiment']} {r['measured']} (printed {r['printed']})" for r in rows
                           if r.get("measured") is not None)
        verdict = worst(row["verdict"] for row in rows)
        notes = [row["note"] for row in rows if row["verdict"] == verdict != REPRODUCED and row["note"]]
        return Outcome(verdict, values, "; ".join(dict.fromkeys(notes)))


def worst(verdicts: Iterable[str]) -> str:
    """The verdict of several together."""
    return min(verdicts, key=WORST_FIRST.index)


def _step(label: str, x: Measurement, y: Measurement, margin: float, images: PairedInterval | None
          ) -> tuple[str, str]:
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
    if verdict not in (NOT_COMPARABLE, interval_verdict(images.low, images.high)):
        verdict = NOT_COMPARABLE if half is None else WITHIN_NOISE  # the two kinds of chance do not both exclude 0
    return verdict, reason


def describe(rule: dict[str, Any]) -> str:
    """One rule of ``claims.yaml`` as a sentence."""
    if "set" in rule:
        return f"{describe({k: v for k, v in rule.items() if k != 'set'})}; measured by make {rule['set']}"
    margin = f", margin {rule['margin']:g}" if rule.get("margin") else ""
    if "compare" in rule:
        left, operator, right = rule["compare"]
        if operator == "==":
            margin = margin.replace("margin", "tolerance")
        elif _measured(left) or _measured(right):
            margin = f"; one seed: margin {rule.get('margin', 0):g}; several: 95 % interval"
        return f"{_words(left)} {SYMBOLS[operator]} {_words(right)}{margin}"
    if "ordering" in rule:
        order = " < ".join(rule["ordering"])
        if "reduced" in rule:
            order += f" (at a reduced scale {' < '.join(rule['reduced'])})"
        images = " over seeds and paired bootstrap over images, both" if rule.get("bootstrap") else ""
        return (f"{rule['metric']} on {rule['split']}: {order}; one seed: margin {rule['margin']:g} at full scale, "
                f"{rule['margin_reduced']:g} at a reduced one; several: 95 % interval{images}; decided only where the "
                f"best model reaches {rule['metric']} {ORDERING_FLOOR:g}, and never in the smoke profile")
    if "interval" in rule:
        return f"the 95 % interval of {_words(rule['interval'])} lies above 0"
    if "matches_printed" in rule:
        wanted = rule["matches_printed"]
        tables = _listed(wanted["table"])
        what = " and ".join(NAMES.get(m, m) for m in _listed(wanted["metric"]))
        where = ("Tables " if len(tables) > 1 else "Table ") + " and ".join(map(str, tables))
        return f"{what} of {where}, measured, equal the printed ones within their tolerance"
    if "all" in rule:
        return "all of: " + "; ".join(describe(part) for part in rule["all"])
    if "fact" in rule:
        return f"read in {rule['fact']['source'].partition(':')[0]}"
    return "no rule: " + rule["undecidable"].partition(";")[0]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _measured(quantity: Any) -> bool:
    """Whether a quantity is measured, with an interval, or made of one that is."""
    return isinstance(quantity, dict) and ("measured" in quantity or bool({"half", "low"} & set(quantity)) or any(
        _measured(part) for parts in quantity.values() if isinstance(parts, list) for part in parts))


def _words(quantity: Any) -> str:
    if not isinstance(quantity, dict):
        return f"{quantity:g}"
    q = dict(quantity)
    for operation, symbol in OPERATIONS.items():
        if operation in q:
            return "(" + symbol.join(_words(part) for part in q[operation]) + ")"
    if "stored" in q:
        where = f" of the {q['set']}" if "set" in q else ""
        return f"{q['key']} of {q['stored']}{where}"
    if "set" in q:
        return f"{_words({k: v for k, v in q.items() if k != 'set'})} of the {q['set']}"
    kind, metric = next(iter(q.items()))
    q.pop(kind)
    metric = NAMES.get(metric, metric)
    if kind == "analytic":
        return f"{metric}({', '.join(f'{k} {v:g}' for k, v in q.items())})"
    if kind != "printed":
        return " ".join([kind if kind != "complexity" else "counted", metric, *(_selector(k, v) for k, v in q.items())])
    who = "other methods" if q.pop("others", False) else ""
    reduce, table = q.pop("reduce", ""), q.pop("table")
    bounds = [f"{'GMACs' if k == 'gmacs' else k} {lo:g} to {hi:g}" for k, (lo, hi) in q.pop("between", {}).items()]
    rest = (_selector(k, v) for k, v in q.items())
    return f"Table {table} " + " ".join(p for p in (reduce, metric, who, *rest, *bounds) if p)


def _selector(key: str, value: Any) -> str:
    if key == "bits" and str(value).isdigit():
        return f"{value} bits"
    return {"row": f"row {value}", "input_size": f"{value} px", "split": f"on {value}"}.get(key, str(value))
