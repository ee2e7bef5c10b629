"""The paper's claims: read from ``results/paper/claims.yaml``, decided by their rules (``yolopose.claims_rules``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from yolopose.claims_rules import Judge
from yolopose.claims_words import describe
from yolopose.compare import NOT_RUN
from yolopose.errors import StudyError
from yolopose.measured import PAPER_DIR, ResultSet

CLAIM_COLUMNS = ["id", "claim", "where", "kind", "decided_by", "evidence", "rule", "tolerance", "values", "verdict",
                 "scale", "reason"]
KEYS = {"id", "text", "where", "kind", "evidence", "rule", "tolerance", "decided_by"}
DECIDERS = ("paper", "official code", "run", "nothing at hand")


def load_claims(paper_dir: Path = PAPER_DIR) -> list[dict[str, Any]]:
    """The claims, checked: known keys, unique ids, a known decider.

    Raises:
        StudyError: the file is not YAML or a claim is malformed.
    """
    path = paper_dir / "claims.yaml"
    try:
        claims = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise StudyError(f"{path}: cannot be read as YAML: {error}") from error
    seen = set()
    for claim in claims:
        name = claim.get("id", "?")
        if lacking := KEYS - set(claim):
            raise StudyError(f"{path}: {name}: lacks {', '.join(sorted(lacking))}")
        if unknown := set(claim) - KEYS:
            raise StudyError(f"{path}: {name}: unknown key {', '.join(sorted(unknown))}")
        if name in seen:
            raise StudyError(f"{path}: id {name} is used twice")
        if claim["decided_by"] not in DECIDERS:
            raise StudyError(f"{path}: {name}.decided_by: {claim['decided_by']!r}; known: {', '.join(DECIDERS)}")
        seen.add(name)
    return claims


def decide(results: ResultSet, paper_dir: Path = PAPER_DIR) -> list[dict[str, Any]]:
    """Decide all claims from the paper's tables and what ``results`` holds; rows with ``CLAIM_COLUMNS``."""
    judge = Judge(results, paper_dir)
    rows = []
    for claim in load_claims(paper_dir):
        try:
            outcome = judge.decide(claim["rule"])
        except (KeyError, TypeError, ValueError) as error:
            raise StudyError(f"{paper_dir / 'claims.yaml'}: {claim['id']}.rule: {error}") from error
        rows.append({
            "id": claim["id"], "claim": claim["text"], "where": claim["where"], "kind": claim["kind"],
            "decided_by": claim["decided_by"], "evidence": "; ".join(claim["evidence"]),
            "rule": describe(claim["rule"]), "tolerance": claim["tolerance"], "values": outcome.values,
            "verdict": outcome.verdict, "scale": outcome.scale or _scale(claim, outcome.verdict, results),
            "reason": outcome.reason})
    return rows


def _scale(claim: dict[str, Any], verdict: str, results: ResultSet) -> str:
    """What the verdict rests on: printed numbers, a model counted at true size, or runs at the profile's scale."""
    if claim["decided_by"] == "paper":
        return "printed numbers"
    if claim["decided_by"] == "official code":
        return "official code, as read"
    if verdict == NOT_RUN:
        return ""
    return "true width and size" if claim["kind"] == "compute" else results.scale()
