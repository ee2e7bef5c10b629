"""The ablations as tables (``tables/ablation_*.csv`` and ``.md``), from stored results alone.

One table a group: what was measured over seeds, the difference to the group's baseline with its 95 % intervals over
seeds and over resampled images, and the numbers that the paper or the official README print for the same comparison.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from yolopose.report import layout
from yolopose.report.ablations import ONE_SEED, Row, ablation_rows, joint_rates
from yolopose.report.compare import number, printed_rows
from yolopose.report.layout import DASH, NOT_RUN, REFERENCE_MARK, Cells, Table, rounded, signed
from yolopose.report.measured import ResultSet, load_reference, load_results
from yolopose.report.tables import gmacs_cells
from yolopose.study.groups import GROUPS, title_in
from yolopose.study.paper import PAPER_DIR
from yolopose.utils.files import read_csv

JOINT_KEYS = {"error_mean": "error, % of √box area", "far_outside": "far outside, %"}
WHERE_PRINTED = {
    "losses": "paper = Table 3.", "resolution": "paper = Table 4.", "activation": "paper = Tables 3 and 5.",
    "depth": "paper = the official README's ablation of the decoder; its rows differ in learning rate, too.",
}


def printed_accuracy(group: str) -> dict[str, dict[str, str]]:
    """AP and AP50 (and for depth GMACs) as printed for the experiments of a group: experiment -> cells."""
    if group == "depth":
        rows = read_csv(PAPER_DIR / "decoder_depth.csv")
    else:
        tables = {"losses": [3], "resolution": [4], "activation": [3, 5]}.get(group, [])
        rows = [row for table in tables for row in printed_rows(table) if row.get("bits", "32") == "32"]
    return {row["experiment"]: row for row in rows if row["experiment"]}


def build_ablation(group: str, results: ResultSet, reference: ResultSet | None = None) -> Table | None:
    """The table of one group; ``None`` where no experiment was measured beside its baseline.

    Args:
        group: a name of ``GROUPS``.
        results: the main set, whose ``ablations`` are read.
        reference: the committed main set; its ablations supply rows that this run did not make, marked "(ref)".
    """
    made = {row.experiment: row for row in _rows(group, results, reference)}
    if not any(row.baseline for row in made.values()):
        return None
    printed = printed_accuracy(group)
    rows = []
    for experiment, baseline in GROUPS[group].rows.items():
        if experiment in made or experiment in printed:
            row = made.get(experiment) or Row(group, experiment, baseline, None)
            rows.append(_cells(row, printed.get(experiment, {}), (results, reference)))
    return Table.of(f"ablation_{group}", f"Ablation: {group}", f"{GROUPS[group].title}.", rows,
                    _notes(group, list(made.values())))


def _rows(group: str, results: ResultSet, reference: ResultSet | None) -> list[Row]:
    return ablation_rows(group, results.ablations, reference.ablations if reference else None)


def _named(row: Row) -> tuple[str, Cells]:
    """The kind of a row and its first cell."""
    mark = REFERENCE_MARK if row.from_reference else ""
    return "ours" if row.baseline is None else "study", {("", "Experiment"): row.title + mark}


def _cells(row: Row, printed: dict[str, str], sets: tuple[ResultSet | None, ...]) -> layout.Row:
    """What a row shows, and its numbers."""
    (kind, cells), data, group = _named(row), row.record(), GROUPS[row.group]
    data |= {f"{metric}_printed": number(printed.get(metric)) for metric in ("AP", "AP50")}
    if row.group == "depth":
        cells |= gmacs_cells(sets, row.experiment, printed.get("gmacs", ""), data)
    if row.group == "resolution":
        cells |= _size_cells(row, data)
    metrics = {"AP": "AP", "AP50": "AP50"} | ({"box_AP": "box AP", "box_AP50": "box AP50"} if group.boxes else {})
    for metric, title in metrics.items():
        if metric in ("AP", "AP50"):
            cells[title, "paper"] = printed.get(metric) or DASH
        cells[title, "here"] = NOT_RUN if row.results is None else str(row.measure(metric) or DASH)
    cells["", "Seeds"] = str(len(row.results.runs[row.experiment])) if row.results else ""
    cells["", "Against"] = title_in(row.group, row.baseline) if row.baseline else "baseline"
    for metric, title in metrics.items():
        if metric != "box_AP50":
            (gap, half), images = row.over_seeds(metric) or (None, None), row.over_images(metric)
            cells[f"Δ {title}", "difference"] = signed(gap)
            cells[f"Δ {title}", "95 % over seeds"] = (
                "" if half is None else f"{signed(gap - half)} to {signed(gap + half)}")
            cells[f"Δ {title}", "95 % over images"] = str(images or "").replace("-", "−")
    cells["", "AP is"] = row.verdict()
    return kind, cells, data


def _size_cells(row: Row, data: dict[str, Any]) -> Cells:
    """Input size in px and GMACs of the model that ran."""
    if row.results is None:
        return {("here", "px"): "", ("here", "GMACs"): ""}
    size, gmacs = row.results.runs[row.experiment][0].config.get("input_size"), row.results.own_gmacs(row.experiment)
    data |= {"input_size_here": size, "gmacs_here": gmacs}
    return {("here", "px"): str(size or ""), ("here", "GMACs"): "" if gmacs is None else f"{gmacs:.3g}"}


def build_joints(results: ResultSet, reference: ResultSet | None = None) -> Table | None:
    """Errors of left eye, left ear, their partners and the other joints with each head, and how often they lie far
    outside the box; ``None`` where no run has them."""
    rows = []
    for row in _rows("heads", results, reference):
        kind, cells = _named(row)
        data = {key: row.record()[key] for key in ("experiment", "title", "seeds", "images_seen", "measured_from")}
        for key, title in JOINT_KEYS.items():
            for name, value in joint_rates(row.results, row.experiment, key).items():
                cells[title, name] = str(value)
                column = f"{name.replace(' ', '_')}_{key}"
                data |= {column: rounded(value.mean), f"{column}_sd": rounded(value.deviation)}
        rows.append((kind, cells, data))
    if not any("left_eye_far_outside" in data for *_, data in rows):
        return None
    notes = ["Of labelled joints of people found with a score of at least 0.1 and a box IoU of at least 0.5.",
             "far outside = the predicted joint is outside the person's true box by more than half of its longer side.",
             "Left eye and left ear are the joints on which the released head's priors land.",
             "± = standard deviation over seeds."]
    return Table.of("ablation_joints", "Ablation: joints", "Errors of single joints with each head.", rows, notes)


def _notes(group: str, rows: list[Row]) -> list[str]:
    notes = []
    sources = {False: "here = ", True: "(ref) = not in this run; from the committed reference: "}
    for from_reference, words in sources.items():
        of_source = [row for row in rows if row.from_reference == from_reference]
        if of_source:
            source = of_source[0].results
            seen = dict.fromkeys(filter(None, (source.images_seen(row.experiment) for row in of_source)))
            notes.append(f"{words}{source.scale()}, {'; '.join(seen)} each"
                         + (f"; commit {source.commits()}" if from_reference and source.commits() else "")
                         + ("; not comparable with printed accuracies." if source.not_comparable("val") else "."))
    notes.append("± = standard deviation over seeds. Δ = the row minus the experiment that it stands against, in "
                 "points; over seeds: paired by seed, Student's t; over images: paired bootstrap, 1,000 resamples, "
                 "percentiles. The first is the chance of training, the second that of the test images; AP is better "
                 "or worse where both exclude 0.")
    if any(row.verdict() == ONE_SEED for row in rows):
        notes.append("One seed shows no spread of trainings, and decides nothing.")
    if group in WHERE_PRINTED:
        notes.append(WHERE_PRINTED[group])
    if group in ("heads", "initialisation"):
        notes.append("From a person detector: the images that trained the detector come on top.")
    return notes


def build_ablations(results: ResultSet, reference: ResultSet | None = None) -> list[Table]:
    """The tables of all groups that have something to compare, measured here or in the reference."""
    tables = []
    for group in GROUPS:
        tables.append(build_ablation(group, results, reference))
        if group == "heads":
            tables.append(build_joints(results, reference))
    return [table for table in tables if table]


def write_ablation_tables(results_dir: Path | str, reference_dir: Path | None = None) -> list[Table]:
    """Write ``tables/ablation_<group>.{csv,md}`` into a main results folder and return the tables.

    Raises:
        StudyError: the folder is missing, holds no results or a damaged file, or cannot be written.
    """
    results = load_results(results_dir)
    tables = build_ablations(results, load_reference(results, reference_dir))
    for table in tables:
        table.write(results.root / "tables", "csv", "md")
    return tables
