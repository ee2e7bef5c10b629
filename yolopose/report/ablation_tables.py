"""The ablations as tables (``tables/ablation_*.csv`` and ``.md``), from stored results alone.

One table a group: what was measured over seeds, the difference to the group's baseline with its 95 % intervals over
seeds and over resampled images, and the numbers that the paper or the official README print for the same comparison.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from yolopose.report.ablations import ONE_SEED, Row, ablation_rows, joint_rates
from yolopose.report.compare import number, printed_rows
from yolopose.report.layout import DASH, REFERENCE_MARK, Column, Table, to_csv, to_markdown
from yolopose.report.measured import PAPER_DIR, ResultSet, load_reference, load_results
from yolopose.report.tables import CONVENTION_TITLES
from yolopose.study.groups import GROUPS, JOINTS, title_in
from yolopose.study.paper import CONVENTIONS
from yolopose.utils.files import atomic_write, read_csv

SHOWN = (("AP", "AP"), ("AP50", "AP50"), ("box_AP", "box AP"), ("box_AP50", "box AP50"))
JOINT_KEYS = (("error_mean", "error, % of √box area"), ("far_outside", "far outside, %"))
WHERE_PRINTED = {
    "losses": "paper = Table 3.", "resolution": "paper = Table 4.", "activation": "paper = Tables 3 and 5.",
    "depth": "paper = the official README's ablation of the decoder; its rows differ in learning rate, too.",
}


def printed_accuracy(group: str, paper_dir: Path = PAPER_DIR) -> dict[str, dict[str, str]]:
    """AP and AP50 (and for depth GMACs) as printed for the experiments of a group: experiment -> cells."""
    if group == "depth":
        rows = read_csv(paper_dir / "decoder_depth.csv")
    elif group == "activation":
        rows = [row for row in printed_rows(3, paper_dir) if row["experiment"] == "s6"]
        rows += [row for row in printed_rows(5, paper_dir) if row["bits"] == "32"]
    elif group in ("losses", "resolution"):
        rows = printed_rows(3 if group == "losses" else 4, paper_dir)
    else:
        rows = []
    return {row["experiment"]: row for row in rows if row["experiment"]}


def interval_text(gap: float | None, half: float | None) -> str:
    """``−1.2 to +0.4`` for a difference and half of its interval; empty where there is none."""
    return "" if gap is None or half is None else _signed(gap - half) + " to " + _signed(gap + half)


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")


def build_ablation(group: str, results: ResultSet, reference: ResultSet | None = None, paper_dir: Path = PAPER_DIR
                   ) -> Table:
    """The table of one group.

    Args:
        group: a name of ``GROUPS``.
        results: the main set, whose ``ablations`` are read.
        reference: the committed main set; its ablations supply rows that this run did not make, marked "(ref)".
        paper_dir: folder of the printed numbers.
    """
    other = reference.ablations if reference else None
    made = {row.experiment: row for row in ablation_rows(group, results.ablations, other)}
    printed = printed_accuracy(group, paper_dir)
    shown, data = [], []
    for experiment, baseline in GROUPS[group].rows.items():
        if experiment not in made and experiment not in printed:
            continue
        row = made.get(experiment) or Row(group, experiment, baseline, None)
        show, record = _measured_cells(row), row.record() if row.results else _empty(row)
        for metric in ("AP", "AP50"):
            text = printed.get(experiment, {}).get(metric, "")
            show[f"{metric}_printed"], record[f"{metric}_printed"] = text or DASH, number(text)
        if group == "resolution" and row.results:
            _add_size(row, show, record)
        if group == "depth":
            _add_counts(experiment, printed, (results, reference), show, record)
        shown.append(show)
        data.append(record)
    return Table(0, f"{GROUPS[group].title}.", _columns(group), shown, data, _notes(group, list(made.values())),
                 name=group)


def build_joints(results: ResultSet, reference: ResultSet | None = None) -> Table:
    """Errors of left eye, left ear, their partners and the other joints with each head, and how often they lie far
    outside the box."""
    rows = ablation_rows("heads", results.ablations, reference.ablations if reference else None)
    shown, data = [], []
    for row in rows:
        show = {"_kind": "ours" if row.baseline is None else "study",
                "method": row.title + (REFERENCE_MARK if row.from_reference else "")}
        record = {key: row.record()[key] for key in ("experiment", "title", "seeds", "images_seen", "measured_from")}
        for key, _ in JOINT_KEYS:
            for name, value in joint_rates(row.results, row.experiment, key).items():
                column = f"{name.replace(' ', '_')}_{key}"
                show[column] = str(value)
                record |= {column: round(value.mean, 2),
                           f"{column}_sd": None if value.spread is None else round(value.spread, 2)}
        shown.append(show)
        data.append(record)
    columns = [Column("method", "Experiment", numeric=False)] + [
        Column(f"{name.replace(' ', '_')}_{key}", name, title) for key, title in JOINT_KEYS for name in JOINTS]
    notes = ["Of labelled joints of people found with a score of at least 0.1 and a box IoU of at least 0.5.",
             "far outside = the predicted joint is outside the person's true box by more than half of its longer side.",
             "Left eye and left ear are the joints on which the released head's priors land.",
             "± = standard deviation over seeds."]
    return Table(0, "Errors of single joints with each head.", columns, shown, data, notes, name="joints")


def _empty(row: Row) -> dict[str, Any]:
    return {"group": row.group, "experiment": row.experiment, "title": row.title, "baseline": row.baseline}


def _measured_cells(row: Row) -> dict[str, str]:
    """Display strings of what was measured."""
    mark = REFERENCE_MARK if row.from_reference else ""
    show = {"_kind": "ours" if row.baseline is None else "study", "method": row.title + mark,
            "baseline": title_in(row.group, row.baseline) if row.baseline else "baseline",
            "seeds": str(len(row.results.runs[row.experiment])) if row.results else ""}
    for metric, _ in SHOWN:
        value, seeds, images = row.measure(metric), row.over_seeds(metric), row.over_images(metric)
        show[metric] = "not run" if row.results is None else str(value) if value else DASH
        show[f"{metric}_gap"] = _signed(seeds[0]) if seeds else ""
        show[f"{metric}_seeds"] = interval_text(*seeds) if seeds else ""
        show[f"{metric}_images"] = str(images).replace("-", "−") if images else ""
    show["verdict"] = row.verdict()
    return show


def _add_size(row: Row, show: dict[str, str], record: dict[str, Any]) -> None:
    """Input size in px and GMACs of the model that ran."""
    size, gmacs = row.results.runs[row.experiment][0].config.get("input_size"), row.results.own_gmacs(row.experiment)
    show |= {"size_here": str(size or ""), "gmacs_here": "" if gmacs is None else f"{gmacs:.3g}"}
    record |= {"input_size_here": size, "gmacs_here": gmacs}


def _add_counts(experiment: str, printed: dict[str, dict[str, str]], sets: tuple[ResultSet | None, ...],
                show: dict[str, str], record: dict[str, Any]) -> None:
    """GMACs at 960 px in every convention beside the printed ones, with residuals in percent."""
    text = printed.get(experiment, {}).get("gmacs", "")
    show["gmacs_printed"], record["gmacs_printed"] = text or DASH, number(text)
    for convention in CONVENTIONS:
        value = next((v for s in sets if s and (v := s.experiment_count(experiment, "gmacs", convention)) is not None),
                     None)
        gap = None if value is None or not text else 100 * (value / float(text) - 1)
        show[f"gmacs_{convention}"] = "not run" if value is None else f"{value:.2f}"
        show[f"residual_{convention}"] = "" if gap is None else f"{gap:+.2f}".replace("-", "−")
        record |= {f"gmacs_{convention}": None if value is None else round(value, 3),
                   f"residual_percent_{convention}": None if gap is None else round(gap, 2)}


def _columns(group: str) -> list[Column]:
    columns = [Column("method", "Experiment", numeric=False)]
    if group == "depth":
        columns.append(Column("gmacs_printed", "paper", "GMACs"))
        for convention in CONVENTIONS:
            columns += [Column(f"gmacs_{convention}", "GMACs", CONVENTION_TITLES[convention]),
                        Column(f"residual_{convention}", "residual %", CONVENTION_TITLES[convention])]
    if group == "resolution":
        columns += [Column("size_here", "px", "here"), Column("gmacs_here", "GMACs", "here")]
    columns += [Column("AP_printed", "paper", "AP"), Column("AP", "here", "AP"),
                Column("AP50_printed", "paper", "AP50"), Column("AP50", "here", "AP50")]
    if GROUPS[group].boxes:
        columns += [Column("box_AP", "here", "box AP"), Column("box_AP50", "here", "box AP50")]
    columns += [Column("seeds", "Seeds"), Column("baseline", "Against", numeric=False)]
    for metric, title in SHOWN:
        if metric in ("AP", "AP50") or (metric == "box_AP" and GROUPS[group].boxes):
            columns += [Column(f"{metric}_gap", "difference", f"Δ {title}"),
                        Column(f"{metric}_seeds", "95 % over seeds", f"Δ {title}"),
                        Column(f"{metric}_images", "95 % over images", f"Δ {title}")]
    columns.append(Column("verdict", "AP is", numeric=False))
    return columns


def _notes(group: str, rows: list[Row]) -> list[str]:
    own = next((row.results for row in rows if not row.from_reference), None)
    other = next((row.results for row in rows if row.from_reference), None)
    if not rows:
        return ["Nothing trained yet: make ablations trains these experiments."]
    notes = []
    for source, words in ((own, "here = "), (other, "(ref) = not in this run; from the committed reference: ")):
        if source:
            notes.append(f"{words}{source.scale()}, {_budget(rows, source)}"
                         + (f"; commit {source.commits()}" if source is other and source.commits() else "")
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


def _budget(rows: list[Row], source: ResultSet) -> str:
    seen = [source.images_seen(row.experiment) for row in rows if row.results is source]
    return "; ".join(dict.fromkeys(text for text in seen if text)) + " each"


def build_ablations(results: ResultSet, reference: ResultSet | None = None, paper_dir: Path = PAPER_DIR) -> list[Table]:
    """The tables of all groups that have something to compare, measured here or in the reference."""
    tables = [build_ablation(group, results, reference, paper_dir) for group in GROUPS]
    joints = build_joints(results, reference)
    if any("left_eye_far_outside" in row for row in joints.data):
        tables.insert(list(GROUPS).index("heads") + 1, joints)
    return [table for table in tables if table is joints
            or any(row.get("measured_from") and row["baseline"] for row in table.data)]


def write_ablation_tables(results_dir: Path | str, reference_dir: Path | None = None, paper_dir: Path = PAPER_DIR
                          ) -> list[Path]:
    """Write ``tables/ablation_<group>.{csv,md}`` into a main results folder and return their paths.

    Raises:
        StudyError: the folder is missing, holds no results or a damaged file, or cannot be written.
    """
    results = load_results(results_dir)
    written = []
    for table in build_ablations(results, load_reference(results, reference_dir), paper_dir):
        for suffix, render in (("csv", to_csv), ("md", to_markdown)):
            path = results.root / "tables" / f"{table.stem}.{suffix}"
            atomic_write(path, render(table))
            written.append(path)
    return written
