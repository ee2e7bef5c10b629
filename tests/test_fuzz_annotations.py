"""Any damage to a small valid annotation file ends in a StudyError or in a data set whose numbers can be trusted.

``FUZZ_CASES=5000 FUZZ_SEED=1`` tries more cases, and others.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.coco_folder import make_folder
from yolopose.data.coco import CocoDataset, load_dataset
from yolopose.evaluation.coco_server.results_file import read_image_ids
from yolopose.utils.errors import StudyError

CASES, SEED = int(os.environ.get("FUZZ_CASES", "1000")), int(os.environ.get("FUZZ_SEED", "0"))
FILES = ("person_keypoints_train2017.json", "person_keypoints_val2017.json", "image_info_test-dev2017.json")
NASTY = (None, True, False, 0, -1, 1, 2, 1.0, 0.5, -0.0, float("nan"), float("inf"), 10**6, 10**18, 2**63, 2**64,
         -2**63, 10**400, 1e300, 5e-324, "", "0", "1", "nan", "a\0b", "\ud800", "../x", "/etc/passwd", "a/../../b",
         "x" * 5000, "é", [], {}, [[]], [None] * 9, [0] * 9, [1e999, 0, 2] * 3, [10**400, -10**400, 0, 1], ["nose"] * 3,
         [True] * 9, [0.1, 0.2, 0.3], {"id": 1}, [[1, 2], [1, 2]], 13_000)
VALUES = st.one_of(
    st.sampled_from(NASTY), st.integers(), st.floats(), st.text(max_size=8), st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=6))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(part, (*path, key))


def put(whole: Any, path: tuple[Any, ...], how: str, new: Any) -> Any:
    """The value with another one in place of what is at ``path``, or beside it; or without it, or with it twice."""
    if not path:
        return new if how == "replace" else [whole]
    *way, last = path
    parent = whole
    for key in way:
        parent = parent[key]
    if how == "replace":
        parent[last] = new
    elif how == "delete":
        del parent[last]
    elif isinstance(parent, list):
        parent.insert(last, deepcopy(parent[last]) if how == "duplicate" else new)
    else:
        parent[f"{last} again"] = new
    return whole


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("fuzz") / "tiny", images=3, test_dev=True)


@pytest.fixture(scope="module")
def whole(folder: Path) -> dict[str, Any]:
    """The content of the valid files, by name; masks, which are never looked at, left out."""
    found = {name: json.loads((folder / "annotations" / name).read_text()) for name in FILES}
    for content in found.values():
        for row in content.get("annotations", []):
            del row["segmentation"]
    return found


def loaded(folder: Path, name: str, raw: bytes) -> CocoDataset | StudyError:
    """What comes of the folder while one of its files holds ``raw``."""
    path = folder / "annotations" / name
    valid = path.read_bytes()
    try:
        path.write_bytes(raw)
        if name == FILES[2]:
            with contextlib.suppress(StudyError):
                assert all(type(one) is int for one in read_image_ids(path))
        return load_dataset(folder)
    except StudyError as error:
        return error
    finally:
        path.write_bytes(valid)


def is_sound(data: CocoDataset | StudyError, folder: Path) -> bool:
    """Whether it is a message that can be printed and names the place, or a data set whose arrays are as they say."""
    if isinstance(data, StudyError):
        return str(folder) in str(data).encode().decode() and "; " in str(data) and len(str(data)) < 10_000
    for split in (data.train, data.val, data.test_dev):
        if not split:  # a list of test-dev may be empty
            continue
        images, limit = [split.load_image(i) for i in range(len(split))], split.store.sizes
        assert [(image.shape[1], image.shape[0]) for image in images] == [tuple(one) for one in limit.tolist()]
        for i in range(len(split)):
            boxes, joints, shares = split.boxes_xyxy(i), split.keypoints(i), split.store.area_shares(i)
            side = np.asarray([*limit[i], *limit[i]])
            assert (boxes >= 0).all() and (boxes <= side).all() and (boxes[:, :2] < boxes[:, 2:]).all()
            assert np.isin(joints[..., 2], (0, 1, 2)).all() and (joints[..., 2].sum(1) > 0).all()
            assert (joints[..., :2] >= -side[:2]).all() and (joints[..., :2] <= 2 * side[:2]).all()
            assert np.isfinite(shares).all() and (shares > 0).all()
    for row in data.val.annotations["annotations"]:
        assert type(row["id"]) is int and row["id"] > 0 and type(row["iscrowd"]) is int and 0 <= row["area"] < 1e6
        assert row["num_keypoints"] == sum(v > 0 for v in row["keypoints"][2::3]) and np.isfinite(row["bbox"]).all()
    sigmas = data.schema.sigmas
    assert sigmas.shape == (len(data.schema),) and (sigmas > 0).all() and (sigmas <= 1).all()
    json.dumps(data.schema.as_dict(), allow_nan=False).encode()
    return len(data.train) > 0


@settings(max_examples=CASES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@seed(SEED)
@given(st.data())
def test_any_value_anywhere(folder: Path, whole: dict[str, Any], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([*FILES[:2]] * 4 + [FILES[2]]), "file")
    changed = deepcopy(whole[name])
    for _ in range(data.draw(st.sampled_from([1, 1, 1, 2]))):
        path = data.draw(st.sampled_from([*places(changed)]), "place")
        how = data.draw(st.sampled_from(["replace"] * 4 + ["delete", "duplicate", "insert"]), "how")
        changed = put(changed, path, how, deepcopy(data.draw(VALUES, "value")))
    assert is_sound(loaded(folder, name, json.dumps(changed).encode()), folder)


@settings(max_examples=CASES // 5, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@seed(SEED)
@given(st.integers(0, 10**6), st.integers(0, 40), st.one_of(st.binary(max_size=6), st.sampled_from([
    b"\0", b"\xff", b"[" * 2000, b'{"a":' * 2000, b"9" * 5000, b"1e999", b"NaN", b"-Infinity", b'"\\ud800"', b",", b"}",
    b'"id": 1, "id": 2'])))
def test_any_damage_to_the_text(folder: Path, whole: dict[str, Any], at: int, less: int, new: bytes) -> None:
    raw = json.dumps(whole[FILES[1]]).encode()
    at %= len(raw)
    assert is_sound(loaded(folder, FILES[1], raw[:at] + new + raw[at + less:]), folder)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-8"])
def test_encodings_of_json_are_read(folder: Path, whole: dict[str, Any], encoding: str) -> None:
    data = loaded(folder, FILES[0], json.dumps(whole[FILES[0]]).encode(encoding))
    assert not isinstance(data, StudyError) and is_sound(data, folder)


TEXT = '{"images": [%s], "annotations": [], "categories": []}'


@pytest.mark.parametrize(("raw", "said"), [
    (b"", "is not JSON"), (b"[" * 100_000, "nested too deeply"), (b'{"a":' * 100_000, "nested too deeply"),
    (TEXT.replace("%s", "1" * 5000).encode(), "is not JSON"), (TEXT.replace("%s", "1e5000").encode(), "is no object"),
    (b'{"images": [], "images": []}', "the key 'images' stands twice"),
    (b'"images"', "lacks the list"),
    ('{"a": "é"}'.encode("latin-1"), "is not JSON"), (b"\xff\xfe\x00", "is not JSON"), (b"\0" * 100, "is not JSON"),
])
def test_damaged_text_is_explained(tmp_path: Path, raw: bytes, said: str) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(raw)
    with pytest.raises(StudyError, match=said):
        read_image_ids(path)
