"""The estimate as text: an aligned table for the terminal, Markdown for the README, and what the totals rest on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from yolopose.study.config import Study

HEADINGS = ("experiment", "px", "seeds", "GMACs", "images/s", "train h", "score h", "memory GiB", "disk GiB", "rate")


@dataclass(frozen=True)
class Row:
    """One experiment with all its seeds. Rates are images a second, hours those of all seeds, memory and disk GiB."""

    part: str  # study or ablations
    experiment: str
    input_size: int
    batch: int
    gmacs: float
    seeds: int
    train_images: int  # of one run, over all epochs
    scored_images: int  # of one run: its validation while it trains, then val and test-dev
    train_rate: float
    score_rate: float
    source: str  # measured, measured while busy, given, or as <experiment>
    precision: str  # half precision or float32, of training
    memory_gib: float  # of training at its batch, of which image_gib for each image
    image_gib: float
    disk_gib: float  # weights and predictions of all seeds, at most
    checkpoint_gib: float  # while it trains

    @property
    def train_hours(self) -> float:
        return self.seeds * self.train_images / self.train_rate / 3600

    @property
    def score_hours(self) -> float:
        return self.seeds * self.scored_images / self.score_rate / 3600


def cells(row: Row) -> list[str]:
    """One experiment's line."""
    return [row.experiment, str(row.input_size), str(row.seeds), f"{row.gmacs:.3g}", digits(row.train_rate),
            digits(row.train_hours), digits(row.score_hours), digits(row.memory_gib), digits(row.disk_gib), row.source]


def total(title: str, rows: Sequence[Row]) -> list[str]:
    """The line of sums; memory is the largest, for runs go one after the other."""
    return [title, "", str(sum(r.seeds for r in rows)), "", "", digits(sum(r.train_hours for r in rows)),
            digits(sum(r.score_hours for r in rows)), digits(max(r.memory_gib for r in rows)),
            digits(sum(r.disk_gib for r in rows)), ""]


def digits(value: float) -> str:
    """Two digits or the whole number, whichever is more, as an estimate has no more; nothing below a hundredth.

    >>> digits(0.0012), digits(0.123), digits(3.14), digits(31.4), digits(4716.2)
    ('< 0.01', '0.12', '3.1', '31', '4,716')
    """
    if value < 0.01:
        return "< 0.01" if value else "0"
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def duration(hours: float) -> str:
    """``40 min``, ``30 h`` or ``12 days``."""
    if hours < 2:
        return f"{max(60 * hours, 1):.0f} min"
    return f"{hours:.0f} h" if hours < 72 else f"{hours / 24:,.0f} days"


def report(study: Study, rows: Sequence[Row], images: Mapping[str, int], source: str, data_gib: float,
           device: str, machine: Mapping[str, Any], markdown: bool = False) -> str:
    """The whole text.

    Args:
        study: the main study.
        rows: of :func:`yolopose.analysis.cost.estimate`.
        images: numbers of images, and ``source`` says whose they are.
        data_gib: disk of the data set.
        device: what was measured, ``cpu`` or ``cuda``; ``given`` where rates were given instead.
        machine: of :func:`yolopose.utils.provenance.hardware`, and ``gpu_gib``, the memory of its GPU.
        markdown: Markdown in place of aligned text.
    """
    lines = []
    for part in _parts(rows):
        own = [row for row in rows if row.part == part]
        lines += [*(_merged(own) if markdown else map(cells, own)), total(f"total, {part}", own)]
    if len(_parts(rows)) > 1:
        lines.append(total("total", rows))
    table = _markdown(lines) if markdown else _aligned(lines)
    where = {"given": "with the given rates", "cuda": f"on {machine['accelerator']}"}.get(
        device, f"on {machine['cpu']}, cores: {machine['cores']}")
    head = f"PROFILE={study.profile.name} {where}: {study.profile.title}"
    mark = "- " if markdown else ""
    return "\n".join([head, "", table, "", *(
        mark + note for note in notes(study, rows, images, source, data_gib, device, machine))])


def notes(study: Study, rows: Sequence[Row], images: Mapping[str, int], source: str, data_gib: float, device: str,
          machine: Mapping[str, Any]) -> list[str]:
    """What the totals come to, and what they rest on."""
    hours = {part: sum(r.train_hours + r.score_hours for r in rows if r.part == part) for part in _parts(rows)}
    longest = max((r.train_hours + r.score_hours) / r.seeds for r in rows)
    first = next(r for r in rows if not r.source.startswith("as "))
    largest = max(rows, key=lambda r: r.memory_gib)
    results, checkpoint = sum(r.disk_gib for r in rows), max(r.checkpoint_gib for r in rows)
    out = ["time: " + ", ".join(f"{part} {duration(h)}" for part, h in hours.items())
           + f", one run after the other; {sum(r.seeds for r in rows)} runs can be spread over machines or GPUs, the "
           f"longest takes {duration(longest)}",
           f"images ({source}): {images['train']:,} training images with labelled persons, {images['val']:,} of val, "
           f"{images['test_dev']:,} of test-dev; {first.experiment} trains on {first.train_images:,} in a run",
           f"images/s: of the training step with synthetic images; scoring {first.experiment} runs at "
           f"{digits(first.score_rate)}; \"as {first.experiment}\" follows from {first.experiment} by GMACs; reading "
           f"and augmenting images is not in it (workers a run: {study.profile.train.workers}; make bench measures "
           "their pace)",
           f"memory: weights, gradients, optimizer, average and what a batch of {largest.batch} keeps for the backward "
           f"pass in {largest.precision}, {'measured' if device == 'cuda' else 'computed, at least'}; "
           f"{largest.experiment} keeps {digits(largest.image_gib)} GiB an image: a smaller train.batch_size needs "
           "less, and gradients are summed to the same nominal batch",
           f"disk: data set {digits(data_gib)} GiB, results at most {digits(results)} GiB, checkpoint of a run under "
           f"way {digits(checkpoint)} GiB; {digits(data_gib + results + checkpoint)} GiB in all"]
    have = machine.get("gpu_gib") if device == "cuda" else machine["memory_gib"] if device == "cpu" else None
    if have and largest.memory_gib > have:
        fits = max(int(largest.batch - (largest.memory_gib - have) / largest.image_gib), 0)
        out.append(f"this machine has {have:.0f} GiB: {largest.experiment} fits with train.batch_size {fits} at most"
                   if fits else f"this machine has {have:.0f} GiB: {largest.experiment} does not fit at any batch size")
    if any("busy" in r.source for r in rows):
        out.append("the machine was busy when it was measured: its rates are too low; delete results/estimate and "
                   "repeat when it is idle")
    if device == "cpu" and hours:
        out.append("these are the times of a CPU, no GPU was measured; for a GPU whose rate is known: make estimate "
                   f"PROFILE={study.profile.name} RATE=400")
    out.append(f"formula: hours = images / rate / 3600, with {first.train_images:,} images of training and "
               f"{first.scored_images:,} of scoring in a run of {first.experiment}; another model's rate is "
               f"{first.experiment}'s × {first.gmacs:.3g} / its GMACs"
               + ("; scoring is taken to run at 3 × the given rate, as a step is a forward pass and a backward pass of "
                  "twice its operations" if device == "given" else ""))
    return out


def _merged(rows: Sequence[Row]) -> list[list[str]]:
    """Lines of the experiments, those that differ in nothing but the name as one with all their names."""
    names: dict[tuple[str, ...], list[str]] = {}
    for name, *rest in map(cells, rows):
        names.setdefault(tuple(rest), []).append(name)
    return [[", ".join(own) + (" (each)" if own[1:] else ""), *rest] for rest, own in names.items()]


def _parts(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.part for row in rows))


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    """Columns of text: names to the left, numbers to the right, a blank line before each sum."""
    table = [HEADINGS, *lines]
    widths = [max(len(line[i]) for line in table) for i in range(len(HEADINGS))]
    left = (0, len(HEADINGS) - 1)
    return "\n".join("  ".join(c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in
                               enumerate(zip(line, widths, strict=True))).rstrip() for line in table)


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    left = (0, len(HEADINGS) - 1)
    rule = ["---" if i in left else "---:" for i in range(len(HEADINGS))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (HEADINGS, rule, *lines))
