"""Small pieces of the report: Markdown to HTML, embedded files, and tables made from nested results."""

from __future__ import annotations

import base64
import html
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from yolopose.study.config import load_profiles

# Settings in which profiles differ without changing what is studied.
NOT_RECIPE = re.compile(r"data\.(train|val|test_dev|seed|name)|"
                        r"train\.(workers|validate_.*|batch_size|nominal_batch|amp)|evaluate\.batch_size")
_INLINE = ((re.compile(r"`([^`]+)`"), r"<code>\1</code>"), (re.compile(r"\*\*([^*]+)\*\*"), r"<strong>\1</strong>"),
           (re.compile(r"(?<![\w*])\*([^*]+)\*(?![\w*])"), r"<em>\1</em>"))


def data_uri(path: Path) -> str | None:
    """An SVG file as a ``data:`` address, or ``None`` where it does not exist."""
    if not path.is_file():
        return None
    return f"data:image/svg+xml;base64,{base64.b64encode(path.read_bytes()).decode()}"


def inline(text: str) -> str:
    """Code, strong and emphasised words of one line of Markdown; everything else is escaped."""
    text = html.escape(text, quote=False)
    for pattern, replacement in _INLINE:
        text = pattern.sub(replacement, text)
    return text


def markdown_to_html(text: str) -> str:
    """The Markdown that this study's own files use: headings, paragraphs, lists and tables. HTML comments are dropped.

    Headings go two levels down, to stand below the report's own.
    """
    text = re.sub(r"<!--.*?-->\n?", "", text, flags=re.DOTALL)
    out = []
    for block in re.split(r"\n\s*\n", text.strip()):
        lines = block.splitlines()
        if heading := re.fullmatch(r"(#{1,4}) (.+)", lines[0]):
            level = min(len(heading.group(1)) + 1, 5)
            out.append(f"<h{level}>{inline(heading.group(2))}</h{level}>")
            lines = lines[1:]
        if not lines:
            continue
        if lines[0].startswith("|"):
            out.append(_table(lines))
        elif lines[0].startswith("- "):
            items = re.split(r"\n- ", "\n".join(lines)[2:])
            out.append("<ul>" + "".join(f"<li>{inline(' '.join(i.split()))}</li>" for i in items) + "</ul>")
        else:
            out.append(f"<p>{inline(' '.join(line.strip() for line in lines))}</p>")
    return "\n".join(out)


def _table(lines: list[str]) -> str:
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
    head = "".join(f'<th class="left">{inline(c)}</th>' for c in rows[0])
    body = "".join("<tr>" + "".join(f'<td class="left">{inline(c)}</td>' for c in row) + "</tr>" for row in rows[2:])
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def number_text(value: Any) -> str:
    """A number with three significant digits, a list of them, or the text of anything else; nothing for ``None``."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(number_text(v) for v in value)
    return str(value)


def statistics_rows(data: dict[str, Any] | None) -> list[tuple[str, str, str]]:
    """Statistics of the data set beside COCO's, from ``data.json``: (name, here, COCO val2017)."""
    if not data:
        return []
    here, coco = summaries(data.get("statistics") or {}), summaries(data.get("coco_statistics") or {})
    return [(key.replace("_", " "), text, coco.get(key, "–")) for key, text in here.items()]


def summaries(value: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested statistics, one line each: quantiles as ``mean (5 % · median · 95 %)``, other flat groups as ``a / b``."""
    lines: dict[str, str] = {}
    for name, part in value.items():
        key = f"{prefix}: {name}" if prefix else str(name)
        if not isinstance(part, dict):
            lines[key] = number_text(part)
        elif {"mean", "q05", "q50", "q95"} <= set(part):
            quantiles = " · ".join(number_text(part[q]) for q in ("q05", "q50", "q95"))
            lines[f"{key}, mean (5 % · median · 95 %)"] = f"{number_text(part['mean'])} ({quantiles})"
        elif part and not any(isinstance(v, dict) for v in part.values()):
            lines[f"{key} ({' / '.join(map(str, part))})"] = " / ".join(number_text(v) for v in part.values())
        else:
            lines |= summaries(part, key)
    return lines


def recipe(settings: dict[str, Any]) -> dict[str, str]:
    """The settings that make a training what it is, by key of ``profiles.yaml``, as text.

    Args:
        settings: a profile, or the configuration that a ``run.json`` records, as nested mappings.
    """
    sizes = settings.get("sizes") or {settings["experiment"]["input_size"]: settings["input_size"]}
    leaves = {"sizes": ", ".join(f"{k}: {v}" for k, v in sizes.items()),
              "width_factor": str(settings["width_factor"])}
    for part in ("data", "augment", "train", "evaluate"):
        for key, value in settings[part].items():
            if key == "gains":
                leaves |= {f"train.gains.{loss}": ", ".join(f"{k} {v}" for k, v in given.items())
                           if isinstance(given, dict) else str(given) for loss, given in value.items()}
            elif not NOT_RECIPE.fullmatch(f"{part}.{key}") and not (key == "image_size" and not value):
                value = tuple(value) if isinstance(value, list) else value
                leaves[f"{part}.{key}"] = "–" if value is None else str(value)
    return leaves


def profile_differences(settings: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Where a profile or a run departs from the paper's recipe: (key, the profile ``paper``, here)."""
    paper_profile = asdict(load_profiles()["paper"])
    own_sizes = settings.get("sizes") or {settings["experiment"]["input_size"]: settings["input_size"]}
    paper_profile["sizes"] = {k: v for k, v in paper_profile["sizes"].items() if k in own_sizes}
    paper, own = recipe(paper_profile), recipe(settings)
    return [(key, paper.get(key, "–"), value) for key, value in own.items() if paper.get(key, "–") != value]
