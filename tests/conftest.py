"""Shared fixtures."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests import fabricated
from tests.coco_folder import make_folder
from tests.fake_notebooks import CODE, HEAD, PARAMETERS, STORED, notebook
from tests.file_server import serving
from yolopose.workflow import stages

REPO = Path(__file__).resolve().parents[1]
SHARED = REPO.parent / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with many slow tests go first: where several processes share the tests, none has one left at the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference numbers, oracles and sample images kept beside the repository; tests skip where they are absent."""
    if not (SHARED / "reference").is_dir():
        pytest.skip("shared/ (reference numbers, oracles, COCO samples) is not beside the repository")
    return SHARED


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> Any:
    """A small data set, eight images of which can be trained on; nobody changes it."""
    from yolopose.data.coco import load_dataset

    return load_dataset(make_folder(tmp_path_factory.mktemp("data") / "tiny", images=12))


@pytest.fixture(scope="session")
def whole(tiny_data, tmp_path_factory) -> Path:
    """The folder of a tiny run that nothing interrupted; nobody changes it."""
    from tests.tiny import CPU, tiny_run
    from yolopose.training.trainer import Trainer

    folder = tmp_path_factory.mktemp("runs") / "whole"
    Trainer(tiny_run(), tiny_data, folder, CPU).fit()
    return folder


@pytest.fixture(scope="session")
def pose_file(tmp_path_factory) -> Path:
    """The exported file of ``lively_model()``; nobody changes it."""
    from tests.lively import ABOUT, lively_model
    from yolopose.export.onnx_file import export_model

    return export_model(lively_model(), ABOUT, tmp_path_factory.mktemp("export") / "model.onnx")


@pytest.fixture
def books(monkeypatch, tmp_path) -> Path:
    """A folder of stand-in notebooks, used instead of the real ones."""
    (folder := tmp_path / "books").mkdir()
    for name, code in CODE.items():
        notebook(folder, name, STORED if name[:2] in ("06", "07", "08") else PARAMETERS, HEAD, code)
    monkeypatch.setattr(stages, "NOTEBOOKS", folder)
    return folder


@pytest.fixture
def file_server(monkeypatch) -> Any:
    """A running ``FileServer`` without files, that no proxy is asked for and that is not waited for."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr("yolopose.utils.download.PAUSE_S", 0.0)
    with serving() as running:
        yield running


@pytest.fixture
def mini(tmp_path) -> Path:
    """A made-up results folder of a reduced scale."""
    return fabricated.study(tmp_path / "mini", fabricated.MINI, test_dev=49.0)


@pytest.fixture
def results(tmp_path) -> Path:
    """A results folder that does not exist yet."""
    return tmp_path / "smoke"
