"""The ablations: each experiment beside its baseline, with intervals over seeds and over resampled images, and beside
the numbers that the paper or the official README print for the same comparison; a table a group."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from yolopose.report import layout
from yolopose.report.compare import number
from yolopose.report.layout import DASH, NOT_RUN, REFERENCE_MARK, Cells, Table, attempt, rounded, signed
from yolopose.report.measured import PairedInterval, ResultSet, paired_interval
from yolopose.report.seeds import Measurement, difference
from yolopose.report.tables import RESIDUAL_NOTE, Sets, gmacs_cells, write_tables
from yolopose.study.groups import GROUPS, METRICS, keypoint_rates, title_in
from yolopose.study.paper import PAPER_DIR
from yolopose.utils.files import read_csv

BETTER, WORSE, OPEN, ONE_SEED = "better", "worse", "within noise", "one seed"
KINDS = ("seeds", "images")  # over which an interval is
JOINT_KEYS = {"error_mean": "error, % of √box area", "far_outside": "far outside, %"}
DETECTOR_NOTE = "From a person detector: the images that trained the detector come on top."
# Group: a note, most often on where its experiments are printed, and the files of results/paper/ with those numbers.
PRINTED = {
    "losses": ("paper = Table 3.", ["table3"]),
    "resolution": ("paper = Table 4. px and GMACs are those of the models that ran.", ["table4"]),
    "activation": ("paper = Tables 3 and 5.", ["table3", "table5"]),
    "depth": ("paper = the official README's ablation of the decoder; its rows differ in learning rate, too. "
              + RESIDUAL_NOTE, ["decoder_depth"]),
    "heads": (f"{DETECTOR_NOTE} box AP is COCO's AP of persons' boxes.", []), "initialisation": (DETECTOR_NOTE, [])}
SPREAD_NOTE = "± = standard deviation over seeds. "
METHOD_NOTE = (
    "Δ = the row minus the experiment that it stands against, in points; over seeds: paired by seed, Student's t; over "
    "images: paired bootstrap, 1,000 resamples, percentiles. The first is the chance of training, the second that of "
    "the test images; AP is better or worse where both exclude 0.")


@dataclass(frozen=True)
class Row:
    """One experiment of a group and the set that has it: this run's ablations or the committed reference's."""

    group: str
    experiment: str
    baseline: str | None
    results: ResultSet
    from_reference: bool = False

    @property
    def title(self) -> str:
        return title_in(self.group, self.experiment)

    @property
    def seeds(self) -> int:
        return len(self.results.runs.get(self.experiment, []))

    def measure(self, metric: str) -> Measurement | None:
        """A key of :data:`METRICS` in percent over seeds."""
        return self.results.measure(self.experiment, *METRICS[metric])

    def over_seeds(self, metric: str) -> tuple[float, float | None] | None:
        """Difference to the baseline in points and half of its 95 % interval over seeds (``None``: one seed)."""
        base = self.results.measure(self.baseline or "", *METRICS[metric])
        return difference(base, own) if base and (own := self.measure(metric)) else None

    def over_images(self, metric: str) -> PairedInterval | None:
        """The difference with its paired bootstrap interval over images."""
        (kind, _, name), known = metric.rpartition("_"), self.baseline and self.experiment in self.results.runs
        return paired_interval(self.results, self.baseline, self.experiment, name, kind or "pose") if known else None

    def intervals(self, metric: str) -> dict[str, tuple[float, float]]:
        """The 95 % intervals of the difference in points over ``seeds`` and over ``images``, where they are known."""
        (gap, half), images = self.over_seeds(metric) or (None, None), self.over_images(metric)
        found = {} if half is None else {"seeds": (gap - half, gap + half)}
        return found | ({"images": (images.low, images.high)} if images else {})

    def verdict(self) -> str:
        """*better* or *worse* in AP than the baseline where all intervals exclude 0, else *within noise*; *one seed*
        where nobody knows the spread over seeds. Empty without a baseline."""
        intervals = self.intervals("AP")
        if "seeds" not in intervals:
            return ONE_SEED if self.over_seeds("AP") else ""
        lows, highs = zip(*intervals.values(), strict=True)
        return BETTER if min(lows) > 0 else WORSE if max(highs) < 0 else OPEN

    def change(self, metric: str) -> str:
        """The difference in words: ``−3.0 points (95 % −3.4 to −2.6 over seeds, … over images)``."""
        if (seeds := self.over_seeds(metric)) is None:
            return "an unknown number of points"
        spans = ", ".join(f"{signed(low)} to {signed(high)} over {kind}"
                          for kind, (low, high) in self.intervals(metric).items())
        told = ["one seed"] * (seeds[1] is None) + [f"95 % {spans}"] * bool(spans)
        return f"{signed(seeds[0])} points ({'; '.join(told)})"

    def record(self) -> dict[str, Any]:
        """The row as plain numbers: percent and points; ``None`` where there is none."""
        found = {"group": self.group, "experiment": self.experiment, "title": self.title, "baseline": self.baseline}
        if not (runs := self.results.runs.get(self.experiment)):
            return found
        found |= {"seeds": " ".join(str(run.seed) for run in runs), "images_seen": max(run.images_seen for run in runs)}
        for metric in METRICS:
            value, intervals = self.measure(metric), self.intervals(metric)
            numbers = {"": value and value.mean, "_sd": value and value.deviation,
                       "_difference": (self.over_seeds(metric) or [None])[0]}
            for kind in KINDS:
                numbers[f"_{kind}_low"], numbers[f"_{kind}_high"] = intervals.get(kind, (None, None))
            found |= {f"{metric}{end}": rounded(number) for end, number in numbers.items()}
        return found | {"verdict": self.verdict(), "measured_from": "reference" if self.from_reference else "run"}

    def named(self) -> tuple[str, Cells]:
        """What a table calls the row: its kind and its first cell."""
        mark = REFERENCE_MARK if self.from_reference else ""
        return "ours" if self.baseline is None else "study", {("", "Experiment"): self.title + mark}


def ablation_rows(group: str, results: ResultSet | None, reference: ResultSet | None = None) -> list[Row]:
    """The rows of one of :data:`GROUPS` that were run: in this set of ablations, or else in the reference's."""
    return [Row(group, experiment, baseline, source, source is reference)
            for experiment, baseline in GROUPS[group].rows.items()
            if (source := next((one for one in (results, reference) if one and experiment in one.runs), None))]


def rates_by_keypoint(results: ResultSet, experiment: str, key: str) -> dict[str, Measurement]:
    """:func:`yolopose.study.groups.keypoint_rates` of an experiment, over the seeds that have the file."""
    folders = {run.seed: run.folder for run in results.runs.get(experiment, [])}
    return {name: Measurement(by_seed) for name, by_seed in keypoint_rates(folders, key).items()}


def build_ablations(results: ResultSet, reference: ResultSet | None = None) -> list[Table]:
    """The tables of the groups in which an experiment was measured beside its baseline, and that of keypoints; rows
    that the main set's ``ablations`` lack are the committed reference's, marked "(ref)"."""
    tables = []
    for group in GROUPS:
        made = ablation_rows(group, results.ablations, reference.ablations if reference else None)
        tables.append(attempt(f"ablation_{group}", partial(_group_table, group, made, (results, reference))))
        tables.append(attempt("ablation_joints", partial(_keypoints_table, made)) if group == "heads" else None)
    return [table for table in tables if table]


def _group_table(group: str, made: list[Row], sets: Sets) -> Table | None:
    if not any(row.baseline for row in made):
        return None
    note, files = PRINTED[group]
    printed = {row["experiment"]: row for file in files for row in read_csv(PAPER_DIR / f"{file}.csv")
               if row["experiment"] and row.get("bits", "32") == "32"}
    rows = {experiment: Row(group, experiment, baseline, made[0].results)
            for experiment, baseline in GROUPS[group].rows.items()} | {row.experiment: row for row in made}
    shown = [_cells(row, printed.get(experiment, {}), sets) for experiment, row in rows.items()
             if row in made or experiment in printed]
    notes = [*_sources(made), SPREAD_NOTE * any(row.seeds > 1 for row in made) + METHOD_NOTE]
    if any(row.verdict() == ONE_SEED for row in made):
        notes.append("One seed shows no spread of trainings, and decides nothing.")
    return Table.of(f"ablation_{group}", f"Ablation: {group}", f"{GROUPS[group].title}.", shown, [*notes, note])


def _cells(row: Row, printed: dict[str, str], sets: Sets) -> layout.Row:
    (kind, cells), data, runs = row.named(), row.record(), row.results.runs.get(row.experiment, [])
    data |= {f"{metric}_printed": number(printed.get(metric)) for metric in ("AP", "AP50")}
    if row.group == "depth":
        cells |= gmacs_cells(sets, row.experiment, printed.get("gmacs", ""), data)
    if row.group == "resolution":
        size, gmacs = runs[0].config.get("input_size") if runs else None, row.results.own_count(row.experiment)
        data |= {"input_size_here": size, "gmacs_here": gmacs} if runs else {}
        cells |= {("here", "px"): str(size or ""), ("here", "GMACs"): "" if gmacs is None else f"{gmacs:.3g}"}
    metrics = [metric for metric in METRICS if GROUPS[row.group].boxes or not metric.startswith("box")]
    for metric in metrics:
        title = metric.replace("_", " ")
        if not metric.startswith("box"):
            cells[title, "paper"] = printed.get(metric) or DASH
        cells[title, "here"] = str(row.measure(metric) or (DASH if runs else NOT_RUN))
    cells["", "Seeds"] = str(len(runs) or "")
    cells["", "Against"] = title_in(row.group, row.baseline) if row.baseline else "baseline"
    for metric in metrics:
        if metric != "box_AP50":
            title, intervals = f"Δ {metric.replace('_', ' ')}", row.intervals(metric)
            cells[title, "difference"] = signed((row.over_seeds(metric) or [None])[0])
            cells |= {(title, f"95 % over {kind}"): " to ".join(map(signed, intervals.get(kind, ()))) for kind in KINDS}
    cells["", "AP is"] = row.verdict()
    return kind, cells, data


def _sources(made: list[Row]) -> list[str]:
    notes = []
    for words in ("here = ", "(ref) = not in this run; from the committed reference: "):
        if rows := [row for row in made if row.from_reference == words.startswith("(ref)")]:
            source = rows[0].results
            seen = dict.fromkeys(filter(None, (source.images_seen(row.experiment) for row in rows)))
            commits = f"; commit {source.commits()}" if rows[0].from_reference and source.commits() else ""
            beside = "; not comparable with printed accuracies" if source.not_comparable("val") else ""
            notes.append(f"{words}{source.scale()}, {'; '.join(seen)} each{commits}{beside}.")
    return notes


def _keypoints_table(heads: list[Row]) -> Table | None:
    rows = []
    for row in heads:
        (kind, cells), record = row.named(), row.record()
        data = {key: record[key] for key in ("experiment", "title", "seeds", "images_seen", "measured_from")}
        for key, title in JOINT_KEYS.items():
            for name, value in rates_by_keypoint(row.results, row.experiment, key).items():
                cells[title, name] = str(value)
                column = f"{name.replace(' ', '_')}_{key}"
                data |= {column: rounded(value.mean), f"{column}_sd": rounded(value.deviation)}
        rows.append((kind, cells, data))
    if not any("left_eye_far_outside" in data for *_, data in rows):
        return None
    notes = ["Of labelled joints of people found with a score of at least 0.1 and a box IoU of at least 0.5.",
             "far outside = the predicted joint is outside the person's true box by more than half of its longer side.",
             "Left eye and left ear are the joints on which the released head's priors land.",
             *[SPREAD_NOTE.strip()] * any(row.seeds > 1 for row in heads)]
    return Table.of("ablation_joints", "Ablation: joints", "Errors of single joints with each head.", rows, notes)


def write_ablation_tables(results_dir: Path | str, reference_dir: Path | None = None) -> list[Table]:
    """Write ``tables/ablation_<group>.{csv,md}`` into a main results folder, as :func:`write_tables` does."""
    return write_tables(results_dir, reference_dir, build_ablations, ("csv", "md"))
