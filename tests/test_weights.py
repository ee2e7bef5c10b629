"""Files of weights that somebody changed: types, ranges and sizes are checked before a model is built of them."""

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from yolopose.data.schema import KeypointSchema
from yolopose.data.synthetic.generate import CATEGORY
from yolopose.models.checkpoints import load_state, load_weights, save_state, save_weights
from yolopose.models.yolov5 import build_model
from yolopose.study.config import load_variants
from yolopose.utils.errors import StudyError

COUNT = 17


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "weights.pt"
    save_weights(path, build_model(load_variants()["yolov5s6_pose_dw2"], COUNT, 0.125, seed=0), 0.125, 64,
                 KeypointSchema.from_category(CATEGORY).as_dict(), {"experiment": "s6"})
    return path


@pytest.fixture(scope="module")
def stored(weights) -> dict[str, Any]:
    return load_state(weights)


def entry(*keys: str, to: Any) -> Callable[[dict[str, Any]], None]:
    """A change of one entry of the file, ``to`` a value."""
    def change(state: dict[str, Any]) -> None:
        for key in keys[:-1]:
            state = state[key]
        state[keys[-1]] = to
    return change


def forged(width: float) -> Callable[[dict[str, Any]], None]:
    """Larger tensors in the description and in the file, of which little was stored."""
    def change(state: dict[str, Any]) -> None:
        state["width_factor"] *= width
        state["state_dict"] = {key: torch.zeros(()).expand([int(n * width) if n > 3 else n for n in tensor.shape])
                               for key, tensor in state["state_dict"].items()}
    return change


NAN, HUGE = float("nan"), "model.4.m.2.cv2.conv.weight"  # of depth 0.33 there are three
CHANGES = {
    "missing 'variant'": lambda state: state.pop("variant"),
    "missing 'state_dict'": lambda state: state.pop("state_dict"),
    "variant: must be a mapping": entry("variant", to=[1]),
    "variant.depth: must be above 0 up to 10, not 1000000": entry("variant", "depth", to=1e6),
    "variant.depth: must be a number of usual size, not nan": entry("variant", "depth", to=NAN),
    "variant.decoder_depth: must be from 0": entry("variant", "decoder_depth", to=-1),
    "variant.activation: 'tanh' is none of": entry("variant", "activation", to="tanh"),
    "variant: unknown key 'more'": entry("variant", "more", to=1),
    "width_factor: must be above 0 up to 10, not 40": entry("width_factor", to=40),
    "input_size: must be from 64": entry("input_size", to=-64),
    "num_keypoints: must be a whole number of usual size, not a huge number": entry("num_keypoints", to=1 << 70),
    "num_keypoints: must be a whole number": entry("num_keypoints", to="17"),
    "anchors_px: must be a list of 4": entry("anchors_px", to=[]),
    "anchors_px.0: must be a list of 3": entry("anchors_px", to=[[1]] * 4),
    "anchors_px.0.0.0: must be a number of usual size": entry("anchors_px", to=[[[NAN] * 2] * 3] * 4),
    "schema.names": entry("schema", "names", to=[]),
    "schema.sigmas.0: must be above 0": entry("schema", "sigmas", to=[-1.0] * COUNT),
    "the schema is not one of 17": entry("schema", "sigmas", to=[0.1]),
    "the schema names keypoints that": entry("schema", "skeleton", to=[[0, 17]]),
    "activations.model.0: 'x' is none of": entry("activations", to={"model.0": "x"}),
    r"disagree \('nowhere'": entry("activations", to={"nowhere": "silu"}),
    r"disagree \(Out of range float": entry("about", "AP", to=NAN),
    r"disagree \(Object of type Tensor": entry("about", "AP", to=torch.zeros(1)),
    "state_dict: must be a mapping": entry("state_dict", to=torch.zeros(1)),
    r"disagree \('model.2.m.1.cv2.conv.weight'": entry("variant", "depth", to=9.9),
    r"disagree \(model.1.conv.weight is \(8,": entry("width_factor", to=9.9),
    r"disagree \('model.33.m_kpt.0.199.weight'": entry("variant", "decoder_depth", to=100),
    r"disagree \(model.33.m_kpt.0.3.weight is \(153,": lambda state: (
        entry("num_keypoints", to=1)(state), state["schema"].update(names=["a"], sigmas=[1], flip_indices=[0],
                                                                    skeleton=[])),
    r"disagree \(not every tensor is an ordinary one": entry("state_dict", "model.0.conv.conv.weight", to=None),
    r"disagree \(not every tensor": forged(32.0),
    r"disagree \(the tensors are larger than the file": lambda state: state["state_dict"].update(
        {f"{i}": state["state_dict"][HUGE] for i in range(10_000)}),
    r"disagree \(Error\(s\) in loading": lambda state: state["state_dict"].pop("model.0.conv.bn.bias"),
}


@pytest.mark.parametrize("words", CHANGES)
def test_what_does_not_fit_is_said_before_a_model_is_built(stored, tmp_path, words):
    """A depth of a million and a width of forty did not end."""
    state, path, started = copy.deepcopy(stored), tmp_path / "weights.pt", time.perf_counter()
    CHANGES[words](state)
    save_state(path, state)
    with pytest.raises(StudyError, match=f"^{path}: .*{words}.*; put the right file in its place, or delete"):
        load_weights(path)
    assert time.perf_counter() - started < 20


def test_what_fits_is_read(weights):
    model, about = load_weights(weights)
    assert about["num_keypoints"] == COUNT == model.detect.num_keypoints and "state_dict" not in about
