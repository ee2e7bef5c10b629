"""A table as data, and its four forms: CSV for programs, Markdown, LaTeX (booktabs) and HTML for readers.

All forms are functions of the table alone: the same results give the same bytes.
"""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

DASH = "–"
# Stands behind a value that comes from the committed reference instead of the run.
REFERENCE_MARK = " (ref)"


@dataclass(frozen=True)
class Column:
    """One column of the readable forms; neighbouring columns of the same non-empty ``group`` share a heading."""

    key: str
    title: str
    group: str = ""
    numeric: bool = True


@dataclass
class Table:
    """A finished table. ``rows`` holds display strings by column key; ``data`` holds the values for the CSV form.

    A row's key ``_kind`` is ``ours``, ``other`` or ``study`` (not in the paper) and decides its emphasis. ``number`` is
    one of the paper's, or 0 for a table of this study, which then has a ``name``.
    """

    number: int
    caption: str
    columns: Sequence[Column]
    rows: list[dict[str, str]]
    data: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)
    name: str = ""

    @property
    def heading(self) -> str:
        """``Table 3``, or what a table of this study is about: ``Ablation: heads``."""
        return f"Table {self.number}" if self.number else f"Ablation: {self.name}"

    @property
    def stem(self) -> str:
        """Name of its files without suffix."""
        return f"table{self.number}" if self.number else f"ablation_{self.name}"

    @property
    def shown(self) -> list[Column]:
        """The columns that have a value in some row."""
        return [c for c in self.columns if any(row.get(c.key) not in (None, "", DASH) for row in self.rows)]


def groups(columns: Sequence[Column]) -> list[tuple[str, int]]:
    """Runs of neighbouring columns with the same group: ``[(group, how many)]``; columns without one stand alone."""
    runs: list[tuple[str, int]] = []
    for column in columns:
        if runs and column.group and runs[-1][0] == column.group:
            runs[-1] = (column.group, runs[-1][1] + 1)
        else:
            runs.append((column.group, 1))
    return runs


def to_csv(table: Table) -> str:
    """Comma-separated values, one column per printed and per measured quantity; empty where there is none."""
    names = list(dict.fromkeys(key for row in table.data for key in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if v is None else v for k, v in row.items()} for row in table.data)
    return buffer.getvalue()


def to_markdown(table: Table) -> str:
    """GitHub Markdown; a group's name stands before the title of each of its columns."""
    columns = table.shown
    titles = [f"{c.group} {c.title}".strip() for c in columns]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    body = [line([("**%s**" if row.get("_kind") == "ours" and c.key == "method" else "%s") % row.get(c.key, "")
                  for c in columns]) for row in table.rows]
    rule = "| " + " | ".join("---:" if c.numeric else "---" for c in columns) + " |"
    return "\n".join([f"**{table.heading}.** {table.caption}", "", line(titles), rule, *body, "",
                      *(f"- {note}" for note in table.notes)]) + "\n"


_LATEX = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
          "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "×": r"$\times$", "−": r"$-$",
          "†": r"$^{\dagger}$", "–": "--", "≤": r"$\leq$", "≥": r"$\geq$", "→": r"$\to$",
          "₀": "$_0$", "<": r"$<$", ">": r"$>$", "σ": r"$\sigma$", "²": "$^2$", "’": "'", "·": r"$\cdot$"}


def latex_escape(text: str) -> str:
    """Text as LaTeX source that prints it."""
    return "".join(_LATEX.get(character, character) for character in text)


def to_latex(table: Table) -> str:
    """A ``table*`` environment; the document needs ``booktabs`` and ``graphicx``."""
    columns = table.shown
    spans = groups(columns)
    head, rules, at = [], [], 1
    for name, width in spans:
        head.append(rf"\multicolumn{{{width}}}{{c}}{{{latex_escape(name)}}}" if name else "")
        if name:
            rules.append(rf"\cmidrule(lr){{{at}-{at + width - 1}}}")
        at += width
    lines = [r"\begin{table*}[t]", r"\centering", r"\resizebox{\textwidth}{!}{%",
             rf"\begin{{tabular}}{{{''.join('r' if c.numeric else 'l' for c in columns)}}}", r"\toprule"]
    if any(name for name, _ in spans):
        lines += [" & ".join(head) + r" \\", "".join(rules)]
    lines += [" & ".join(latex_escape(c.title) for c in columns) + r" \\", r"\midrule"]
    kind = None
    for row in table.rows:
        if kind is not None and row.get("_kind") != kind:
            lines.append(r"\midrule")
        kind = row.get("_kind")
        lines.append(" & ".join(latex_escape(row.get(c.key, "")) for c in columns) + r" \\")
    notes = " ".join(latex_escape(note) for note in table.notes)
    caption = f"{latex_escape(table.caption)} {notes}".rstrip()
    lines += [r"\bottomrule", r"\end{tabular}}", rf"\caption{{{caption}}}",
              rf"\label{{tab:yolopose-{table.number or table.name}}}", r"\end{table*}"]
    return "\n".join(lines) + "\n"


def to_html(table: Table) -> str:
    """An HTML ``table`` element with a two-level heading, and its notes as a list; every text is escaped."""
    columns = table.shown
    out = ["<table>", "<thead>"]
    spans = groups(columns)
    if any(name for name, _ in spans):
        cells, at = [], 0
        for name, width in spans:
            if name:
                cells.append(f'<th colspan="{width}" class="group">{html.escape(name)}</th>')
            else:
                cells.append(f'<th rowspan="2"{_left(columns[at])}>{html.escape(columns[at].title)}</th>')
            at += width
        out.append(f"<tr>{''.join(cells)}</tr>")
        out.append("<tr>" + "".join(f"<th>{html.escape(c.title)}</th>" for c in columns if c.group) + "</tr>")
    else:
        out.append("<tr>" + "".join(f"<th{_left(c)}>{html.escape(c.title)}</th>" for c in columns) + "</tr>")
    out.append("</thead>\n<tbody>")
    for row in table.rows:
        cells = []
        for c in columns:
            text = row.get(c.key, "")
            muted = text in ("not run", "undefined", DASH)
            classes = " ".join(name for name, on in (("left", not c.numeric), ("muted", muted),
                                                     ("here", c.title == "here")) if on)
            opening = f'<td class="{classes}">' if classes else "<td>"
            value, _, spread = html.escape(text.removesuffix(REFERENCE_MARK)).partition(" ± ")
            below = [f"± {spread}"] if spread else []
            below += [REFERENCE_MARK.strip()] if text.endswith(REFERENCE_MARK) else []
            cells.append(f"{opening}{value}{''.join(f'<small>{line}</small>' for line in below)}</td>")
        out.append(f'<tr class="{row.get("_kind", "other")}">{"".join(cells)}</tr>')
    out.append("</tbody>\n</table>")
    return "\n".join(out)


def _left(column: Column) -> str:
    return "" if column.numeric else ' class="left"'
