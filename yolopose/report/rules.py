"""What a rule of ``claims.yaml`` may hold: every word is known, so that none is passed over in silence. The forms are
told with examples in the README of ``results/paper``."""

from dataclasses import dataclass, make_dataclass
from typing import Annotated, Any, Literal

from yolopose.study.paper import CONVENTIONS
from yolopose.utils.typed import Above0, AtLeast0, Count, Matches, Mismatch, Range, conform

OPERATIONS = {"ratio": " / ", "difference": " − ", "sum": " + ", "product": " × "}
SYMBOLS = {"==": "equals", ">=": "≥", "<=": "≤", ">": ">", "<": "<"}
DECIDERS = ("paper", "official code", "run", "nothing at hand")


@dataclass(frozen=True, eq=False)
class Form:
    """A mapping with one of the keys of ``kinds``, of the kind that belongs to it; or, of a quantity, a number."""

    kinds: dict[str, Any]
    number: bool = False

    def check(self, value: Any, key: str) -> None:
        """Raise a Mismatch where it is not."""
        if self.number and not isinstance(value, (dict, list, str)):
            conform(float, value, key)
            return
        forms = [name for name in self.kinds if name in conform(dict[str, Any], value, key)]
        if len(forms) != 1:
            raise Mismatch(key, f"needs exactly one of {', '.join(self.kinds)}")
        conform(self.kinds[forms[0]], value, key)


def _of(must: dict[str, Any], **may: Any) -> type:
    """The kind of mapping that must have some keys, may have others, and has no more."""
    return make_dataclass("Words", [*must.items(), *((name, kind | None, None) for name, kind in may.items())])


_RULES: dict[str, Any] = {}
_QUANTITIES: dict[str, Any] = {}
Rule = Annotated[Any, Form(_RULES)]
Quantity = Annotated[Any, Form(_QUANTITIES, number=True)]
_Set = Literal["ablations"]
_Metric = Literal["AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL"]
_Printed = Literal["params_m", "gmacs", "AP", "AP50", "AP75", "APL", "AR"]
_Split = Annotated[str, Matches("val|val_all|val_box|test_dev|val_int8|val_int16|val_mixed", "a split of metrics.json")]
_Table = Annotated[int, Range(1, 5)]
_Text = str | int  # a cell of a CSV
_Rows = dict.fromkeys(("experiment", "method", "backbone", "input_size", "row", "bits", "loss", "split", "test"), _Text)
_Stored = {"stored": str, "key": str}
_Names = Annotated[list[str], Range(2)]

_QUANTITIES |= {
    "printed": _of({"printed": _Printed, "table": _Table}, reduce=Literal["min", "max"], others=bool,
                   between=dict[_Printed, tuple[float, float]], **_Rows),
    "measured": _of({"measured": _Metric, "experiment": str, "split": _Split}, set=_Set),
    "stored": _of(_Stored, half=str, low=str, high=str, percent=bool, set=_Set),
    "complexity": _of({"complexity": Literal["params_m", "gmacs"]}, experiment=str, variant=str, input_size=Count,
                      width_factor=Above0, convention=Literal[CONVENTIONS]),
    "baseline": dict[str, _Text], "readme": dict[str, _Text],
    "analytic": _of({"analytic": Literal["oks_gradient", "oks_term"], "distance": AtLeast0}, scale=Above0, k=Above0,
                    sign=Literal[-1, 1]),
    **{name: _of({name: tuple[Quantity, Quantity]}, set=_Set) for name in ("ratio", "difference")},
    **{name: _of({name: Annotated[list[Quantity], Range(1)]}, set=_Set) for name in ("sum", "product")}}
_RULES |= {
    "compare": _of({"compare": tuple[Quantity, Literal[tuple(SYMBOLS)], Quantity]}, margin=AtLeast0, floor=Quantity,
                   set=_Set),
    "ordering": _of({"ordering": _Names, "metric": _Metric, "split": _Split, "margin": AtLeast0,
                     "margin_reduced": AtLeast0}, reduced=_Names, bootstrap=bool, set=_Set),
    "interval": _of({"interval": _of(_Stored, percent=bool, set=_Set)}, set=_Set),
    "all": _of({"all": Annotated[list[Rule], Range(1)]}, set=_Set),
    "matches_printed": _of({"matches_printed": _of({"metric": _Printed | list[_Printed],
                                                    "table": _Table | list[_Table]}, **_Rows)}, set=_Set),
    "fact": _of({"fact": _of({"holds": bool, "source": str})}),
    "undecidable": _of({"undecidable": str})}


@dataclass(frozen=True)
class Claim:
    """A claim of ``claims.yaml``, as it stands there."""

    id: Annotated[str, Matches(r"C\d+", "C and a number")]
    text: str
    where: str
    kind: str
    evidence: list[str]
    rule: Rule
    tolerance: str
    decided_by: Literal[DECIDERS]
