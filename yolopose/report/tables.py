"""Tables 1 to 5 of the paper, printed and measured side by side, from stored results.

Nothing is trained here: the input is a results folder, ``results/paper/`` and, for rows that a run did not make, the
committed reference of the same profile (marked "(ref)"). Tables 3 and 4 have the ablations in a column of their own:
their schedule is another, so that no column mixes two budgets. Accuracies are in percent, GMACs in 1e9
multiply-accumulates.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolopose.report.compare import TABLES, number, printed_rows, same_digits
from yolopose.report.layout import DASH, NOT_RUN, REFERENCE_MARK, UNDEFINED, Cells, Row, Table, rounded, signed
from yolopose.report.measured import ResultSet, fingerprint_note, load_reference, load_results
from yolopose.report.seeds import Measurement
from yolopose.study.config import load_experiments
from yolopose.study.paper import CONVENTIONS, MAIN_CONVENTION, PAPER_DIR
from yolopose.utils.files import read_csv

COUNTS, ACCURACIES = ("params_m", "gmacs"), ("AP", "AP50", "AP75", "APL", "AR")
COUNT_TITLES = {"params_m": "Params (M)", "gmacs": "GMACs"}
CONVENTION_TITLES = {"conv": "convolutions alone", "fused_bias": "fvcore, fused + biases",
                     "fvcore_unfused": "fvcore, unfused"}
FUSED_BIAS_NOTE = (
    "fused_bias = everything fvcore counts on the fused model (convolutions and nearest-neighbour upsampling) plus one "
    "operation per element of each biased output. Without the upsampling l6 at 960 px is 145.548, which would round to "
    "145.5; printed: 145.6.")
TABLE4_SENTENCE = "No single convention gives all of Table 4's GMACs to the printed digit."
# Experiments of this study that stand below the paper's rows: table -> (experiment, its other cells).
EXTRA = {1: [("s6_faithful", {})], 2: [("s6_faithful", {})],
         3: [("s6_oks_tuned", {"loss": "OKS, gain tuned as for L1"}),
             ("s6_paper_eq", {"loss": "OKS, equations as printed"})]}
WITH_ABLATIONS = ("3", "4")  # tables whose experiments make ablations trains, on a schedule of its own
CAPTIONS = {
    1: "Comparison with bottom-up methods on COCO val2017.",
    2: "Comparison with bottom-up methods on COCO test-dev2017.",
    3: "Keypoint losses, s6 at 960 px.",
    4: "Input resolution: GMACs of s6 in three counting conventions, and AP, on COCO val2017.",
    5: "Post-training quantization of s6 with ReLU at 960 px.",
}
MARKS = {"run": "", "reference": REFERENCE_MARK}


@dataclass(frozen=True)
class Builder:
    """Makes the tables of one results folder; ``reference`` supplies what the run lacks."""

    results: ResultSet
    reference: ResultSet | None = None

    def build(self, table: int) -> Table:
        """Table 1 to 5."""
        printed = self._printed(table)
        metrics, counts = (ACCURACIES, COUNTS) if table in (1, 2) else (ACCURACIES[:2], ())
        rows = [self._row(row, metrics, counts) for row in printed]
        notes = []
        if table in (1, 2):
            notes = ["† = multi-scale testing; the paper multiplies GMACs by 2 for flip testing and 5.25 for "
                     "multi-scale.",
                     f"Params and GMACs here: fused model at the paper's width and size, convention {MAIN_CONVENTION}.",
                     FUSED_BIAS_NOTE, "RTMO: numbers of its own paper, which prints no GMACs."]
        elif table == 4:
            rows = [self._with_gmacs(*row, known["gmacs"]) for row, known in zip(rows, printed, strict=True)]
            notes = [conventions_note([data for *_, data in rows]),
                     "GMACs are counted at the paper's width and sizes.", FUSED_BIAS_NOTE]
        elif table == 5:
            _add_drops(rows)
            notes = ["Drops from 32 bits can be compared at a reduced scale; absolute AP cannot."]
        return Table.of(f"table{table}", f"Table {table}", CAPTIONS[table], rows,
                        [*self._notes(rows, "test_dev" if table == 2 else "val"), *notes])

    def _printed(self, table: int) -> list[dict[str, str]]:
        """The paper's rows, then this study's other experiments, then those of RTMO's own paper; with ``kind``, with
        ``origin``, and with ``shown`` where a row is not called by its method."""
        rows = [row | {"kind": "ours" if row["experiment"] else "other", "origin": "paper"}
                for row in printed_rows(table)]
        split = "test_dev" if table == 2 else "val"
        for experiment, loss in EXTRA.get(table, ()):
            known = load_experiments()[experiment]
            rows.append({"row": "", "method": known.title, "experiment": experiment, "split": split, "kind": "study",
                         "input_size": str(known.input_size), "note": "an experiment of this study, not in the paper",
                         "origin": "this study", "shown": f"{known.title} (this study)"} | loss)
        for row in read_csv(PAPER_DIR / "rtmo.csv") if table in (1, 2) else ():
            if row["split"] == split and row["method"].startswith("RTMO"):
                more = " + more data" if row["train_data"] != "COCO" else ""
                note = f"{row['source']} (its table {row['table']}, row {row['row']}); trained on {row['train_data']}"
                rows.append(row | {"row": "", "experiment": "", "gmacs": "-", "test": "no TTA", "kind": "rtmo",
                                   "origin": "RTMO paper", "note": note, "shown": f"{row['method']} (own paper{more})"})
        return [row | {"table": str(table)} for row in rows]

    def _notes(self, rows: list[Row], split: str) -> list[str]:
        origins = {data.get("measured_from") for *_, data in rows}
        of_ablations = {data.get("ablations_from") for *_, data in rows}
        used_reference = "reference" in origins | of_ablations
        notes = []
        if self.results.runs or used_reference:
            source = self.results if self.results.runs else self.reference
            reason = source.not_comparable(split)
            notes.append(f"here = {source.scale()}" + (
                "; these accuracies are not comparable with the printed ones." if reason else "."))
        else:
            notes.append("here = nothing trained yet in this folder.")
        if any(UNDEFINED in cells.values() for _, cells, _ in rows):
            notes.append(f"{UNDEFINED} = no person of this data set is that large (COCO: more than 96 × 96 px).")
        if of_ablations != {None}:
            found = (self.results if "run" in of_ablations else self.reference).ablations
            notes.append(f"ablations = {found.scale()}, {found.images_seen()} each: the set of make ablations, on its "
                         "own schedule and not that of the column here.")
        if of_ablations != {None} or any(len(runs) > 1 for runs in self.results.runs.values()):
            notes.append("± = standard deviation over seeds.")
        if used_reference:
            commits = self.reference.commits()
            notes.append(f"(ref) = not in this run; from the committed reference ({self.reference.scale()}"
                         + (f"; commit {commits}" if commits else "") + ").")
            if note := fingerprint_note(self.results, self.reference):
                notes.append(note)
        return notes

    def _accuracy(self, printed: dict[str, str], metric: str, data: dict[str, Any]) -> str:
        """Display string of a measured accuracy; its numbers go into ``data``."""
        wanted = printed["experiment"], printed["split"], metric
        value, origin, source = _first_measured({"run": self.results, "reference": self.reference}, *wanted)
        if value is None:
            return UNDEFINED if self.results.undefined(*wanted) else NOT_RUN
        data |= {f"{metric}_measured": rounded(value.mean), f"{metric}_spread": rounded(value.deviation),
                 "seeds": len(value.by_seed), "measured_from": origin, "scale": source.scale(),
                 "comparable": "no" if source.not_comparable(printed["split"]) else "yes"}
        return f"{value}{MARKS[origin]}"

    def _ablation(self, printed: dict[str, str], metric: str, data: dict[str, Any]) -> str:
        """The same accuracy in the set of ``make ablations``, as display string; its numbers go into ``data``."""
        sets = {"run": self.results.ablations, "reference": self.reference and self.reference.ablations}
        value, origin, _ = _first_measured(sets, printed["experiment"], printed["split"], metric)
        data |= {f"{metric}_ablations": rounded(value and value.mean),
                 f"{metric}_ablations_spread": rounded(value and value.deviation)}
        if value is None:
            return DASH
        data |= {"ablations_seeds": len(value.by_seed), "ablations_from": origin}
        return f"{value}{MARKS[origin]}"

    def _count(self, printed: dict[str, str], key: str, data: dict[str, Any]) -> str:
        value = first_count((self.results, self.reference), printed["experiment"], key)
        data[f"{key}_measured"] = rounded(value, 3)
        return f"{value:.1f}" if value is not None else "" if data[f"{key}_printed"] is None else NOT_RUN

    def _row(self, printed: dict[str, str], metrics: Sequence[str], counts: Sequence[str]) -> Row:
        """One printed row: every metric printed and, where the row is ours, measured."""
        ours, backbone = bool(printed["experiment"]), printed.get("backbone", "-")
        method = printed["method"] + ("" if ours or backbone in ("-", printed["method"]) else f" ({backbone})")
        method += " †" if printed.get("test") == "multi-scale" else ""
        cells: Cells = {("", "Method"): printed.get("shown", method)}
        data: dict[str, Any] = {"table": printed["table"], "row": printed["row"], "method": printed["method"],
                                "source": printed["origin"], "experiment": printed["experiment"],
                                "split": printed["split"]}
        data |= {key: printed[key] for key in ("backbone", "input_size", "test", "loss", "bits") if key in printed}
        cells |= {("", title): DASH if printed[key] == "-" else printed[key] for key, title in
                  (("loss", "Loss"), ("bits", "Bits"), ("input_size", "Input")) if key in printed}
        for key in (*counts, *metrics):
            title = COUNT_TITLES.get(key, key)
            data |= {f"{key}_printed": number(printed.get(key)), f"{key}_measured": None}
            data |= {f"{key}_spread": None} if key in metrics else {}
            measure = self._count if key in counts else self._accuracy
            cells[title, "paper"] = printed.get(key, "").replace("-", DASH) or DASH
            cells[title, "here"] = measure(printed, key, data) if ours else ""
            if key in metrics and printed["table"] in WITH_ABLATIONS:
                cells[title, "ablations"] = self._ablation(printed, key, data) if ours else ""
        data |= {key: data.get(key) for key in ("seeds", "measured_from", "scale", "comparable")}
        data["note"] = printed.get("note")
        return printed["kind"], cells, data

    def _with_gmacs(self, kind: str, cells: Cells, data: dict[str, Any], printed: str) -> Row:
        """A row of Table 4 with its GMACs in every convention, which stand before the accuracies."""
        gmacs = gmacs_cells((self.results, self.reference), data["experiment"], printed, data,
                            NOT_RUN if kind == "ours" else "")
        method, size, *accuracies = cells.items()
        return kind, dict([method, size, *gmacs.items(), *accuracies]), data


def _first_measured(sets: dict[str, ResultSet | None], experiment: str, split: str, metric: str
                    ) -> tuple[Measurement | None, str, ResultSet | None]:
    """The accuracy from the first set that has it, with the set; a run's own goes before the reference's."""
    for origin, source in sets.items():
        if source and (value := source.measure(experiment, split, metric)):
            return value, origin, source
    return None, "", None


def gmacs_cells(sets: Iterable[ResultSet | None], experiment: str, printed: str, data: dict[str, Any],
                missing: str = NOT_RUN) -> Cells:
    """GMACs in every convention beside the printed ones, with residuals in percent; their numbers go into ``data``."""
    cells, data["gmacs_printed"] = {("GMACs", "paper"): printed or DASH}, number(printed)
    for convention in CONVENTIONS:
        value, title = first_count(sets, experiment, "gmacs", convention), CONVENTION_TITLES[convention]
        gap = None if value is None or not printed else 100 * (value / float(printed) - 1)
        data |= {f"gmacs_{convention}": rounded(value, 3), f"residual_percent_{convention}": rounded(gap)}
        cells[title, "GMACs"] = missing if value is None else f"{value:.2f}"
        cells[title, "residual %"] = missing if value is None else signed(gap, 2)
    return cells


def first_count(sets: Iterable[ResultSet | None], experiment: str, key: str, convention: str = MAIN_CONVENTION
                ) -> float | None:
    """``gmacs`` or ``params_m`` of an experiment from the first of the sets that has it."""
    found = (one.experiment_count(experiment, key, convention) for one in sets if one)
    return next((value for value in found if value is not None), None)


def _add_drops(rows: list[Row]) -> None:
    """Drops from 32 bits: those can be compared at any scale, absolute AP cannot."""
    (_, _, full), *rest = rows
    for _, cells, data in rest:
        for side, title in (("printed", "paper"), ("measured", "here")):
            value, base = data[f"AP_{side}"], full[f"AP_{side}"]
            same = side == "printed" or data["measured_from"] == full["measured_from"]
            gap = value - base if value is not None and base is not None and same else None
            data[f"AP_change_{side}"] = rounded(gap)
            cells["AP − 32 bits", title] = signed(gap)


def conventions_note(rows: list[dict[str, Any]]) -> str:
    """The sentence on Table 4's GMACs, with how many rows each convention gives to the printed digit."""
    counts, exact, largest = [], False, 0.0
    for convention in CONVENTIONS:
        found = [row for row in rows if row.get(f"gmacs_{convention}") is not None]
        if not found:
            return TABLE4_SENTENCE
        hits = sum(same_digits(row[f"gmacs_{convention}"], f"{row['gmacs_printed']:.2f}") for row in found)
        counts.append(f"{CONVENTION_TITLES[convention]} {hits} of {len(found)}")
        exact |= hits == len(found)
        largest = max(largest, *(abs(row[f"residual_percent_{convention}"]) for row in found))
    return (("" if exact else f"{TABLE4_SENTENCE} ")
            + f"To the printed digit: {'; '.join(counts)}; largest residual {largest:.2f} %.")


def build_tables(results: ResultSet, reference: ResultSet | None = None) -> list[Table]:
    """Tables 1 to 5 of a results folder."""
    builder = Builder(results, reference)
    return [builder.build(number) for number in TABLES]


def write_tables(results_dir: Path | str, reference_dir: Path | None = None) -> list[Table]:
    """Write ``tables/table{1..5}.{csv,md,tex}`` into a results folder and return the tables.

    Args:
        results_dir: ``results/<profile>`` or one with the same names inside.
        reference_dir: where rows that the run lacks come from; default the committed reference of the same profile.

    Raises:
        StudyError: the folder is missing, holds no results or a damaged file, or cannot be written.
    """
    results = load_results(results_dir)
    tables = build_tables(results, load_reference(results, reference_dir))
    for table in tables:
        table.write(results.root / "tables", "csv", "md", "tex")
    return tables
