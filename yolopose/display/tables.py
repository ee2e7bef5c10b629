"""Rows of results as a table for a notebook."""

from collections.abc import Mapping, Sequence
from typing import Any

from pandas import DataFrame
from pandas.io.formats.style import Styler

from yolopose.utils.files import config_hash

NUMBER = r"[-+−\d.,e]+( ?%)?|undefined"
SCORE = r"(.* )?A[PR](50|75|M|L)?"  # a column of COCO's metrics, which are -1 where there is nobody to score


def table(rows: DataFrame | Sequence[Mapping[str, Any]], columns: Sequence[str] = (), digits: int = 3) -> Styler:
    """These ``columns`` of rows (else all) as a table: text stands left, a missing value is a dash, a score of nobody
    *undefined*; integers have no decimals, other numbers ``digits``."""
    frame = DataFrame(rows, columns=list(columns) or None, dtype=object).replace("", None).reset_index(drop=True)
    for name in frame.filter(regex=f"^{SCORE}$"):
        frame[name] = frame[name].map(lambda value: "undefined" if value == -1 else value)
    text = [name for name in frame if not frame[name].dropna().astype(str).str.fullmatch(NUMBER).all()]
    styler = frame.style.format(precision=digits, na_rep="–", escape="html").hide(axis="index")
    styler.set_uuid(config_hash(frame.to_csv()))  # else random: a notebook executed again would differ
    styler.set_table_styles({name: [{"selector": "", "props": "text-align: left"}] for name in text})
    return styler if len(frame) else styler.set_caption("(nothing to show)")
