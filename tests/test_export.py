"""ONNX export: the file does what the model does and says what it is; bad input is refused."""

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from tests.lively import ABOUT, CFG, NAMES, SCHEMA, SHALLOW, lively_model, noise, pretend_trained
from yolopose.data.coco import load_dataset
from yolopose.export import graph
from yolopose.export.graph import MAP_NAMES, OnnxNetwork
from yolopose.export.onnx_file import export_model, export_network, export_study, export_weights, parity_rows
from yolopose.export.parity import OnnxModel, TorchModel, compare_people, is_near_tie, measure_parity, same_people
from yolopose.models import decode as decode_module
from yolopose.models.checkpoints import save_weights
from yolopose.models.decode import Poses, decode
from yolopose.models.heads import LAYOUTS
from yolopose.models.yolov5 import YOLOPose, build_model
from yolopose.study.config import EvaluateConfig, load_study, load_variants
from yolopose.utils.errors import StudyError
from yolopose.utils.files import file_sha256, read_json

# The variants that differ from the first, of the repaired head, in their head or their stem.
VARIANTS = ("yolov5s6_pose", "yolov5s6_pose_faithful", "yolov5s6_pose_mixed_layout", "yolov5s6_pose_misplaced_priors",
            "yolov5s6_pose_ti_lite")


@pytest.fixture(scope="module", params=VARIANTS)
def exported(request, tmp_path_factory) -> tuple[YOLOPose, Path]:
    """A model of each head and stem, and its file."""
    model = lively_model(request.param, **SHALLOW)
    return model, export_model(model, ABOUT, tmp_path_factory.mktemp("export") / "model.onnx", weights_sha256="ab" * 32)


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
def test_thresholds_are_inputs(pose_file, cfg):
    images = noise(2, 3, 128, 128)
    result = compare_people(TorchModel(lively_model(), cfg)(images), OnnxModel(pose_file, cfg)(images), cfg)
    assert result["holds"], result
    if cfg.max_detections == 2:
        assert result["people"] == 4


def test_only_the_best_candidates_are_suppressed(monkeypatch, tmp_path):
    for module in (decode_module, graph):
        monkeypatch.setattr(module, "MAX_CANDIDATES", 40)  # 30,000 in earnest
    model, images, cfg = lively_model(**SHALLOW), noise(2, 3, 128, 128), replace(CFG, confidence=0.01)
    path = export_model(model, ABOUT, tmp_path / "m.onnx")
    ours, theirs = TorchModel(model, cfg)(images), OnnxModel(path, cfg)(images)
    assert compare_people(ours, theirs, cfg)["holds"] and max(map(len, ours)) <= 40


def test_nobody_in_the_image(exported):
    for images in (noise(2, 3, 64, 64), torch.zeros(2, 3, 64, 64, dtype=torch.uint8)):
        found = OnnxModel(exported[1], replace(CFG, confidence=0.9999999))(images)
        assert [len(poses) for poses in found] == [0, 0] and found[0].keypoints.shape == (0, 3, 3)


def test_real_images_at_the_scale_of_mini(shared, tmp_path):
    split = load_dataset(shared / "data" / "coco-real").val
    model = lively_model(keypoints=17, width=0.25, **SHALLOW)
    path = export_model(model, ABOUT | {"schema": split.schema.as_dict()}, tmp_path / "m.onnx")
    measured = measure_parity(model, path, split, 128, replace(CFG, confidence=0.001, max_detections=300), 24)
    assert measured["parity"]["people"] > 200 and measured["parity"]["holds"], measured
    assert measured["parity"]["images"] == 24 and measured["seconds_per_image"]["onnxruntime"] > 0


def people(*rows: tuple[float, float, float]) -> Poses:
    """40 × 80 px persons from (left, score, x of the only joint)."""
    boxes = torch.tensor([[left, 0.0, left + 40, 80] for left, _, _ in rows]).reshape(-1, 4)
    return Poses(boxes, torch.tensor([score for _, score, _ in rows]),
                 torch.tensor([[[x, 10.0, 0.5]] for _, _, x in rows]).reshape(-1, 1, 3))


def test_order_does_not_matter_but_positions_and_missing_people_do_unless_a_last_digit_explains_them():
    ours, theirs = people((0, 0.9, 5), (100, 0.8, 105)), people((100, 0.8, 105.004), (0, 0.9, 5))
    assert same_people(ours, theirs) == [(0, 1), (1, 0)]
    result = compare_people([ours], [theirs], CFG)
    assert result["holds"] and result["largest_difference"]["keypoints_px"] == pytest.approx(0.004, abs=1e-5)
    assert not compare_people([ours], [people((0, 0.9, 5), (100, 0.8, 105.5))], CFG)["holds"]
    result = compare_people([ours], [people((0, 0.9, 5))], CFG)
    assert (result["same_people"], result["other_differences"], result["holds"]) == (1, 1, False)
    few = replace(CFG, max_detections=1)
    for score, others, cfg, tie in (
            (0.30002, (), CFG, True), (0.31, (), CFG, False),  # at the confidence threshold of 0.3
            (0.8, [(200, 0.80005, 205)], few, True), (0.9, [(200, 0.8, 205)], few, False),  # last place of a full list
            # 40 px wide boxes shifted by 40·0.35/1.65 px overlap by 0.65 exactly: the NMS threshold
            (0.5, [(40 * 0.35 / 1.65, 0.9, 5)], CFG, True),
            # tied scores: either suppresses the other
            (0.5, [(3, 0.50005, 5)], CFG, True), (0.5, [(3, 0.9, 5)], CFG, False)):
        assert is_near_tie(people((0, score, 5)), 0, people(*others), cfg) == tie, (score, others)


@pytest.mark.parametrize("size", [None, 128])
def test_the_network_alone_gives_the_same_in_every_head(exported, tmp_path, size):
    model = exported[0]
    path = export_network(model, tmp_path / "net.onnx", size)
    session = graph.open_session(path)
    assert [o.name for o in session.get_outputs()] == list(MAP_NAMES)
    assert session.get_inputs()[0].shape == ["batch", 3, *((size, size) if size else ("height", "width"))]
    assert [o.shape[1] for o in session.get_outputs()] == [18, 27] * 4  # A·6 and A·3K channels
    images = noise(2, 3, 128, 128 if size else 192).float() / 255
    with torch.no_grad():
        wanted = model(images)
    found = OnnxNetwork(path, model.detect)(images)
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(decode(found, model.detect), decode(wanted, model.detect), atol=1e-3, rtol=1e-4)


def test_every_convolution_of_a_fresh_network_reads_its_own_constants(tmp_path):
    """Equal biases are shared by the exporter through Identity nodes, which a quantizer would not look through."""
    model = build_model(load_variants()["yolov5s6_pose"], 3, 0.125, seed=0)
    graph = onnx.load(export_network(model, tmp_path / "net.onnx")).graph
    stored = {tensor.name for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) == sum(isinstance(m, nn.Conv2d) for m in model.modules())
    assert all(name in stored for node in convolutions for name in node.input[1:])


def test_standard_operators_alone_metadata_and_default_thresholds(exported):
    assert {load_variants()[name].head for name in VARIANTS} == set(LAYOUTS) - {"person"}
    model, path = exported
    loaded = onnx.load(path)
    used = graph.operators(loaded)
    assert [(entry.domain, entry.version) for entry in loaded.opset_import] == [("", 17)]
    assert list(used) == ["ai.onnx"] and "NonMaxSuppression" in used["ai.onnx"]
    session = graph.open_session(path)
    about = session.get_modelmeta().custom_metadata_map
    assert [json.loads(about[key]) for key in ("keypoints", "skeleton", "sigmas")] == [
        NAMES, SCHEMA["skeleton"], SCHEMA["sigmas"]]
    assert about.items() >= {
        "variant": model.variant.name, "head": model.detect.layout, "experiment": "s6", "input_size": "128",
        "opset": "17", "weights_sha256": "ab" * 32, "licence": "Apache-2.0", "confidence": "0.25", "nms_iou": "0.65",
        "max_detections": "300"}.items()
    assert {o.name: o.shape for o in session.get_outputs()} == {
        "image_index": ["people"], "boxes_xyxy": ["people", 4], "scores": ["people"], "keypoints": ["people", 3, 3]}
    assert [i.name for i in session.get_inputs()] == ["images"]  # thresholds have defaults
    defaults, images = EvaluateConfig(confidence=0.25, nms_iou=0.65, max_detections=300), noise(1, 3, 128, 128)
    boxes = session.run(["boxes_xyxy"], {"images": images.numpy()})[0]
    assert len(boxes) == len(OnnxModel(path, defaults)(images)[0]) > 0


def test_the_same_model_gives_the_same_bytes_and_stays_as_it_was(pose_file, tmp_path):
    model = lively_model()
    before = deepcopy(model.state_dict())
    assert export_model(model, ABOUT, tmp_path / "again.onnx").read_bytes() == pose_file.read_bytes()
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_a_person_detector_and_a_wrong_size_are_refused(tmp_path):
    person, pose = (build_model(load_variants()[f"yolov5s6_{name}"], keypoints, 0.125)
                    for name, keypoints in (("person", 0), ("pose", 3)))
    for model, size, words in ((person, 128, "yolov5s6_person: a model without keypoints"),
                               (pose, 32, "below the largest stride, 64 px"), (pose, 0, "below the largest stride"),
                               (pose, 100, "no multiple of the largest stride, 64 px; give 64 or 128")):
        with pytest.raises(StudyError, match=words):
            export_network(model, tmp_path / "m.onnx", size)
        with pytest.raises(StudyError, match=words):
            export_model(model, ABOUT | {"input_size": size}, tmp_path / "m.onnx")
    save_weights(tmp_path / "person.pt", person, 0.125, 64, SCHEMA, {})
    with pytest.raises(StudyError, match=r"person\.pt: yolov5s6_person: a model without keypoints"):
        export_weights(tmp_path / "person.pt", tmp_path / "m.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["person.pt"]


def test_a_study_exports_what_is_trained_and_only_once(tmp_path, tiny_data):
    dataset = replace(tiny_data, val=tiny_data.val.subset(range(4)))
    study = load_study("smoke", results=tmp_path / "results")
    study = replace(study, profile=replace(study.profile, width_factor=0.125, sizes={960: 64}))
    with pytest.raises(StudyError, match="neither of s6, s6_relu is trained there with seed 0"):
        export_study(study, dataset)
    pretend_trained(study, dataset, "s6", lively_model(**SHALLOW))
    with pytest.raises(StudyError, match="data fingerprint"):
        export_study(study, replace(dataset, fingerprint="other"))
    rows = export_study(study, dataset)
    assert [row["experiment"] for row in rows] == ["s6"]
    assert rows == read_json(study.results_dir / "export.json")["models"]
    row, path = rows[0], study.results_dir / "export" / "s6.onnx"
    assert row["file"] == "export/s6.onnx" and row["sha256"] == file_sha256(path) and row["opset"] == 17
    assert row["size_mib"] == pytest.approx(path.stat().st_size / 2**20, abs=1e-3)
    assert row["parity"]["holds"] and row["parity"]["images"] == 4 and list(row["operators"]) == ["ai.onnx"]
    assert {"git", "packages", "hardware"} <= set(row)
    brief = parity_rows(rows)[0]
    assert (brief["same"], brief["others"]) == (row["parity"]["people"], 0)
    assert float(brief["keypoints_px"]) < 0.01 and float(brief["PyTorch_ms"]) > 0
    stamp = path.stat().st_mtime_ns
    assert export_study(study, dataset) == rows and path.stat().st_mtime_ns == stamp
    path.write_bytes(b"damaged")
    assert export_study(study, dataset)[0]["sha256"] == row["sha256"] == file_sha256(path)
    for damaged in ("no JSON", "[]", '{"models": 5}', '{"models": [5, {"experiment": "s6"}]}'):
        (study.results_dir / "export.json").write_text(damaged)
        assert export_study(study, dataset)[0]["sha256"] == row["sha256"], damaged
        assert [r["experiment"] for r in read_json(study.results_dir / "export.json")["models"]] == ["s6"]
