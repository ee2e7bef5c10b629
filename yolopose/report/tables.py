"""Tables 1 to 5 of the paper, printed and measured side by side, from stored results.

Nothing is trained here: the input is a results folder, ``results/paper/`` and, for rows that a run did not make, the
committed reference of the same profile (marked "(ref)"). Tables 3 and 4 have the ablations in a column of their own:
their schedule is another, so that no column mixes two budgets. Accuracies are in percent, GMACs in 1e9
multiply-accumulates.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yolopose.report.compare import number, printed_rows, same_digits
from yolopose.report.layout import DASH, REFERENCE_MARK, Column, Table, to_csv, to_latex, to_markdown
from yolopose.report.measured import PAPER_DIR, ResultSet, fingerprint_note, load_reference, load_results
from yolopose.report.seeds import Measurement
from yolopose.study.config import load_experiments
from yolopose.study.paper import CONVENTIONS, MAIN_CONVENTION
from yolopose.utils.files import atomic_write, read_csv

ACCURACIES = ("AP", "AP50", "AP75", "APL", "AR")
CONVENTION_TITLES = {"conv": "convolutions alone", "fused_bias": "fvcore, fused + biases",
                     "fvcore_unfused": "fvcore, unfused"}
FUSED_BIAS_NOTE = (
    "fused_bias = everything fvcore counts on the fused model (convolutions and nearest-neighbour upsampling) plus one "
    "operation per element of each biased output. Without the upsampling l6 at 960 px is 145.548, which would round to "
    "145.5; printed: 145.6.")
TABLE4_SENTENCE = "No single convention gives all of Table 4's GMACs to the printed digit."
# Experiments of this study that stand below the paper's rows: table -> (experiment, what the loss column says).
EXTRA = {1: (("s6_faithful", ""),), 2: (("s6_faithful", ""),),
         3: (("s6_oks_tuned", "OKS, gain tuned as for L1"), ("s6_paper_eq", "OKS, equations as printed"))}
WITH_ABLATIONS = ("3", "4")  # tables whose experiments make ablations trains, on a schedule of its own
UNDEFINED = "undefined"
CAPTIONS = {
    1: "Comparison with bottom-up methods on COCO val2017.",
    2: "Comparison with bottom-up methods on COCO test-dev2017.",
    3: "Keypoint losses, s6 at 960 px.",
    4: "Input resolution: GMACs of s6 in three counting conventions, and AP, on COCO val2017.",
    5: "Post-training quantization of s6 with ReLU at 960 px.",
}


class Builder:
    """Makes the tables of one results folder; ``reference`` supplies what the run lacks."""

    def __init__(self, results: ResultSet, reference: ResultSet | None, paper_dir: Path = PAPER_DIR) -> None:
        self.results, self.reference, self.paper_dir = results, reference, paper_dir
        self.used_reference = self.has_undefined = False
        self.used_ablations: ResultSet | None = None

    def build(self, table: int) -> Table:
        """Table 1 to 5."""
        self.used_reference = self.has_undefined = False
        self.used_ablations = None
        makers = {1: self._methods, 2: self._methods, 3: self._losses, 4: self._resolutions, 5: self._quantization}
        made = makers[table](table)
        made.notes[:0] = self._notes("test_dev" if table == 2 else "val")
        return made

    def _notes(self, split: str) -> list[str]:
        notes = []
        if self.results.runs or self.used_reference:
            source = self.results if self.results.runs else self.reference
            reason = source.not_comparable(split)
            notes.append(f"here = {source.scale()}" + (
                "; these accuracies are not comparable with the printed ones." if reason else "."))
        else:
            notes.append("here = nothing trained yet in this folder.")
        if self.has_undefined:
            notes.append(f"{UNDEFINED} = no person of this data set is that large (COCO: more than 96 × 96 px).")
        if found := self.used_ablations:
            notes.append(f"ablations = {found.scale()}, {found.images_seen()} each: the set of make ablations, on its "
                         "own schedule and not that of the column here.")
        if self.used_ablations or any(len(runs) > 1 for runs in self.results.runs.values()):
            notes.append("± = standard deviation over seeds.")
        if self.used_reference:
            commits = self.reference.commits()
            notes.append(f"(ref) = not in this run; from the committed reference ({self.reference.scale()}"
                         + (f"; commit {commits}" if commits else "") + ").")
            if note := fingerprint_note(self.results, self.reference):
                notes.append(note)
        return notes

    def _accuracy(self, experiment: str, split: str, metric: str, data: dict[str, Any]) -> str:
        """Display string of a measured accuracy; its numbers go into ``data``."""
        value, source = _first_present((self.results, self.reference), experiment, split, metric)
        if value is None:
            undefined = self.results.undefined(experiment, split, metric)
            self.has_undefined |= undefined
            return UNDEFINED if undefined else "not run"
        referred = source is self.reference
        self.used_reference |= referred
        data |= {f"{metric}_measured": round(value.mean, 2), f"{metric}_spread": _rounded(value),
                 "seeds": len(value.by_seed), "measured_from": "reference" if referred else "run",
                 "scale": source.scale(), "comparable": "no" if source.not_comparable(split) else "yes"}
        return f"{value}{REFERENCE_MARK if referred else ''}"

    def _ablation(self, experiment: str, split: str, metric: str, data: dict[str, Any]) -> str:
        """The same accuracy in the set of ``make ablations``, as display string; its numbers go into ``data``."""
        sets = [found and found.ablations for found in (self.results, self.reference)]
        value, source = _first_present(sets, experiment, split, metric)
        data |= {f"{metric}_ablations": value and round(value.mean, 2),
                 f"{metric}_ablations_spread": value and _rounded(value)}
        if value is None:
            return DASH
        referred = source is sets[1]
        self.used_reference |= referred
        self.used_ablations = self.used_ablations if referred and self.used_ablations else source
        data |= {"ablations_seeds": len(value.by_seed), "ablations_from": "reference" if referred else "run"}
        return f"{value}{REFERENCE_MARK if referred else ''}"

    def _count(self, experiment: str, key: str, data: dict[str, Any]) -> str:
        for source in (self.results, self.reference):
            value = source.experiment_count(experiment, key) if source else None
            if value is not None:
                data[f"{key}_measured"] = round(value, 3)
                return f"{value:.1f}"
        return "not run" if data[f"{key}_printed"] is not None else ""

    def _row(self, printed: dict[str, str], metrics: tuple[str, ...], counts: tuple[str, ...] = ()
             ) -> tuple[dict[str, str], dict[str, Any]]:
        """Display and data of one printed row: every metric printed and, where the row is ours, measured."""
        ours = bool(printed["experiment"])
        show: dict[str, str] = {"_kind": "ours" if ours else "other"}
        data: dict[str, Any] = {"table": printed["table"], "row": printed["row"], "method": printed["method"],
                                "source": "paper", "experiment": printed["experiment"], "split": printed["split"]}
        for key in ("backbone", "input_size", "test", "loss", "bits"):
            if key in printed:
                data[key] = printed[key]
                show[key] = DASH if printed[key] == "-" else printed[key]
        for key in counts + metrics:
            data[f"{key}_printed"] = number(printed.get(key))
            data[f"{key}_measured"] = None
            if key in metrics:
                data[f"{key}_spread"] = None
            show[f"{key}_printed"] = printed.get(key, "").replace("-", DASH) or DASH
            show[f"{key}_here"] = "" if not ours else (
                self._count(printed["experiment"], key, data) if key in counts
                else self._accuracy(printed["experiment"], printed["split"], key, data))
            if key in metrics and printed["table"] in WITH_ABLATIONS:
                show[f"{key}_ablations"] = "" if not ours else self._ablation(printed["experiment"], printed["split"],
                                                                              key, data)
        data |= {key: data.get(key) for key in ("seeds", "measured_from", "scale", "comparable")}
        data["note"] = printed.get("note")
        dagger = " †" if printed.get("test") == "multi-scale" else ""
        backbone = printed.get("backbone", "-")
        known = ours or backbone in ("-", printed["method"])
        show["method"] = printed["method"] + ("" if known else f" ({backbone})") + dagger
        return show, data

    def _extra_row(self, experiment: str, split: str, metrics: tuple[str, ...], counts: tuple[str, ...], table: int,
                   loss: str) -> tuple[dict[str, str], dict[str, Any]]:
        known = load_experiments()[experiment]
        printed = {"table": str(table), "row": "", "method": known.title, "experiment": experiment, "split": split,
                   "input_size": str(known.input_size), "note": "an experiment of this study, not in the paper"}
        show, data = self._row(printed, metrics, counts)
        show |= {"_kind": "study", "method": f"{known.title} (this study)"}
        data["source"] = "this study"
        if loss:
            show["loss"] = data["loss"] = loss
        return show, data

    def _methods(self, table: int) -> Table:
        """Tables 1 and 2: every printed row, this study's other experiments, and RTMO from its own paper."""
        counts = ("params_m", "gmacs")
        pairs = [self._row(row, ACCURACIES, counts) for row in printed_rows(table, self.paper_dir)]
        split = "val" if table == 1 else "test_dev"
        pairs += [self._extra_row(name, split, ACCURACIES, counts, table, loss) for name, loss in EXTRA[table]]
        for row in read_csv(self.paper_dir / "rtmo.csv"):
            if row["split"] == split and row["method"].startswith("RTMO"):
                printed = row | {"table": str(table), "row": "", "experiment": "", "gmacs": "-", "test": "no TTA",
                                 "note": f"{row['source']} (its table {row['table']}, row {row['row']}); "
                                         f"trained on {row['train_data']}"}
                show, data = self._row(printed, ACCURACIES, counts)
                more = " + more data" if row["train_data"] != "COCO" else ""
                show |= {"_kind": "rtmo", "method": f"{row['method']} (own paper{more})"}
                data["source"] = "RTMO paper"
                pairs.append((show, data))
        columns = [Column("method", "Method", numeric=False), Column("input_size", "Input")]
        for key, title in (("params_m", "Params (M)"), ("gmacs", "GMACs"), *((m, m) for m in ACCURACIES)):
            columns += [Column(f"{key}_printed", "paper", title), Column(f"{key}_here", "here", title)]
        notes = ["† = multi-scale testing; the paper multiplies GMACs by 2 for flip testing and 5.25 for multi-scale.",
                 f"Params and GMACs here: fused model at the paper's width and size, convention {MAIN_CONVENTION}.",
                 FUSED_BIAS_NOTE,
                 "RTMO: numbers of its own paper, which prints no GMACs."]
        return Table(table, CAPTIONS[table], columns, [s for s, _ in pairs], [d for _, d in pairs], notes)

    def _losses(self, table: int) -> Table:
        pairs = [self._row(row, ("AP", "AP50")) for row in printed_rows(table, self.paper_dir)]
        pairs += [self._extra_row(name, "val", ("AP", "AP50"), (), table, loss) for name, loss in EXTRA[table]]
        columns = [Column("method", "Method", numeric=False), Column("loss", "Loss", numeric=False),
                   Column("input_size", "Input"), *_pairs("AP", "AP50")]
        return Table(table, CAPTIONS[table], columns, [s for s, _ in pairs], [d for _, d in pairs])

    def _resolutions(self, table: int) -> Table:
        pairs = []
        for printed in printed_rows(table, self.paper_dir):
            show, data = self._row(printed, ("AP", "AP50"))
            show["gmacs_printed"], data["gmacs_printed"] = printed["gmacs"], float(printed["gmacs"])
            for convention in CONVENTIONS:
                value = next((v for s in (self.results, self.reference) if s and printed["experiment"] and
                              (v := s.experiment_count(printed["experiment"], "gmacs", convention)) is not None), None)
                gap = None if value is None else 100 * (value / data["gmacs_printed"] - 1)
                data[f"gmacs_{convention}"] = None if value is None else round(value, 3)
                data[f"residual_percent_{convention}"] = None if gap is None else round(gap, 2)
                missing = "not run" if printed["experiment"] else ""
                show[f"gmacs_{convention}"] = missing if value is None else f"{value:.2f}"
                show[f"residual_{convention}"] = missing if gap is None else f"{gap:+.2f}".replace("-", "−")
            pairs.append((show, data))
        columns = [Column("method", "Method", numeric=False), Column("input_size", "Input"),
                   Column("gmacs_printed", "paper", "GMACs")]
        for convention in CONVENTIONS:
            columns += [Column(f"gmacs_{convention}", "GMACs", CONVENTION_TITLES[convention]),
                        Column(f"residual_{convention}", "residual %", CONVENTION_TITLES[convention])]
        columns += _pairs("AP", "AP50")
        return Table(table, CAPTIONS[table], columns, [s for s, _ in pairs], [d for _, d in pairs],
                     [conventions_note([d for _, d in pairs]), "GMACs are counted at the paper's width and sizes.",
                      FUSED_BIAS_NOTE])

    def _quantization(self, table: int) -> Table:
        """Table 5 with the drops from 32 bits: those can be compared at any scale, absolute AP cannot."""
        pairs = [self._row(row, ("AP", "AP50")) for row in printed_rows(table, self.paper_dir)]
        (_, full), *rest = pairs
        for show, data in rest:
            for side in ("printed", "measured"):
                value, base = data[f"AP_{side}"], full[f"AP_{side}"]
                same = side == "printed" or data["measured_from"] == full["measured_from"]
                gap = value - base if value is not None and base is not None and same else None
                data[f"AP_change_{side}"] = None if gap is None else round(gap, 2)
                show[f"change_{side}"] = "" if gap is None else f"{gap:+.1f}".replace("-", "−")
        columns = [Column("method", "Method", numeric=False), Column("bits", "Bits", numeric=False),
                   Column("input_size", "Input"), *_pairs("AP", "AP50"),
                   Column("change_printed", "paper", "AP − 32 bits"), Column("change_measured", "here", "AP − 32 bits")]
        notes = ["Drops from 32 bits can be compared at a reduced scale; absolute AP cannot."]
        return Table(table, CAPTIONS[table], columns, [s for s, _ in pairs], [d for _, d in pairs], notes)


def _first_present(sets: Sequence[ResultSet | None], experiment: str, split: str, metric: str
                  ) -> tuple[Measurement | None, ResultSet | None]:
    """The first set that has the quantity, with the quantity; a run's own result goes before the reference's."""
    for candidate in sets:
        if candidate is not None and (value := candidate.measure(experiment, split, metric)) is not None:
            return value, candidate
    return None, None


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


def _pairs(*metrics: str) -> list[Column]:
    sides = (("printed", "paper"), ("here", "here"), ("ablations", "ablations"))
    return [Column(f"{metric}_{side}", title, metric) for metric in metrics for side, title in sides]


def _rounded(value: Measurement) -> float | None:
    return None if value.spread is None else round(value.spread, 2)


def build_tables(results: ResultSet, reference: ResultSet | None = None, paper_dir: Path = PAPER_DIR) -> list[Table]:
    """Tables 1 to 5 of a results folder."""
    builder = Builder(results, reference, paper_dir)
    return [builder.build(number) for number in (1, 2, 3, 4, 5)]


def write_tables(results_dir: Path | str, reference_dir: Path | None = None, paper_dir: Path = PAPER_DIR) -> list[Path]:
    """Write ``tables/table{1..5}.{csv,md,tex}`` into a results folder and return their paths.

    Args:
        results_dir: ``results/<profile>`` or one with the same names inside.
        reference_dir: where rows that the run lacks come from; default the committed reference of the same profile.

    Raises:
        StudyError: the folder is missing, holds no results or a damaged file, or cannot be written.
    """
    results = load_results(results_dir)
    written = []
    for table in build_tables(results, load_reference(results, reference_dir), paper_dir):
        for suffix, render in (("csv", to_csv), ("md", to_markdown), ("tex", to_latex)):
            path = results.root / "tables" / f"{table.stem}.{suffix}"
            atomic_write(path, render(table))
            written.append(path)
    return written
