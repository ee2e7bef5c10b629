"""Rules in words, made from the rules themselves so that the two cannot part."""

from __future__ import annotations

from typing import Any

SYMBOLS = {"==": "equals", ">=": "≥", "<=": "≤", ">": ">", "<": "<"}
# Below this AP or AP50 in percent even the best model has not learned the task, and their order means nothing.
ORDERING_FLOOR = 5.0
NAMES = {"gmacs": "GMACs", "params_m": "parameters", "gflops_single_pass": "GFLOPs of one pass"}


def describe(rule: dict[str, Any]) -> str:
    """One rule of ``claims.yaml`` as a sentence."""
    if "set" in rule:
        return f"{describe({k: v for k, v in rule.items() if k != 'set'})}; measured by make {rule['set']}"
    margin = f", margin {rule['margin']:g}" if rule.get("margin") else ""
    if "compare" in rule:
        left, operator, right = rule["compare"]
        if operator == "==":
            margin = margin.replace("margin", "tolerance")
        elif _measured(left) or _measured(right):
            margin = f"; one seed: margin {rule.get('margin', 0):g}; several: 95 % interval"
        return f"{_words(left)} {SYMBOLS[operator]} {_words(right)}{margin}"
    if "ordering" in rule:
        order = " < ".join(rule["ordering"])
        if "reduced" in rule:
            order += f" (at a reduced scale {' < '.join(rule['reduced'])})"
        images = " over seeds and paired bootstrap over images, both" if rule.get("bootstrap") else ""
        return (f"{rule['metric']} on {rule['split']}: {order}; one seed: margin {rule['margin']:g} at full scale, "
                f"{rule['margin_reduced']:g} at a reduced one; several: 95 % interval{images}; decided only where the "
                f"best model reaches {rule['metric']} {ORDERING_FLOOR:g}, and never in the smoke profile")
    if "interval" in rule:
        return f"the 95 % interval of {_words(rule['interval'])} lies above 0"
    if "matches_printed" in rule:
        wanted = rule["matches_printed"]
        metrics = wanted["metric"] if isinstance(wanted["metric"], list) else [wanted["metric"]]
        tables = wanted["table"] if isinstance(wanted["table"], list) else [wanted["table"]]
        what = " and ".join(NAMES.get(m, m) for m in metrics)
        where = ("Tables " if len(tables) > 1 else "Table ") + " and ".join(map(str, tables))
        return f"{what} of {where}, measured, equal the printed ones within their tolerance"
    if "all" in rule:
        return "all of: " + "; ".join(describe(part) for part in rule["all"])
    if "fact" in rule:
        return f"read in {rule['fact']['source'].partition(':')[0]}"
    return "no rule: " + rule["undecidable"].partition(";")[0]


def _measured(quantity: Any) -> bool:
    """Whether a quantity is measured, with an interval, or made of one that is."""
    return isinstance(quantity, dict) and ("measured" in quantity or bool({"half", "low"} & set(quantity)) or any(
        _measured(part) for parts in quantity.values() if isinstance(parts, list) for part in parts))


def _words(quantity: Any) -> str:
    if not isinstance(quantity, dict):
        return f"{quantity:g}"
    q = dict(quantity)
    for operation, symbol in (("ratio", " / "), ("difference", " − "), ("sum", " + "), ("product", " × ")):
        if operation in q:
            return "(" + symbol.join(_words(part) for part in q[operation]) + ")"
    if "stored" in q:
        where = f" of the {q['set']}" if "set" in q else ""
        return f"{q['key']} of {q['stored']}{where}"
    if "set" in q:
        return f"{_words({k: v for k, v in q.items() if k != 'set'})} of the {q['set']}"
    kind, metric = next(iter(q.items()))
    q.pop(kind)
    metric = NAMES.get(metric, metric)
    if kind == "analytic":
        return f"{metric}({', '.join(f'{k} {v:g}' for k, v in q.items())})"
    if kind != "printed":
        return " ".join([kind if kind != "complexity" else "counted", metric, *(_selector(k, v) for k, v in q.items())])
    who = "other methods" if q.pop("others", False) else ""
    reduce, table = q.pop("reduce", ""), q.pop("table")
    bounds = [f"{'GMACs' if k == 'gmacs' else k} {lo:g} to {hi:g}" for k, (lo, hi) in q.pop("between", {}).items()]
    rest = (_selector(k, v) for k, v in q.items())
    return f"Table {table} " + " ".join(p for p in (reduce, metric, who, *rest, *bounds) if p)


def _selector(key: str, value: Any) -> str:
    if key == "bits" and str(value).isdigit():
        return f"{value} bits"
    return {"row": f"row {value}", "input_size": f"{value} px", "split": f"on {value}"}.get(key, str(value))
