"""Tables 1 to 5 of the paper, printed and measured side by side. Rows that a run did not make are the committed
reference's, marked "(ref)"; the ablations, on another schedule, have a column of their own in Tables 3 and 4.

A table of this study's own is a function of a run's and the reference's :class:`ResultSet` that returns a
:class:`Table`, or ``None`` where there is nothing to show, and a line in :data:`OWN_TABLES`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from yolopose.report.compare import TABLES, number, printed_rows, same_digits
from yolopose.report.layout import DASH, NOT_RUN, REFERENCE_MARK, UNDEFINED, Cells, Row, Table, attempt, rounded, signed
from yolopose.report.measured import ResultSet, fingerprint_note, load_reference, load_results
from yolopose.study.config import load_experiments
from yolopose.study.groups import GROUPS, METRICS
from yolopose.study.paper import CONVENTIONS, MAIN_CONVENTION, PAPER_DIR
from yolopose.utils.files import read_csv

BOTTOM_UP, WITH_ABLATIONS = (1, 2), (3, 4)  # tables with more methods and quantities; those that make ablations fills
COUNTS, ACCURACIES = {"params_m": "Params (M)", "gmacs": "GMACs"}, ("AP", "AP50", "AP75", "APL", "AR")
CONVENTION_TITLES = dict(zip(CONVENTIONS, ("convolutions alone", "fvcore, fused + biases", "fvcore, unfused"),
                             strict=True))
# Experiments of this study that stand below the paper's rows, with their other cells.
EXTRA = {1: {"s6_faithful": {}}, 2: {"s6_faithful": {}},
         3: {"s6_oks_tuned": {"loss": "OKS, gain tuned as for L1"},
             "s6_paper_eq": {"loss": "OKS, equations as printed"}}}
CAPTIONS = {
    1: "Comparison with bottom-up methods on COCO val2017.",
    2: "Comparison with bottom-up methods on COCO test-dev2017.",
    3: "Keypoint losses, s6 at 960 px.",
    4: "Input resolution: GMACs of s6 in three counting conventions, and AP, on COCO val2017.",
    5: "Post-training quantization of s6 with ReLU at 960 px.",
}
FUSED_BIAS_NOTE = (
    "fused_bias (fvcore, fused + biases) = everything fvcore counts on the fused model (convolutions and "
    "nearest-neighbour upsampling) plus one operation per element of each biased output. Without the upsampling l6 at "
    "960 px is 145.548, which would round to 145.5; printed: 145.6.")
RESIDUAL_NOTE = "residual % = (counted − printed) / printed."
TABLE4_SENTENCE = "No single convention gives all of Table 4's GMACs to the printed digit."
NOTES = dict.fromkeys(BOTTOM_UP, (
    "† = multi-scale testing; the paper multiplies GMACs by 2 for flip testing and 5.25 for multi-scale.",
    f"Params and GMACs here: fused model at the paper's width and size, convention {MAIN_CONVENTION}.",
    FUSED_BIAS_NOTE, "RTMO: numbers of its own paper, which prints no GMACs.")) | {
    4: (f"GMACs are counted at the paper's width and sizes. {RESIDUAL_NOTE}", FUSED_BIAS_NOTE),
    5: ("Drops from 32 bits can be compared at a reduced scale; absolute AP cannot.",)}
MARKS = {"run": "", "reference": REFERENCE_MARK}  # what stands behind a number, by where it comes from
Sets = tuple[ResultSet | None, ...]  # a run and the committed reference, which supplies what the run lacks


def build_tables(results: ResultSet, reference: ResultSet | None = None) -> list[Table]:
    """The paper's tables, then those of :data:`OWN_TABLES`; one that cannot be built says why in its place."""
    builders = {f"table{table}": partial(_paper_table, table) for table in TABLES} | OWN_TABLES
    tables = (attempt(name, partial(build, results, reference)) for name, build in builders.items())
    return [table for table in tables if table]


def _paper_table(table: int, results: ResultSet, reference: ResultSet | None = None) -> Table:
    split = "test_dev" if table == 2 else "val"
    rows = [_row((results, reference), table, printed) for printed in _printed(table, split)]
    notes = [*_notes(results, reference, rows, split), *NOTES.get(table, ())]
    if table == 4:
        notes.insert(-2, conventions_note([data for *_, data in rows]))
    if table == 5:
        _add_drops(rows)
        if reason := (results.stored("quantization.json") or {}).get("reason"):
            notes.append(f"{NOT_RUN}: {reason}.")
    return Table.of(f"table{table}", f"Table {table}", CAPTIONS[table], rows, notes)


def further_experiments(results: ResultSet, reference: ResultSet | None = None) -> Table | None:
    """Experiments that were run, in the main set or in the ablations, and that no other table has; on val."""
    elsewhere = {row["experiment"] for table in TABLES for row in _printed(table, "val")}
    elsewhere |= {name for group in GROUPS.values() for name in group.rows if name not in results.runs}
    rows, known = [], load_experiments()
    for name in dict.fromkeys([*results.runs, *(results.ablations.runs if results.ablations else ())]):
        if name in elsewhere:
            continue
        about, where = known.get(name), results if name in results.runs else results.ablations
        counts = {key: where.own_count(name, key) for key in COUNTS}
        data: dict[str, Any] = {"experiment": name, "title": about and about.title, "loss": about and about.loss,
                                "input_size": where.runs[name][0].config.get("input_size"), **counts}
        cells: Cells = {("", "Experiment"): about.title if about else name, ("", "Name"): name,
                        ("", "Loss"): data["loss"] or DASH, ("", "Input"): str(data["input_size"] or DASH)}
        cells |= {("", title): DASH if counts[key] is None else f"{counts[key]:.3g}" for key, title in COUNTS.items()}
        for title, (split, metric) in METRICS.items():
            found: dict[str, Any] = {}
            for column, fill in (("here", _accuracy), ("ablations", _ablation)):
                cells[title.replace("_", " "), column] = fill((results, None), name, split, metric, found)
            data |= {key.replace(metric, title): value for key, value in found.items()}
        rows.append(("study", {key: DASH if text == NOT_RUN else text for key, text in cells.items()},
                     data | dict.fromkeys({"measured_from", "ablations_from"} - set(data))))
    if not rows:
        return None
    notes = _notes(results, None, rows, "val")[0 if any(data["measured_from"] for *_, data in rows) else 1:]
    notes.append("Input (px), Params and GMACs are those of the models that ran; box AP is COCO's of persons' boxes.")
    return Table.of("further", "Further experiments", "Those that no table of the paper has, on val.", rows, notes)


def _printed(table: int, split: str) -> list[dict[str, str]]:
    """The paper's rows, then this study's other experiments, then those of RTMO's own paper; with ``kind``, with
    ``origin``, and with ``shown`` where a row is not called by its method."""
    rows = [row | {"kind": "ours" if row["experiment"] else "other", "origin": "paper"} for row in printed_rows(table)]
    for experiment, cells in EXTRA.get(table, {}).items():
        known = load_experiments()[experiment]
        rows.append({"row": "", "method": known.title, "experiment": experiment, "split": split, "kind": "study",
                     "input_size": str(known.input_size), "note": "an experiment of this study, not in the paper",
                     "origin": "this study", "shown": f"{known.title} (this study)"} | cells)
    for row in read_csv(PAPER_DIR / "rtmo.csv") if table in BOTTOM_UP else ():
        if row["split"] == split and row["method"].startswith("RTMO"):
            more = " + more data" if row["train_data"] != "COCO" else ""
            note = f"{row['source']} (its table {row['table']}, row {row['row']}); trained on {row['train_data']}"
            rows.append(row | {"row": "", "experiment": "", "gmacs": "-", "test": "no TTA", "kind": "rtmo",
                               "origin": "RTMO paper", "note": note, "shown": f"{row['method']} (own paper{more})"})
    return rows


def _row(sets: Sets, table: int, printed: dict[str, str]) -> Row:
    experiment, split, backbone = printed["experiment"], printed["split"], printed.get("backbone", "-")
    method = printed["method"] + ("" if experiment or backbone in ("-", printed["method"]) else f" ({backbone})")
    method += " †" if printed.get("test") == "multi-scale" else ""
    cells: Cells = {("", "Method"): printed.get("shown", method)}
    cells |= {("", title): DASH if printed[key] == "-" else printed[key] for key, title in
              (("loss", "Loss"), ("bits", "Bits"), ("input_size", "Input")) if key in printed}
    data: dict[str, Any] = {"table": table, "row": printed["row"], "method": printed["method"],
                            "source": printed["origin"], "experiment": experiment, "split": split}
    data |= {key: printed[key] for key in ("backbone", "input_size", "test", "loss", "bits") if key in printed}
    gmacs: dict[str, Any] = {}
    if table == 4:
        cells |= gmacs_cells(sets, experiment, printed["gmacs"], gmacs, NOT_RUN if experiment else "")
    for key in (*COUNTS, *ACCURACIES) if table in BOTTOM_UP else ACCURACIES[:2]:
        title, wanted = COUNTS.get(key, key), (experiment, split, key)
        cells[title, "paper"] = printed.get(key, "").replace("-", DASH) or DASH
        data |= {f"{key}_printed": number(printed.get(key)), f"{key}_measured": None}
        data |= {} if key in COUNTS else {f"{key}_spread": None}
        cells[title, "here"] = (_count if key in COUNTS else _accuracy)(sets, *wanted, data) if experiment else ""
        if table in WITH_ABLATIONS:
            cells[title, "ablations"] = _ablation(sets, *wanted, data) if experiment else ""
    data |= {key: data.get(key) for key in ("seeds", "measured_from", "scale", "comparable")}
    return printed["kind"], cells, data | {"note": printed.get("note")} | gmacs


def _first(sets: Sets, measure: Callable[..., Any], *wanted: str) -> tuple[Any, str, ResultSet | None]:
    """What the first set measured that has it, where that is from, and the set; a run goes before the reference."""
    found = ((measure(one, *wanted), origin, one) for origin, one in zip(MARKS, sets, strict=True) if one)
    return next((one for one in found if one[0] is not None), (None, "", None))


def _accuracy(sets: Sets, experiment: str, split: str, metric: str, data: dict[str, Any]) -> str:
    value, origin, source = _first(sets, ResultSet.measure, experiment, split, metric)
    if value is None:
        return UNDEFINED if sets[0].undefined(experiment, split, metric) else NOT_RUN
    data |= {f"{metric}_measured": rounded(value.mean), f"{metric}_spread": rounded(value.deviation),
             "seeds": len(value.by_seed), "measured_from": origin, "scale": source.scale(),
             "comparable": "no" if source.not_comparable(split) else "yes"}
    return f"{value}{MARKS[origin]}"


def _ablation(sets: Sets, experiment: str, split: str, metric: str, data: dict[str, Any]) -> str:
    value, origin, _ = _first([one and one.ablations for one in sets], ResultSet.measure, experiment, split, metric)
    data |= {f"{metric}_ablations": rounded(value and value.mean),
             f"{metric}_ablations_spread": rounded(value and value.deviation)}
    data |= {"ablations_seeds": len(value.by_seed), "ablations_from": origin} if value else {}
    return f"{value}{MARKS[origin]}" if value else DASH


def _count(sets: Sets, experiment: str, _split: str, key: str, data: dict[str, Any]) -> str:
    data[f"{key}_measured"] = rounded(value := _first(sets, ResultSet.experiment_count, experiment, key)[0], 3)
    return f"{value:.1f}" if value is not None else "" if data[f"{key}_printed"] is None else NOT_RUN


def gmacs_cells(sets: Sets, experiment: str, printed: str, data: dict[str, Any], missing: str = NOT_RUN) -> Cells:
    """GMACs in every convention beside the printed ones, with residuals in percent; their numbers go into ``data``."""
    cells, data["gmacs_printed"] = {("GMACs", "paper"): printed or DASH}, number(printed)
    for convention, title in CONVENTION_TITLES.items():
        value = _first(sets, ResultSet.experiment_count, experiment, "gmacs", convention)[0]
        gap = None if value is None or not printed else 100 * (value / float(printed) - 1)
        data |= {f"gmacs_{convention}": rounded(value, 3), f"residual_percent_{convention}": rounded(gap)}
        cells[title, "GMACs"] = missing if value is None else f"{value:.2f}"
        cells[title, "residual %"] = missing if value is None else signed(gap, 2)
    return cells


def _add_drops(rows: list[Row]) -> None:
    """Drops from 32 bits: those can be compared at any scale, absolute AP cannot."""
    (_, _, full), *rest = rows
    for _, cells, data in rest:
        for side, title in (("printed", "paper"), ("measured", "here")):
            values = data[f"AP_{side}"], full[f"AP_{side}"]
            same = side == "printed" or data["measured_from"] == full["measured_from"]
            gap = values[0] - values[1] if None not in values and same else None
            data[f"AP_change_{side}"] = rounded(gap)
            cells["AP − 32 bits", title] = signed(gap)


def _notes(results: ResultSet, reference: ResultSet | None, rows: list[Row], split: str) -> list[str]:
    of_ablations = {data.get("ablations_from") for *_, data in rows} - {None}
    used_reference = "reference" in of_ablations | {data["measured_from"] for *_, data in rows}
    source = results if results.runs else reference if used_reference else None
    beside = "; these accuracies are not comparable with the printed ones"
    notes = [f"here = {source.scale()}{beside if source.not_comparable(split) else ''}." if source
             else "here = nothing trained yet in this folder."]
    if any(UNDEFINED in cells.values() for _, cells, _ in rows):
        notes.append(f"{UNDEFINED} = no person of this data set is that large (COCO: more than 96 × 96 px).")
    if of_ablations:
        found = (results if "run" in of_ablations else reference).ablations
        notes.append(f"ablations = {found.scale()}, {found.images_seen()} each: the set of make ablations, on its "
                     "own schedule and not that of the column here.")
    if any("±" in cell for _, cells, _ in rows for cell in cells.values()):
        notes.append("± = standard deviation over seeds.")
    if used_reference:
        commits = f"; commit {reference.commits()}" if reference.commits() else ""
        notes.append(f"(ref) = not in this run; from the committed reference ({reference.scale()}{commits}).")
        notes += filter(None, [fingerprint_note(results, reference)])
    return notes


def conventions_note(rows: Sequence[dict[str, Any]]) -> str:
    """The sentence on Table 4's GMACs, with how many rows each convention gives to the printed digit."""
    hits, residuals = {}, []
    for convention, title in CONVENTION_TITLES.items():
        if not (found := [row for row in rows if row.get(f"gmacs_{convention}") is not None]):
            return TABLE4_SENTENCE
        hits[title] = [same_digits(row[f"gmacs_{convention}"], f"{row['gmacs_printed']:.2f}") for row in found]
        residuals += [abs(row[f"residual_percent_{convention}"]) for row in found]
    counts = "; ".join(f"{title} {sum(digits)} of {len(digits)}" for title, digits in hits.items())
    return (("" if any(map(all, hits.values())) else f"{TABLE4_SENTENCE} ")
            + f"To the printed digit: {counts}; largest residual {max(residuals):.2f} %.")


# Name of the files: the function.
OWN_TABLES: dict[str, Callable[[ResultSet, ResultSet | None], Table | None]] = {
    "further": further_experiments,
}


def write_tables(results_dir: Path | str, reference_dir: Path | None = None,
                 build: Callable[..., list[Table]] = build_tables, forms: Sequence[str] = ("csv", "md", "tex")
                 ) -> list[Table]:
    """Write ``tables/<name>.{csv,md,tex}`` of every table into a results folder (or what ``build`` makes, in ``forms``)
    and return the tables. ``reference_dir`` has the rows that the run lacks; default: the same profile's reference."""
    results = load_results(results_dir)
    tables = build(results, load_reference(results, reference_dir))
    for table in tables:
        table.write(results.root / "tables", *forms)
    return tables
