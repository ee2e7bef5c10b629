"""Shared fixtures."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fake_notebooks import install

REPO = Path(__file__).resolve().parents[1]
SHARED = REPO.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference numbers, oracles and sample images kept beside the repository; tests skip where they are absent."""
    if not (SHARED / "reference").is_dir():
        pytest.skip("shared/ (reference numbers, oracles, COCO samples) is not beside the repository")
    return SHARED


@pytest.fixture
def books(monkeypatch, tmp_path) -> Path:
    """A folder of stand-in notebooks, used instead of the real ones."""
    return install(monkeypatch, tmp_path)


@pytest.fixture
def results(tmp_path) -> Path:
    """A results folder that does not exist yet."""
    return tmp_path / "smoke"
