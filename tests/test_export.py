"""ONNX export: the file does what the model does, says what it is, and runs with nothing of this project."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from tests.coco_folder import make_folder
from yolopose import decode as decode_module
from yolopose import export_graph, standalone
from yolopose.checkpoints import save_state, save_weights
from yolopose.config import EvaluateConfig, Study, load_study, load_variants
from yolopose.data.coco import CocoDataset, load_dataset
from yolopose.data.letterbox import letterbox
from yolopose.decode import Poses, decode
from yolopose.errors import StudyError
from yolopose.export import (
    MAP_NAMES,
    export_model,
    export_network,
    export_study,
    export_weights,
    run_alone,
    summary,
)
from yolopose.export_parity import OnnxModel, TorchModel, compare_people, is_near_tie, match_people, measure_parity
from yolopose.models.yolov5 import YOLOPose, build_model
from yolopose.onnx_network import OnnxNetwork
from yolopose.results import file_sha256, read_json, write_json

SCRIPT = Path(standalone.__file__)
NAMES = ["nose", "left_eye", "right_eye"]
SCHEMA = {"names": NAMES, "sigmas": [0.026, 0.025, 0.025], "flip_indices": [0, 2, 1], "skeleton": [[0, 1], [0, 2]],
          "category_id": 1}
ABOUT = {"input_size": 128, "schema": SCHEMA, "about": {"experiment": "s6", "profile": "smoke", "seed": 0}}
CFG = EvaluateConfig(confidence=0.3, max_detections=100)


def lively_model(name: str = "yolov5s6_pose", keypoints: int = 3, width: float = 0.125) -> YOLOPose:
    """Random weights whose raw outputs vary from place to place about as a trained model's do.

    Plain random features fade from layer to layer; a gain keeps them alive, and each row of the head's last
    convolutions is scaled to a standard deviation of 1.5 (boxes) or 1 (keypoints) about zero.
    """
    model = build_model(load_variants()[name], keypoints, width, seed=0).eval()
    features: list[torch.Tensor] = []
    hook = model.detect.register_forward_pre_hook(lambda _, inputs: features.extend(inputs[0]))
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight *= 2.6
        model(torch.rand(4, 3, 256, 256, generator=torch.Generator().manual_seed(1)))
        hook.remove()
        for branches, spread in ((model.detect.m, 1.5), (model.detect.m_kpt, 1.0)):
            for branch, feature in zip(branches, features, strict=True):
                last = branch[-1] if isinstance(branch, nn.Sequential) else branch
                last.weight *= (spread / branch(feature).std((0, 2, 3))).clamp(max=100).view(-1, 1, 1, 1)
                last.bias -= branch(feature).mean((0, 2, 3))
    return model


def noise(*shape: int, seed: int = 2) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=["yolov5s6_pose", "yolov5s6_pose_faithful", "yolov5s6_pose_ti_lite"])
def exported(request, tmp_path_factory) -> tuple[YOLOPose, Path]:
    """A model of each head and stem, and its file."""
    model = lively_model(request.param)
    return model, export_model(model, ABOUT, tmp_path_factory.mktemp("export") / "model.onnx", weights_sha256="ab" * 32)


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """The file of the repaired head."""
    return export_model(lively_model(), ABOUT, tmp_path_factory.mktemp("export") / "model.onnx")


# --- the same people as PyTorch --------------------------------------------------------------------------------------

@pytest.mark.parametrize("shape", [(1, 3, 128, 128), (3, 3, 128, 128), (2, 3, 128, 192), (1, 3, 64, 64)])
def test_people_are_pytorchs_at_any_size_and_batch(exported, shape):
    model, path = exported
    images = noise(*shape)
    ours, theirs = TorchModel(model, CFG)(images), OnnxModel(path, CFG)(images)
    result = compare_people(ours, theirs, CFG)
    assert result["people"] > 5 * shape[0] and result["holds"] and result["near_ties"] == 0, result
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.scores, b.scores, atol=1e-5, rtol=0)  # and in the same order, best first


@pytest.mark.parametrize("cfg", [CFG, replace(CFG, confidence=0.001, max_detections=300), replace(CFG, nms_iou=0.2),
                                 replace(CFG, max_detections=2)], ids=["default", "evaluation", "iou", "few"])
def test_thresholds_are_inputs(file, cfg):
    images = noise(2, 3, 128, 128)
    result = compare_people(TorchModel(lively_model(), cfg)(images), OnnxModel(file, cfg)(images), cfg)
    assert result["holds"], result
    if cfg.max_detections == 2:
        assert result["people"] == 4


def test_thresholds_have_defaults(file):
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == ["images"]
    images = noise(1, 3, 128, 128)
    defaults = EvaluateConfig(confidence=0.25, nms_iou=0.65, max_detections=300)
    boxes = session.run(["boxes_xyxy"], {"images": images.numpy()})[0]
    assert len(boxes) == len(OnnxModel(file, defaults)(images)[0]) > 0


def test_only_the_best_candidates_are_suppressed(monkeypatch, tmp_path):
    """The cut to the best candidates, 30,000 of them in earnest, leaves the same people here and there."""
    for module in (decode_module, export_graph):
        monkeypatch.setattr(module, "MAX_CANDIDATES", 40)
    model, images = lively_model(), noise(2, 3, 128, 128)
    cfg = replace(CFG, confidence=0.01)
    path = export_model(model, ABOUT, tmp_path / "m.onnx")
    ours, theirs = TorchModel(model, cfg)(images), OnnxModel(path, cfg)(images)
    assert compare_people(ours, theirs, cfg)["holds"] and max(map(len, ours)) <= 40


def test_nobody_in_the_image(exported):
    for images in (noise(2, 3, 64, 64), torch.zeros(2, 3, 64, 64, dtype=torch.uint8)):
        found = OnnxModel(exported[1], replace(CFG, confidence=0.9999999))(images)
        assert [len(poses) for poses in found] == [0, 0] and found[0].keypoints.shape == (0, 3, 3)


def test_real_images_at_the_scale_of_mini(shared, tmp_path):
    split = load_dataset(shared / "data" / "coco-real").val
    model = lively_model(keypoints=17, width=0.5)
    about = ABOUT | {"schema": split.schema.as_dict()}
    path = export_model(model, about, tmp_path / "m.onnx")
    measured = measure_parity(model, path, split, 128, replace(CFG, confidence=0.001, max_detections=300), 24)
    assert measured["parity"]["people"] > 200 and measured["parity"]["holds"], measured
    assert measured["parity"]["images"] == 24 and measured["seconds_per_image"]["onnxruntime"] > 0


# --- how two lists of people are compared ----------------------------------------------------------------------------

def people(*rows: tuple[float, float, float]) -> Poses:
    """40 × 80 px persons from (left, score, x of the only joint)."""
    boxes = torch.tensor([[left, 0.0, left + 40, 80] for left, _, _ in rows]).reshape(-1, 4)
    return Poses(boxes, torch.tensor([score for _, score, _ in rows]),
                 torch.tensor([[[x, 10.0, 0.5]] for _, _, x in rows]).reshape(-1, 1, 3))


def test_order_does_not_matter_but_positions_do():
    ours, theirs = people((0, 0.9, 5), (100, 0.8, 105)), people((100, 0.8, 105.004), (0, 0.9, 5))
    assert match_people(ours, theirs) == [(0, 1), (1, 0)]
    result = compare_people([ours], [theirs], CFG)
    assert result["holds"] and result["largest_difference"]["keypoints_px"] == pytest.approx(0.004, abs=1e-5)
    assert not compare_people([ours], [people((0, 0.9, 5), (100, 0.8, 105.5))], CFG)["holds"]


def test_a_missing_person_is_a_difference_unless_a_last_digit_explains_it():
    ours = people((0, 0.9, 5), (100, 0.8, 105))
    result = compare_people([ours], [people((0, 0.9, 5))], CFG)
    assert (result["same_people"], result["other_differences"], result["holds"]) == (1, 1, False)
    assert is_near_tie(people((0, 0.30002, 5)), 0, people(), CFG)  # at the confidence threshold of 0.3
    assert not is_near_tie(people((0, 0.31, 5)), 0, people(), CFG)
    few = replace(CFG, max_detections=1)
    assert is_near_tie(people((0, 0.8, 5)), 0, people((200, 0.80005, 205)), few)  # the last place of a full list
    assert not is_near_tie(people((0, 0.9, 5)), 0, people((200, 0.8, 205)), few)
    # 40 px wide boxes shifted by 40·0.35/1.65 px overlap by 0.65 exactly: the NMS threshold
    assert is_near_tie(people((0, 0.5, 5)), 0, people((40 * 0.35 / 1.65, 0.9, 5)), CFG)
    assert is_near_tie(people((0, 0.5, 5)), 0, people((3, 0.50005, 5)), CFG)  # tied scores: either suppresses the other
    assert not is_near_tie(people((0, 0.5, 5)), 0, people((3, 0.9, 5)), CFG)


# --- the network alone, for quantization -----------------------------------------------------------------------------

@pytest.mark.parametrize("size", [None, 128])
def test_the_network_alone_decodes_to_the_same(exported, tmp_path, size):
    model = exported[0]
    path = export_network(model, tmp_path / "net.onnx", size)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [o.name for o in session.get_outputs()] == list(MAP_NAMES)
    assert session.get_inputs()[0].shape == ["batch", 3, *((size, size) if size else ("height", "width"))]
    images = noise(2, 3, 128, 128 if size else 192).float() / 255
    assert [o.shape[1] for o in session.get_outputs()] == [18, 27] * 4  # A·6 and A·3K channels
    with torch.no_grad():
        wanted = decode(model(images), model.detect)
    found = decode(OnnxNetwork(path, model.detect)(images), model.detect)
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-4)


def test_every_convolution_of_a_fresh_network_reads_its_own_constants(tmp_path):
    """Equal biases are shared by the exporter through Identity nodes, which a quantizer would not look through."""
    model = build_model(load_variants()["yolov5s6_pose"], 3, 0.125, seed=0)
    graph = onnx.load(export_network(model, tmp_path / "net.onnx")).graph
    stored = {tensor.name for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) == sum(isinstance(m, nn.Conv2d) for m in model.modules())
    assert all(name in stored for node in convolutions for name in node.input[1:])


# --- what the file is and says ---------------------------------------------------------------------------------------

def test_standard_operators_alone_and_metadata(exported):
    model, path = exported
    loaded = onnx.load(path)
    assert [(entry.domain, entry.version) for entry in loaded.opset_import] == [("", 17)]
    assert list(export_graph.operators(loaded)) == ["ai.onnx"]
    assert "NonMaxSuppression" in export_graph.operators(loaded)["ai.onnx"]
    about = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    assert about["variant"] == model.variant.name and about["head"] == model.detect.layout
    assert json.loads(about["keypoints"]) == NAMES and json.loads(about["skeleton"]) == SCHEMA["skeleton"]
    assert json.loads(about["sigmas"]) == SCHEMA["sigmas"]
    assert {k: about[k] for k in ("experiment", "input_size", "opset", "weights_sha256", "licence", "confidence",
                                  "nms_iou", "max_detections")} == {
        "experiment": "s6", "input_size": "128", "opset": "17", "weights_sha256": "ab" * 32, "licence": "Apache-2.0",
        "confidence": "0.25", "nms_iou": "0.65", "max_detections": "300"}
    shapes = {o.name: o.shape for o in onnxruntime.InferenceSession(path).get_outputs()}
    assert shapes == {"image_index": ["people"], "boxes_xyxy": ["people", 4], "scores": ["people"],
                      "keypoints": ["people", 3, 3]}


def test_the_same_model_gives_the_same_bytes_and_stays_as_it_was(tmp_path):
    model = lively_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = (export_model(model, ABOUT, tmp_path / name).read_bytes() for name in ("a.onnx", "b.onnx"))
    assert first == second
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)


# --- bad input -------------------------------------------------------------------------------------------------------

def test_a_person_detector_is_refused(tmp_path):
    model = build_model(load_variants()["yolov5s6_person"], 3, 0.125)
    for action in (lambda: export_model(model, ABOUT, tmp_path / "m.onnx"),
                   lambda: export_network(model, tmp_path / "m.onnx")):
        with pytest.raises(StudyError, match="yolov5s6_person: a model without keypoints"):
            action()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("size", "words"), [(32, "below the largest stride, 64 px"), (0, "below the largest stride"),
                                             (100, "no multiple of the largest stride, 64 px; give 64 or 128")])
def test_a_wrong_size_is_refused(tmp_path, size, words):
    model = lively_model()
    with pytest.raises(StudyError, match=words):
        export_network(model, tmp_path / "m.onnx", size)
    with pytest.raises(StudyError, match=words):
        export_model(model, ABOUT, tmp_path / "m.onnx", input_size=size)


def test_a_default_out_of_range_is_refused(tmp_path):
    for option in ({"confidence": 1.5}, {"nms_iou": -0.1}, {"max_detections": 0}, {"confidence": float("nan")}):
        with pytest.raises(StudyError, match=f"{next(iter(option))}="):
            export_model(lively_model(), ABOUT, tmp_path / "m.onnx", **option)


def test_a_file_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "weights.pt").write_text("no weights")
    with pytest.raises(StudyError, match="is not a file of plain tensors"):
        export_weights(tmp_path / "weights.pt", tmp_path / "m.onnx")
    save_state(tmp_path / "other.pt", {"format": "something else"})
    with pytest.raises(StudyError, match="format is 'something else'"):
        export_weights(tmp_path / "other.pt", tmp_path / "m.onnx")
    with pytest.raises(StudyError, match="not found"):
        export_weights(tmp_path / "absent.pt", tmp_path / "m.onnx")
    detector = build_model(load_variants()["yolov5s6_person"], 0, 0.125)
    save_weights(tmp_path / "person.pt", detector, 0.125, 64, SCHEMA, {})
    with pytest.raises(StudyError, match=r"person\.pt: yolov5s6_person: a model without keypoints"):
        export_weights(tmp_path / "person.pt", tmp_path / "m.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"broken")
    with pytest.raises(StudyError, match="broken.onnx: is no ONNX model"):
        OnnxModel(tmp_path / "broken.onnx", CFG)


# --- a study's export ------------------------------------------------------------------------------------------------

@pytest.fixture
def trained(tmp_path) -> tuple[Study, CocoDataset]:
    """A study whose s6 has weights and a record, without having been trained."""
    dataset = load_dataset(make_folder(tmp_path / "tiny", images=4))
    study = load_study("smoke", results=tmp_path / "results")
    study = replace(study, profile=replace(study.profile, width_factor=0.125, sizes={960: 64}))
    run = study.run("s6", 0)
    folder = study.run_dir("s6", 0)
    save_weights(folder / "weights.pt", lively_model(), 0.125, 64, dataset.schema.as_dict(), ABOUT["about"])
    write_json(folder / "run.json", {"config_hash": run.hash, "data_fingerprint": dataset.fingerprint,
                                     "weights_sha256": file_sha256(folder / "weights.pt")})
    return study, dataset


def test_a_study_exports_what_is_trained_and_only_once(trained):
    study, dataset = trained
    rows = export_study(study, dataset)
    assert [row["experiment"] for row in rows] == ["s6"]
    assert rows == read_json(study.results_dir / "export.json")["models"]
    row, path = rows[0], study.results_dir / "export" / "s6.onnx"
    assert row["file"] == "export/s6.onnx" and row["sha256"] == file_sha256(path) and row["opset"] == 17
    assert row["size_mib"] == pytest.approx(path.stat().st_size / 2**20, abs=1e-3)
    assert row["parity"]["holds"] and row["parity"]["images"] == 4 and list(row["operators"]) == ["ai.onnx"]
    assert {"git", "packages", "hardware"} <= set(row)
    brief = summary(rows)[0]
    assert (brief["same"], brief["others"]) == (row["parity"]["people"], 0)
    assert float(brief["keypoints_px"]) < 0.01 and float(brief["PyTorch_ms"]) > 0
    stamp = path.stat().st_mtime_ns
    assert export_study(study, dataset) == rows and path.stat().st_mtime_ns == stamp
    path.write_bytes(b"damaged")
    assert export_study(study, dataset)[0]["sha256"] == row["sha256"] == file_sha256(path)


def test_a_study_without_trained_runs_says_so(trained):
    study, dataset = trained
    with pytest.raises(StudyError, match="neither of s6, s6_relu is trained there with seed 3"):
        export_study(replace(study, seeds=(3,)), dataset)


def test_weights_of_other_data_are_refused(trained):
    study, dataset = trained
    with pytest.raises(StudyError, match="data fingerprint"):
        export_study(study, replace(dataset, fingerprint="other"))


# --- the file alone --------------------------------------------------------------------------------------------------

def test_standalone_imports_nothing_but_three_packages():
    roots = set()
    for node in ast.walk(ast.parse(SCRIPT.read_text())):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            roots.add(node.module.split(".")[0])
    assert roots - sys.stdlib_module_names == {"numpy", "onnxruntime", "PIL"}


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([64, 128, 192]), st.integers(0, 9))
def test_its_letterbox_is_the_librarys_to_one_grey_level(width, height, size, seed):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    wanted, box = letterbox(image, size)
    found, (scale, offset) = standalone.letterbox(image, size)
    assert np.abs(wanted.astype(int) - found).max() <= 1
    np.testing.assert_array_equal(scale, box.scale)
    assert offset.tolist() == [box.left, box.top]


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Path:
    """An empty folder with the script, and beside it a ``site`` that holds numpy, Pillow and onnxruntime alone."""
    folder = tmp_path_factory.mktemp("bare")
    shutil.copy(SCRIPT, folder / "standalone.py")
    (folder / "site").mkdir()
    for module in (np, Image, onnxruntime):
        package = Path(module.__file__).parent
        for path in package.parent.iterdir():  # the package and the shared libraries that some wheels keep beside it
            if path.name.lower() in {package.name.lower(), f"{package.name.lower()}.libs",
                                     "pillow.libs" if package.name == "PIL" else ""}:
                os.symlink(path, folder / "site" / path.name)
    for name, size in (("wide.png", (150, 60)), ("tiny.png", (5, 7)), ("square.jpg", (128, 128))):
        picture = np.random.default_rng(3).integers(0, 256, (size[1], size[0], 3), np.uint8)
        (folder / "photos").mkdir(exist_ok=True)
        Image.fromarray(picture).save(folder / "photos" / name)
    return folder


def alone(bare: Path, *words: str | Path, code: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the script in a Python without site-packages (-S) and environment (-I) but for ``site``."""
    code = code or "import runpy; runpy.run_path('standalone.py', run_name='__main__')"
    head = "import sys; sys.path.insert(0, 'site'); "
    return subprocess.run([sys.executable, "-I", "-S", "-c", head + code, *map(str, words)], cwd=bare,
                          capture_output=True, text=True, timeout=120)


def test_the_bare_environment_is_bare(bare):
    for name in ("torch", "yolopose", "onnx", "cv2"):
        assert "No module named" in alone(bare, code=f"import {name}").stderr
    done = alone(bare, code="sys.path[0] = 'nowhere'; import runpy; runpy.run_path('standalone.py')")
    assert done.stderr == "error: numpy is not installed; pip install onnxruntime numpy pillow\n"


def test_it_prints_and_draws_the_people_that_pytorch_finds(bare, file):
    done = alone(bare, file, "photos/wide.png", "out.png", "--confidence", "0.5", "--max-detections", "5")
    assert done.returncode == 0 and not done.stderr, done.stderr
    lines = done.stdout.splitlines()
    square, box = letterbox(np.asarray(Image.open(bare / "photos" / "wide.png")), 128)
    images = torch.from_numpy(square.transpose(2, 0, 1))[None]
    ours = TorchModel(lively_model(), replace(CFG, confidence=0.5))(images)[0]
    assert lines[0] == "photos/wide.png: 5 people in 150x60 px" and len(ours) > 5
    best = box.invert(ours.boxes_xyxy[0].reshape(2, 2).numpy(), clip=True).ravel()
    printed = [float(v) for v in lines[1].split("box ")[1].split()]
    np.testing.assert_allclose(printed, best, atol=1.0)  # the letterboxes differ by a grey level here and there
    assert lines[2].split()[0] == "nose"
    with Image.open(bare / "out.png") as drawn:
        assert drawn.size == (600, 240)  # enlarged by 4, to be readable


def test_it_takes_a_folder_of_photos(bare, file):
    done = alone(bare, file, "photos", "drawn")
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (bare / "drawn").iterdir()) == ["square.png", "tiny.png", "wide.png"]
    assert [line.split(":")[0] for line in done.stdout.splitlines() if line.startswith("photos")] == [
        "photos/square.jpg", "photos/tiny.png", "photos/wide.png"]


def test_nobody_in_the_photo_is_a_result(bare, file):
    done = alone(bare, file, "photos/tiny.png", "none.png", "--confidence", "1")
    assert done.returncode == 0 and done.stdout == "photos/tiny.png: no people in 5x7 px\n"
    with Image.open(bare / "none.png") as drawn:
        assert drawn.size == (345, 483)


def test_what_the_user_can_mend_is_one_line(bare, file, tmp_path):
    (tmp_path / "text.onnx").write_text("no model")
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty").mkdir()
    export_network(lively_model(), tmp_path / "network.onnx", 64)
    photo = bare / "photos" / "square.jpg"
    for words, message in (
        (("absent.onnx", photo, "o.png"), "absent.onnx: no such file"),
        ((tmp_path / "text.onnx", photo, "o.png"), "text.onnx: is not an ONNX model"),
        ((tmp_path / "empty.onnx", photo, "o.png"), "empty.onnx: is "),
        ((tmp_path / "network.onnx", photo, "o.png"), "network.onnx: is an ONNX model without this project's metadata"),
        ((file, "absent.jpg", "o.png"), "absent.jpg: no such file"),
        ((file, tmp_path / "text.png", "o.png"), "text.png: cannot be read as an image"),
        ((file, tmp_path / "empty", "o"), "has no photo"),
        ((file, photo, photo), "is the photo itself"),
        ((file, photo, "o.xyz"), "is not the name of a picture"),
        ((file, photo, "o.png", "--size", "100"), "--size 100: must be a multiple of 64 px"),
        ((file, photo, "o.png", "--confidence", "2"), "--confidence 2.0: must be between 0 and 1"),
    ):
        done = alone(bare, *words)
        assert done.returncode == 2 and done.stderr.startswith("error: "), (words, done.stderr)
        assert message in done.stderr and done.stderr.count("\n") == 1, (words, done.stderr)


def test_the_notebooks_call_runs_the_script_in_a_process_of_its_own(bare, file, tmp_path):
    text = run_alone(file, bare / "photos" / "tiny.png", tmp_path / "out.png", confidence=1.0)
    assert text.endswith("no people in 5x7 px\n") and (tmp_path / "out.png").is_file()
    with pytest.raises(StudyError, match="absent.jpg: no such file"):
        run_alone(file, "absent.jpg", tmp_path / "out.png")
