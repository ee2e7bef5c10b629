"""Post-training quantization: layers, scales, sensitivities, files, the study's record, and what it refuses."""

import shutil
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from tests.lively import SHALLOW, pretend_trained
from yolopose.data.coco import CocoDataset
from yolopose.export import quantize, quantized_run
from yolopose.export import quantize_graph as qdq
from yolopose.export.graph import MAP_NAMES, OnnxNetwork, open_session
from yolopose.export.quantize import compare_speed, quantize_study, share_recovered
from yolopose.export.quantize_graph import OPSET, Scheme, list_layers
from yolopose.export.quantized_run import SPLITS, choose_images
from yolopose.models.yolov5 import build_model
from yolopose.report.figures.quantization import draw_quantization
from yolopose.report.measured import ResultSet, load_quantization, load_results
from yolopose.report.quantities import Missing, read_number
from yolopose.study.config import Study, load_study, load_variants
from yolopose.utils.errors import StudyError
from yolopose.utils.files import file_sha256, read_json, write_json

LAYERS = ("a", "b", "c")
PICTURES = (np.random.default_rng(1).integers(0, 256, (8, 3, 4, 4)) / 255).astype(np.float32)  # pixels in [0, 1]
SMALL = """<ir_version: 10, opset_import: ["": 17]>
small (float[1, 3, 4, 4] images) => (float[1, 5, 4, 4] out) {
    [a] a_conv = Conv <kernel_shape = [1, 1]> (images)
    [a_relu] a_out = Relu (a_conv)
    [b] b_conv = Conv <group = 2, kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (a_out)
    [b_sigmoid] b_sigmoid = Sigmoid (b_conv)
    [b_mul] b_out = Mul (b_conv, b_sigmoid)
    [pool] pooled = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (a_out)
    [concat] joined = Concat <axis = 1> (b_out, pooled)
    [c] out = Conv <kernel_shape = [1, 1]> (joined)
}"""


@pytest.fixture(scope="module")
def graph() -> onnx.ModelProto:
    rng, model = np.random.default_rng(0), onnx.parser.parse_model(SMALL)
    for name, shape in (("a", (2, 3, 1, 1)), ("b", (2, 1, 3, 3)), ("c", (5, 4, 1, 1))):
        for part, size in ((f"{name}.weight", shape), (f"{name}.bias", shape[:1])):
            values = rng.normal(size=size).astype(np.float32)
            model.graph.initializer.append(numpy_helper.from_array(values, part))
            next(node for node in model.graph.node if node.name == name).input.append(part)
    return onnx.shape_inference.infer_shapes(model)


@pytest.fixture(scope="module")
def quantized_graph(graph) -> Any:
    """The graph by a scheme, with wide layers."""
    return partial(qdq.quantize_graph, graph, qdq.calibrate(graph, iter(PICTURES)), list_layers(graph))


def stored(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def output(model: onnx.ModelProto) -> np.ndarray:
    """Node by node: the 8-bit kernels into which onnxruntime fuses them saturate where the processor lacks VNNI."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": PICTURES[:1]})[0]


def error(model: onnx.ModelProto, graph: onnx.ModelProto) -> float:
    return float(np.abs(output(model) - output(graph)).max())


def test_layers_are_convolutions_with_their_activation_and_the_rest_passes_on_the_widest_precision(graph):
    layers = list_layers(graph)
    assert [layer.name for layer in layers] == list(LAYERS)
    assert [layer.outputs for layer in layers] == [("a_conv", "a_out"), ("b_conv", "b_sigmoid", "b_out"), ("out",)]
    assert [layer.macs for layer in layers] == [3 * 2 * 16, 9 * 2 * 16, 4 * 5 * 16]
    for wide, expected in (((), set()), (("a",), {"a_conv", "a_out", "pooled", "joined"}),
                           (("b",), {"b_conv", "b_sigmoid", "b_out", "joined"}), (("c",), {"out"})):
        assert qdq.wide_tensors(graph, layers, wide) == (expected, {"images"}), wide


def test_ranges_are_the_smallest_and_largest_values(graph):
    ranges = qdq.calibrate(graph, iter(PICTURES))
    assert float(ranges["images"].range_value[1].max()) == PICTURES.max()
    weight, bias = stored(graph)["a.weight"][..., 0, 0], stored(graph)["a.bias"]
    values = np.einsum("oc,nchw->nohw", weight, PICTURES) + bias[:, None, None]
    low, high = (float(np.min(v)) for v in ranges["a_out"].range_value)
    assert (low, high) == (pytest.approx(max(values.min(), 0)), pytest.approx(values.max(), rel=1e-5))


def test_eight_bits(graph, quantized_graph):
    eight = quantized_graph()
    values = stored(eight)
    assert values["images_scale"] == np.float32(1 / 255) and values["images_zero_point"] == 0
    for name in LAYERS:
        weight, scale = stored(graph)[f"{name}.weight"], values[f"{name}.weight_scale"]
        assert values[f"{name}.weight_quantized"].dtype == np.int8 and values[f"{name}.weight_zero_point"] == 0
        assert scale == pytest.approx(np.abs(weight).max() / 127, rel=1e-2)  # onnxruntime divides by 127.5
        np.testing.assert_allclose(values[f"{name}.weight_quantized"] * scale, weight, atol=0.51 * scale)
    assert values["out_zero_point"].dtype == np.uint8
    assert 1e-4 < error(eight, graph) < 0.2


def test_sixteen_bits_are_much_nearer_and_can_be_mixed_with_eight(quantized_graph, graph):
    wide = quantized_graph(wide=LAYERS)
    values, mixed = stored(wide), stored(quantized_graph(wide=["c"]))
    assert values["a.weight_quantized"].dtype == np.int16 and values["out_zero_point"].dtype == np.uint16
    assert values["images_zero_point"].dtype == np.uint8
    assert error(wide, graph) < error(quantized_graph(), graph) / 50
    assert mixed["c.weight_quantized"].dtype == np.int16 and mixed["out_zero_point"].dtype == np.uint16
    assert mixed["a.weight_quantized"].dtype == np.int8 and mixed["joined_zero_point"].dtype == np.uint8


def test_scales_a_channel_and_of_powers_of_two(quantized_graph, graph):
    values = stored(quantized_graph(Scheme(per_channel=True)))
    assert values["c.weight_scale"].shape == (5,) and values["out_scale"].shape == ()
    model = quantized_graph(Scheme(power_of_two=True))
    powers = {name: np.log2(value) for name, value in stored(model).items()
              if name.endswith("_scale") and name != "images_scale" and "bias" not in name}
    assert len(powers) > 6 and all(power == np.round(power) for power in powers.values()), powers
    assert set(int(v) for n, v in stored(model).items() if n.endswith("_zero_point")) <= {0, 128}
    assert error(model, graph) < 0.4


@given(st.floats(-1e4, 0), st.floats(1e-3, 1e4))
@example(0.0, 127.5)
@example(0.0, 128.0)
@example(-127.0, 3.0)
def test_a_power_of_two_scale_covers_the_range_and_is_less_than_twice_too_wide(low, high):
    scale, zero = qdq.power_of_two_scale(low, high)
    reach, limit = (high, 255) if low >= 0 else (max(-low, high), 127)
    assert scale * limit >= reach * (1 - 1e-9) and scale * limit < 2 * reach * (1 + 1e-9)
    assert zero == (0 if low >= 0 else 128) and np.log2(scale) == round(np.log2(scale))


def test_rounding_one_layer_is_what_the_quantizer_does(graph, quantized_graph):
    """With c alone rounded, its output is the 8-bit graph's up to the rounding of the layers before it."""
    (a, _, c), eight = list_layers(graph), quantized_graph()
    values, rounded = stored(eight), output(qdq.round_one_layer(graph, c, eight))
    joined = deepcopy(graph)
    joined.graph.output.extend([helper.make_tensor_value_info("joined", 1, [1, 4, 4, 4])])
    x = open_session(joined.SerializeToString(), 1).run(["joined"], {"images": PICTURES[:1]})[0]
    weight = values["c.weight_quantized"][..., 0, 0] * values["c.weight_scale"]
    y = np.einsum("oc,nchw->nohw", weight, x) + stored(graph)["c.bias"][:, None, None]
    scale, zero = values["out_scale"], float(values["out_zero_point"])
    expected = (np.clip(np.round(y / scale) + zero, 0, 255) - zero) * scale
    np.testing.assert_allclose(rounded, expected, atol=1.01 * scale)
    assert (np.abs(rounded - expected) < 1e-4).mean() > 0.95  # but for ties in rounding
    assert "b_conv_scale" not in stored(qdq.round_one_layer(graph, a, eight))


def test_prediction_distance():
    def anchors(score: float, x: float, second_x: float) -> torch.Tensor:
        """Two decoded anchors with a box of 10 px and one keypoint at (x, 0)."""
        return torch.tensor([[[0, 0, 10, 10, score, 1, x, 0, 1], [0, 0, 10, 10, 0.5, 1, second_x, 0, 1]]])

    for other, expected in (((1.0, 0, 0), 0.0), ((0.8, 0, 0), 0.2**2 / 1.25), ((1.0, 0, 1e6), 0.25 / 1.25),
                            ((1.0, 10, 0), (1 - np.exp(-0.5)) / 1.25)):  # 10 px; variance (2 · 0.5)², area 100
        found = qdq.prediction_distance(anchors(1.0, 0, 0), anchors(*other), np.array([0.5]))
        assert found == pytest.approx(expected, abs=1e-6)


def test_the_most_sensitive_layers_are_chosen():
    values = {"a": 0.1, "b": 3.0, "c": 0.1, "d": float("nan"), "e": 0.2}
    assert qdq.choose_layers(values, 0.6) == ["d", "b", "e"] and qdq.choose_layers(values, 0.8)[-1] == "a"
    assert qdq.choose_layers(values, 0) == [] and set(qdq.choose_layers(values, 1)) == set(values)


def test_the_prepared_graph_is_the_network():
    model = build_model(load_variants()["yolov5s6_pose_relu"], 3, 0.125, seed=0).eval().fuse()
    prepared = qdq.prepare_graph(model, 64)
    assert prepared.opset_import[0].version == OPSET and len(prepared.opset_import) == 1
    layers = list_layers(prepared)
    convolutions = [name for name, m in model.named_modules() if isinstance(m, torch.nn.Conv2d)]
    assert sorted(layer.name for layer in layers) == sorted(convolutions)
    assert {len(layer.outputs) for layer in layers if "m_kpt" not in layer.name} == {1, 2}  # ReLU; the branch has SiLU
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = OnnxNetwork(prepared.SerializeToString(), model.detect)(images)
    torch.testing.assert_close(found, model(images), atol=1e-4, rtol=1e-4)


def test_a_file_that_is_no_network_is_refused(tmp_path, graph):
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    onnx.save(graph, tmp_path / "other.onnx")
    for name, words in (("broken", "broken.onnx: is no ONNX model"), ("absent", "absent.onnx: not found"),
                        ("other", "its outputs are out and not box_p3")):
        with pytest.raises(StudyError, match=words):
            OnnxNetwork(tmp_path / f"{name}.onnx", None)


def test_calibration_images():
    class Split(list):
        image_dir = "train2017"

    calibration, held_out = choose_images(Split(range(96)), 64, 16)
    assert len(set(calibration)) == 64 and len(set(held_out)) == 16 and not set(calibration) & set(held_out)
    assert choose_images(Split(range(96)), 64, 16) == (calibration, held_out)
    calibration, held_out = choose_images(Split(range(60)), 64, 16)
    assert len(calibration) == 60 and len(held_out) == 16 and set(held_out) <= set(calibration)
    for images, wanted in ((49, 64), (60, 49)):
        with pytest.raises(StudyError, match="quantization"):
            choose_images(Split(range(images)), wanted, 16)


def test_too_few_images_leave_quantization_out_with_the_reason_where_its_numbers_would_stand(tiny_data, tmp_path):
    """It was an error after all the training; a claim and Table 5 now tell why they have no number."""
    study = load_study("smoke", results=tmp_path)
    study = replace(study, seeds=(0,))
    folder = pretend_trained(study, tiny_data, "s6_relu")
    write_json(folder / "metrics.json", {"val": {"AP": 0.5, "AP50": 0.6, "images": 4}})
    assert len(tiny_data.train) < 50 and quantize_study(study, tiny_data) == []
    results = load_results(tmp_path)
    assert load_quantization(results) is None
    assert (reason := "quantization calibrates on at least 50") in results.why_missing("s6_relu", "val_int8")
    with pytest.raises(Missing, match=reason):
        read_number(results, "quantization.json", "changes.s6_relu.int8.AP.difference")
    assert results.measure("s6_relu", "val_int8", "AP") is None and results.measure("s6_relu", "val", "AP").mean == 50


TINY = load_variants() | {name: replace(load_variants()[name], **SHALLOW)
                          for name in ("yolov5s6_pose", "yolov5s6_pose_relu")}


def test_speed_rows_of_sessions_that_take_turns(monkeypatch):
    order: list[int] = []

    def logged(payload: bytes) -> SimpleNamespace:
        run = open_session(payload).run
        return SimpleNamespace(run=lambda *inputs: order.append(len(payload)) or run(*inputs))

    monkeypatch.setattr(quantize, "load_variants", lambda: TINY)
    monkeypatch.setattr(quantize, "open_session", logged)
    found = compare_speed(["yolov5s6_pose_relu"], ["int8"], input_size=64, width_factor=0.125, rounds=2)
    float32, int8 = found["rows"]
    assert (float32["model"], float32["faster"], float32["smaller"]) == ("float32", 1, 1)
    assert int8["model"] == "int8" and int8["smaller"] > 1.5 and int8["ms"] >= int8["ms_min"] > 0
    assert int8["faster"] == pytest.approx(float32["ms"] / int8["ms"], rel=0.1)
    assert found["input_size"] == 64 and found["threads"] >= 1 and found["vnni"] in (True, False, None)
    assert order == order[:2] * 4 and order[0] > order[1]


@pytest.fixture(scope="module")
def quantized(tiny_data, tmp_path_factory) -> Iterator[tuple[Study, CocoDataset]]:
    """A quantized study at 64 px with an eighth of the width and few layers, and its data."""
    dataset = replace(tiny_data, val=tiny_data.val.subset(range(6)))
    study = load_study("smoke", results=tmp_path_factory.mktemp("quantize") / "results")
    study = replace(study, profile=replace(study.profile, width_factor=0.125, sizes={960: 64}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("yolopose.study.config.load_variants", lambda: TINY)
        patch.setattr(quantize, "RESAMPLES", 50)
        patch.setattr(quantize, "compare_speed", lambda *_, **__: {"rows": []})
        for experiment in ("s6_relu", "s6"):
            folder = pretend_trained(study, dataset, experiment)
            write_json(folder / "metrics.json", {"val": {"AP": 0.5, "AP50": 0.6, "images": 4}})
        with patch.context() as few:
            few.setattr(quantized_run, "MIN_CALIBRATION_IMAGES", 4)
            quantize_study(study, dataset, calibration_images=4)
        yield study, dataset


def test_a_study_writes_files_metrics_and_its_record(quantized):
    assert set(quantize.SMOKE.silu_models) <= set(quantize.Settings().silu_models)
    assert quantize.SMOKE.timed == ("yolov5s6_pose_relu",)
    study, _ = quantized
    report = load_quantization(load_results(study.results_dir))
    assert report["calibration"]["images"] == 4 and report["sensitivity"]["held_out"]
    assert not set(report["calibration"]["image_ids"]) & set(report["sensitivity"]["image_ids"])
    rows = {(r["experiment"], r["model"]): r for r in report["models"]}
    assert set(rows) == {("s6_relu", model) for model in SPLITS} | {("s6", "float32"), ("s6", "int8")}
    sizes = {model: rows["s6_relu", model]["size_mib"] for model in SPLITS}
    assert sizes["float32"] > sizes["int16"] > sizes["mixed"] > sizes["int8"]
    metrics = read_json(study.run_dir("s6_relu", 0) / "quantized.json")
    assert list(metrics) == list(SPLITS.values())
    assert set(read_json(study.run_dir("s6", 0) / "quantized.json")) == {"val_float32_onnx", "val_int8"}
    for model, split in SPLITS.items():
        row_ = rows["s6_relu", model]
        assert row_["AP"] == metrics[split]["AP"] and metrics[split]["images"] == 4
        props = {p.key: p.value for p in onnx.load(study.results_dir / row_["file"]).metadata_props}
        assert props["model"] == model and len(props["layers_16bit"].split()) == row_["layers_16bit"]
    layers = report["layers"]
    assert sum(layer["share_gmacs"] for layer in layers) == pytest.approx(1, abs=1e-3)
    chosen = [layer for layer in layers if layer["bits"] == 16]
    assert len(chosen) == rows["s6_relu", "mixed"]["layers_16bit"] == round(0.3 * len(layers))
    assert max(layer["rank"] for layer in chosen) == len(chosen)
    assert [point["fraction"] for point in report["curve"]] == [0, 0.3, 1]
    assert report["curve"][-1]["share_gmacs_16bit"] == 1
    assert report["contrasts"]["relu_minus_silu_int8"]["AP"].keys() == {"difference", "low", "high"}
    assert "reason" in report["contrasts"]["relu_minus_silu_int8_pow2"]
    assert {"val", "val_int8", "val_mixed"} <= set(load_results(study.results_dir).runs["s6_relu"][0].metrics)
    # the stored files give other raw maps than float32, but near ones
    images = np.random.default_rng(0).random((1, 3, 64, 64), np.float32)
    exact, wide, narrow = (np.concatenate([part.ravel() for part in open_session(
        study.results_dir / rows["s6_relu", model]["file"]).run(MAP_NAMES, {"images": images})])
        for model in ("float32", "int16", "int8"))
    assert 0 < np.abs(wide - exact).max() < np.abs(narrow - exact).max() < 1


def test_what_is_done_is_kept_and_what_is_lost_is_made_again(quantized, monkeypatch):
    study, dataset = quantized
    monkeypatch.setattr(quantized_run, "MIN_CALIBRATION_IMAGES", 4)
    before = {path: path.stat().st_mtime_ns for path in study.results_dir.rglob("*.*")}
    rows = quantize_study(study, dataset, calibration_images=4)
    record = read_json(study.results_dir / "quantization.json")["models"]
    assert [(row["model"], row["MiB"], row["change"]) for row in rows] == [
        (row["model"], row["size_mib"], row["AP_change"]) for row in record]
    assert {path: path.stat().st_mtime_ns for path in study.results_dir.rglob("*.*")} == before
    lost = study.results_dir / "export" / "s6_relu_seed0_int8.onnx"
    digest = file_sha256(lost)
    lost.unlink()
    assert quantize_study(study, dataset, calibration_images=4) == rows and file_sha256(lost) == digest
    assert all(path.stat().st_mtime_ns == at for path, at in before.items() if path.suffix == ".onnx" and path != lost)


def test_a_study_refuses_bad_input(quantized, tmp_path, monkeypatch):
    monkeypatch.setattr(quantized_run, "MIN_CALIBRATION_IMAGES", 4)

    def refused(words: str, data: CocoDataset = quantized[1], images: int = 64) -> None:
        with pytest.raises(StudyError, match=words):
            quantize_study(study, data, images)

    study, dataset = replace(quantized[0], results_dir=tmp_path / "empty"), quantized[1]
    refused(r"s6_relu/seed0/run\.json: not found; quantization needs s6_relu")
    folder = pretend_trained(study, dataset, "s6_relu")
    refused("only 3 are asked for; quantization needs at least 4", images=3)
    refused("data fingerprint", replace(dataset, fingerprint="other"))
    (folder / "weights.pt").write_bytes(b"no weights")
    refused("is not the file that run.json describes")
    (folder / "weights.pt").unlink()
    refused(r"weights\.pt: not found")
    pretend_trained(study, dataset, "s6_relu", build_model(load_variants()["yolov5s6_person"], 0, 0.125))
    refused("without keypoints")
    study = replace(study, results_dir=tmp_path / "odd", profile=replace(study.profile, sizes={960: 96}))
    pretend_trained(study, dataset, "s6_relu")
    refused("96")


def test_share_recovered():
    for int8, mixed, found in ((-0.063, -0.013, {"share": 0.7937}),  # Table 5
                               (0.001, 0.002, {"reason": "8 bits lost no AP: nothing to bring back"})):
        assert share_recovered({"int8": {"AP": {"difference": int8}}, "mixed": {"AP": {"difference": mixed}}}) == found


def test_records_of_another_kind_are_refused(quantized, tmp_path):
    assert load_quantization(ResultSet(tmp_path)) is None
    write_json(tmp_path / "quantization.json", {"models": []})
    with pytest.raises(StudyError, match=r"quantization\.json: is not what quantize_study writes"):
        load_quantization(ResultSet(tmp_path))
    shutil.copytree(quantized[0].run_dir("s6", 0), tmp_path / "s6" / "seed0")
    write_json(tmp_path / "s6" / "seed0" / "quantized.json", [])
    with pytest.raises(StudyError, match=r"quantized\.json: must be a "):
        load_results(tmp_path)


def test_the_figure_shows_the_curve_and_its_ends(tmp_path):
    models = [{"experiment": "s6_relu", "model": model, "AP": ap} for model, ap in
              {"float32": 0.62, "int8": 0.55, "int8_channel": 0.6, "int8_pow2": 0.54, "mixed": 0.6}.items()]
    curve = [{"experiment": "s6_relu", "fraction": f, "share_layers_16bit": f, "share_gmacs_16bit": f**2, "AP": ap}
             for f, ap in ((0, 0.55), (0.3, 0.6), (1, 0.62))]
    stored = {"profile": "mini", "seeds": [0], "models": models, "curve": curve, "changes": {}}
    write_json(tmp_path / "quantization.json", stored)
    figure = draw_quantization(ResultSet(tmp_path))
    line, other = (next(one for one in axes.lines if one.get_label() == "8 and 16 bits, mixed") for axes in figure.axes)
    assert list(line.get_xdata()) == [0, 30, 100] and list(line.get_ydata()) == pytest.approx([55, 60, 62])
    assert list(other.get_xdata()) == pytest.approx([0, 9, 100])
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "float32 (62.0)" in labels and "mixed precision of Table 5 (60.0)" in labels
    worse = [point | {"AP": point["AP"] - 0.01} for point in curve]
    write_json(tmp_path / "quantization.json", stored | {"seeds": [0, 1], "curve": curve + worse})
    two = draw_quantization(ResultSet(tmp_path))
    assert "2 seeds" in two.get_suptitle() and two.axes[0].containers
