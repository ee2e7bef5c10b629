"""A finished table: its values, what a reader sees of them, and its forms: CSV, Markdown, LaTeX (booktabs) and HTML."""

import html
import itertools
import re
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from pandas import DataFrame, MultiIndex
from pandas.io.formats.style import Styler

from yolopose.utils.errors import StudyError
from yolopose.utils.files import atomic_write

DASH, NOT_RUN, UNDEFINED = "–", "not run", "undefined"
REFERENCE_MARK = " (ref)"  # behind a value of the committed reference
# Columns of words, which stand left; the others hold numbers.
WORDS = {"Method", "Name", "Backbone", "Loss", "Bits", "Experiment", "Against", "AP is", "Test", "Expected is",
         "Verdict", "Accuracies that differ", "Note"}
LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "×": r"$\times$", "−": r"$-$",
    "†": r"$^{\dagger}$", "–": "--", "≤": r"$\leq$", "≥": r"$\geq$", "→": r"$\to$",
    "[": "{[}", "]": "{]}",  # behind a row's end they would be its option
    "₀": "$_0$", "<": r"$<$", ">": r"$>$", "σ": r"$\sigma$", "²": "$^2$", "’": "'", "·": r"$\cdot$"})

Cells = dict[tuple[str, str], str]  # what a reader sees of a row, by (heading over neighbouring columns, title)
Row = tuple[str, Cells, dict[str, Any]]  # kind, cells, values by column of the CSV


@dataclass
class Table:
    """``shown`` holds text under columns ``(heading over neighbouring columns, title)``; its index has the kind of each
    row, which decides its emphasis: ``ours``, ``other``, ``study`` (not in the paper) or ``rtmo``. ``data`` has a
    column for each printed and each measured quantity. ``name`` is that of its files."""

    name: str
    heading: str
    caption: str
    shown: DataFrame
    data: DataFrame
    notes: list[str]

    @classmethod
    def of(cls, name: str, heading: str, caption: str, rows: Iterable[Row], notes: list[str]) -> Self:
        """A table of these rows; a column without a value in any of them is not shown."""
        kinds, cells, values = zip(*rows, strict=True)
        shown = DataFrame(cells, index=kinds, dtype=object).fillna("").map(lambda text: " ".join(str(text).split()))
        shown = shown.loc[:, ~shown.isin(["", DASH]).all()]
        shown.columns = MultiIndex.from_tuples(shown.columns)
        return cls(name, heading, caption, shown, DataFrame(values, dtype=object), notes)

    def to_markdown(self) -> str:
        """GitHub Markdown; a group's name stands before the title of each of its columns."""
        shown = self.shown.set_axis([" ".join(filter(None, column)) for column in self.shown], axis=1)
        ours = shown.index == "ours"
        shown.iloc[ours, 0] = "**" + shown.iloc[ours, 0] + "**"
        words = shown.columns[self.shown.columns.get_level_values(-1).isin(WORDS)]
        notes = "".join(f"- {note}\n" for note in self.notes)
        return f"**{self.heading}.** {self.caption}\n\n{markdown(shown, words)}\n\n{notes}"

    def to_latex(self) -> str:
        """A ``table*`` environment; the document needs ``booktabs`` and ``graphicx``."""
        shown = self.shown.map(latex).rename(columns=latex)
        for at in range(1, len(shown)):
            if shown.index[at] != shown.index[at - 1]:
                shown.iat[at, 0] = "\\midrule\n" + shown.iat[at, 0]
        tabular = Styler(shown.reset_index(drop=True)).hide(axis="index").to_latex(
            column_format="".join("l" if title in WORDS else "r" for _, title in shown), hrules=True,
            multicol_align="c")
        rules = ""
        for group, columns in itertools.groupby(enumerate(shown, 1), key=lambda column: column[1][0]):
            at = [number for number, _ in columns]
            rules += rf"\cmidrule(lr){{{at[0]}-{at[-1]}}}" if group else ""
        tabular = tabular.rstrip().replace("\\\\\n", f"\\\\\n{rules}\n", 1)
        caption, label = latex(" ".join([self.caption, *self.notes])), self.name.removeprefix("table")
        return "\n".join([r"\begin{table*}[t]", r"\centering", r"\resizebox{\textwidth}{!}{%", tabular + "}",
                          rf"\caption{{{caption}}}", rf"\label{{tab:yolopose-{label}}}", r"\end{table*}"]) + "\n"

    def to_html(self) -> str:
        """An HTML ``table`` element; every text is escaped. Its classes tell the kind of row and what is no number."""
        shown = self.shown.reset_index(drop=True)
        muted = shown.isin([DASH, NOT_RUN, UNDEFINED]).replace({True: " muted", False: ""})
        left = {"selector": "", "props": "text-align: left"}
        wash = {"selector": "td", "props": "background: rgba(86, 160, 211, .1)"}
        styles = {column: [left] for column in shown if column[-1] in WORDS}
        styles |= {column: [wash] for column in shown if column[-1] == "here"}
        styler = Styler(shown, uuid=self.name, cell_ids=False).hide(axis="index").format(_html_cell)
        styler.format_index(html.escape, axis=1).set_table_styles(styles)
        if not any(group for group, _ in shown):
            styler.hide(axis="columns", level=0)
        return styler.set_td_classes(muted.radd(self.shown.index.to_series(index=shown.index), axis=0)).to_html()

    def __repr__(self) -> str:
        return self.to_markdown()

    def _repr_html_(self) -> str:
        """The table with its caption and notes, for a notebook."""
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self.notes)
        return f"<p><b>{self.heading}.</b> {html.escape(self.caption)}</p>{self.to_html()}<ul>{notes}</ul>"

    def write(self, folder: Path, *forms: str) -> None:
        """Write ``<name>.<form>`` for each of ``csv``, ``md`` and ``tex`` that is asked for."""
        texts = {"csv": partial(self.data.to_csv, index=False, lineterminator="\n"), "md": self.to_markdown,
                 "tex": self.to_latex}
        for form in forms:
            atomic_write(folder / f"{self.name}.{form}", texts[form]())


def attempt(name: str, build: Callable[[], Table | None]) -> Table | None:
    """The table that ``build`` makes; where it cannot, one that says why in its place, so that others are not lost."""
    try:
        return build()
    except Exception as error:
        print(f"{name}: could not be built: {(reason := explained(error))}")
        cells: Cells = {("", "Note"): reason}
        return Table.of(name, name, "Could not be built.", [("other", cells, {"note": reason})], [])


def explained(error: Exception) -> str:
    """What went wrong in one line: a StudyError's own words; else kind and words of the error, and its line of code."""
    if isinstance(error, StudyError):
        return str(error)
    at = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(at.filename).name}, line {at.lineno})"


def markdown(frame: DataFrame, words: Iterable[str]) -> str:
    """A GitHub table of text, without the padding that would change every line with one cell; ``words`` stand left."""
    sides = ["left" if name in words else "right" for name in frame]
    text = frame.replace(r"\|", r"\\|", regex=True).to_markdown(
        index=False, tablefmt="pipe", colalign=sides, disable_numparse=True)
    return re.sub(r"\|:?-+(:?)(?=\|)", r"| ---\1 ", re.sub(" {2,}", " ", text))


def latex(text: str) -> str:
    return text.translate(LATEX)


def signed(value: float | None, digits: int = 1) -> str:
    """A difference with its sign, ``−1.2``; empty for ``None``."""
    return "" if value is None else f"{value:+.{digits}f}".replace("-", "−")


def rounded(value: float | None, digits: int = 2) -> float | None:
    return None if value is None else round(value, digits)


def _html_cell(text: str) -> str:
    """A value, with its spread over seeds and the mark of the reference on lines of their own."""
    value, _, deviation = text.removesuffix(REFERENCE_MARK).partition(" ± ")
    below = [f"± {deviation}"] if deviation else []
    below += [REFERENCE_MARK.strip()] if text.endswith(REFERENCE_MARK) else []
    return html.escape(value) + "".join(f" <small>{html.escape(line)}</small>" for line in below)
