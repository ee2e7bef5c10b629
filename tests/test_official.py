"""Official checkpoints, written by tests/official_files.py, as plain weights files of this study."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.official_files import ANCHORS_PX, Builder, official_classes, person_state, random_state, write_checkpoint
from yolopose.models.checkpoints import load_weights, save_weights
from yolopose.models.decode import decode
from yolopose.models.layers import Conv
from yolopose.models.yolov5 import build_model
from yolopose.released.importer import SCHEMA, import_checkpoint
from yolopose.utils.errors import StudyError
from yolopose.utils.files import file_sha256, read_json

IMAGE = torch.rand(1, 3, 64, 128, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def small(shared) -> dict[str, Tensor]:
    return random_state(shared)


def through(folder: Path, state: dict[str, Tensor], **options: Any) -> tuple[Any, dict[str, Any]]:
    """Model and provenance of a checkpoint with these tensors after the way through the weights file."""
    path = write_checkpoint(folder / "last.pt", state, **options)
    import_checkpoint(path, folder / "weights.pt", 960, {"release": "of the test"})
    return load_weights(folder / "weights.pt")


def assert_refused(path: Path, words: str) -> None:
    """The importer raises an error that names the file and has these words; nothing is written then."""
    with pytest.raises(StudyError) as error:
        import_checkpoint(path, path.with_name("weights.pt"), 960)
    assert str(error.value).startswith(f"{path}: ") and words in str(error.value)
    assert not path.with_name("weights.pt").exists()


def difference(a: list[Tensor], b: list[Tensor]) -> float:
    """Largest difference of raw maps, as a share of the largest magnitude."""
    return max(float((x - y).abs().max() / y.abs().max()) for x, y in zip(a, b, strict=True))


def test_the_full_model_gives_the_outputs_of_the_official_code(shared, tmp_path):
    """Acceptance: from a file in the official container to the reference's numbers, to 1e-4."""
    model, about = through(tmp_path, random_state(shared, divisor=1), half=False)
    assert about["variant"]["name"] == "yolov5s6_pose_faithful" and about["about"]["precision"] == "float32"
    reference = np.load(shared / "reference/official_forward_s6.npz")
    images = torch.rand(2, 3, 128, 192, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        raw = model(images)
    expected = [torch.from_numpy(reference[f"raw_p{level}"]) for level in "3456"]
    assert difference(raw, expected) < 1e-4
    assert difference([decode(raw, model.detect)], [torch.from_numpy(reference["decoded"])]) < 1e-4


def test_half_precision_becomes_float32_with_the_same_numbers(small, tmp_path):
    model, about = through(tmp_path, small)
    for key, tensor in model.state_dict().items():
        wanted = small[key].half().float() if small[key].is_floating_point() else small[key]
        assert tensor.dtype == wanted.dtype and torch.equal(tensor, wanted), key
    assert about["input_size"] == 960 and about["num_keypoints"] == 17
    assert about["about"] == {
        "release": "of the test", "source_file": "last.pt", "source_sha256": file_sha256(tmp_path / "last.pt"),
        "precision": "float16", "focus_order": "contract", "other_activations": {}, "anchors_changed": False,
        "epoch": -1, "yaml": {
            "nc": 1, "nkpt": 17, "dw_conv_kpt": True, "depth_multiple": 0.33, "width_multiple": 0.5}}


def test_both_channel_orders_give_the_output_that_they_had(small, tmp_path):
    """By the reference's words: groups (dy, dx) in the order of each kind, then the convolution as stored."""
    for contract, groups in ((True, ((0, 0), (0, 1), (1, 0), (1, 1))), (False, ((0, 0), (1, 0), (0, 1), (1, 1)))):
        model, about = through(tmp_path, small, half=False, contract=contract)
        assert about["about"]["focus_order"] == ("contract" if contract else "slices")
        x = torch.cat([IMAGE[..., dy::2, dx::2] for dy, dx in groups], 1)
        x = nn.functional.conv2d(x, small["model.0.conv.conv.weight"], padding=1)
        norm = [small[f"model.0.conv.bn.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
        wanted = nn.functional.silu(nn.functional.batch_norm(x, *norm, eps=1e-3))
        with torch.no_grad():
            assert difference([model.model[0](IMAGE)], [wanted]) < 1e-6


@pytest.mark.parametrize("empty_branch", [True, False])
def test_a_person_detector_becomes_our_person_variant(small, tmp_path, empty_branch):
    model, about = through(tmp_path, person_state(small, empty_branch), half=False, nkpt=0)
    assert about["variant"]["head"] == "person" and about["num_keypoints"] == 0
    assert not any("m_kpt" in key for key in model.state_dict())
    with torch.no_grad():
        raw = model(IMAGE)
    assert [m.shape[1:] for m in raw] == [(3, 64 // s, 128 // s, 6) for s in (8, 16, 32, 64)]


def test_true_sizes_get_the_names_of_the_study(shared, tmp_path):
    """Full width without a branch of 12 stages: fast enough for one test of the names."""
    for state, name, options in (
            (person_state(random_state(shared, divisor=1), True), "yolov5s6_person", {"nkpt": 0}),
            (random_state(shared, "yolov5s6_pose_ti_lite", 1), "yolov5s6_pose_ti_lite", {"act": nn.ReLU})):
        assert through(tmp_path, state, **options)[1]["variant"]["name"] == name


def activations(model: nn.Module) -> dict[str, str]:
    return {path: type(module.act).__name__ for path, module in model.named_modules() if isinstance(module, Conv)}


def test_activations_are_those_of_the_file_module_by_module(shared, small, tmp_path):
    """ReLU everywhere but in SPP, as a freshly built ti_lite model has it (reference §1.7)."""
    small_lite = random_state(shared, "yolov5s6_pose_ti_lite")
    model, about = through(tmp_path, small_lite, half=False, act=nn.ReLU)
    assert {p for p, act in activations(model).items() if act == "SiLU"} == {"model.10.cv1", "model.10.cv2"}
    assert about["variant"]["activation"] == "relu" and about["variant"]["stem"] == "conv_focus"
    assert about["variant"]["decoder_depth"] == 0 and about["about"]["focus_order"] is None
    assert about["about"]["other_activations"] == {"model.10.cv1": "silu", "model.10.cv2": "silu"}
    # a second way through the weights file keeps them, and they matter
    save_weights(tmp_path / "again.pt", model, 1.0, 960, SCHEMA.as_dict(), {})
    again, _ = load_weights(tmp_path / "again.pt")
    plain = build_model(model.variant, 17).eval()
    plain.load_state_dict(model.state_dict())
    save_weights(tmp_path / "own.pt", plain, 1.0, 960, SCHEMA.as_dict(), {})
    assert "activations" not in load_weights(tmp_path / "own.pt")[1]  # files of this study stay what they were
    with torch.no_grad():
        assert difference(again(IMAGE), model(IMAGE)) == 0
        assert difference(plain(IMAGE), model(IMAGE)) > 1e-3
    silu, about = through(tmp_path, small_lite, act=nn.SiLU)
    assert set(activations(silu).values()) == {"SiLU"} and about["variant"]["activation"] == "silu"
    for state, head in ((small_lite, set()), (small, {"SiLU"})):  # the head's SiLU is no exception in a ReLU model
        relu, about = through(tmp_path, state, act=nn.ReLU, spp_act=nn.ReLU)
        assert about["about"]["other_activations"] == {}
        assert {act for path, act in activations(relu).items() if path.startswith("model.33.")} == head
        assert {act for path, act in activations(relu).items() if not path.startswith("model.33.")} == {"ReLU"}


def test_changed_anchors_are_kept(shared, tmp_path):
    changed = (np.array(ANCHORS_PX) * 0.83 + 1.37).tolist()
    model, about = through(tmp_path, random_state(shared, anchors_px=changed))
    wanted = torch.tensor(changed).half().float()
    assert torch.equal(model.detect.anchors_px, wanted) and about["about"]["anchors_changed"]
    assert torch.equal(model.detect.anchors, wanted / torch.tensor([8.0, 16, 32, 64]).view(4, 1, 1))
    with torch.no_grad():
        decoded = decode([torch.zeros_like(m) for m in model(IMAGE)], model.detect)
    assert decoded[0, 0, 2:4].tolist() == pytest.approx(changed[0][0], rel=1e-3)  # (2σ(0))² anchors


def test_the_average_of_an_unfinished_run_is_preferred(small, tmp_path):
    """During training the file has model and ema, and the official loader takes the latter."""
    path = tmp_path / "last.pt"
    other = {key: tensor + 1 if tensor.is_floating_point() and "anchor" not in key else tensor
             for key, tensor in small.items()}
    with official_classes() as classes:
        model, ema = (Builder(classes, state).model().half() for state in (small, other))
        torch.save({"epoch": 12, "model": model, "ema": ema, "updates": 100,
                    "optimizer": torch.optim.SGD([nn.Parameter(torch.zeros(3))], 0.1, 0.9).state_dict()}, path)
    import_checkpoint(path, tmp_path / "weights.pt", 960)
    model, about = load_weights(tmp_path / "weights.pt")
    assert torch.equal(model.state_dict()["model.1.bn.bias"], other["model.1.bn.bias"].half().float())
    assert about["about"]["epoch"] == 12


def test_the_imported_schema_is_cocos(shared):
    (category,) = read_json(shared / "data/coco-real/annotations/person_keypoints_val2017.json")["categories"]
    assert list(SCHEMA.names) == category["keypoints"] and len(SCHEMA) == 17
    assert SCHEMA.flip_indices.tolist() == [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]
    assert {frozenset(limb) for limb in SCHEMA.skeleton} == {frozenset((i - 1, j - 1)) for i, j in category["skeleton"]}


def change(**changes: Any) -> Any:
    """A spoiler: attributes of the module at a path (dots as double underscores)."""
    def spoil(model: nn.Module, _: Any) -> None:
        for path, value in changes.items():
            *parents, name = path.split("__")
            setattr(model.get_submodule(".".join(parents)), name, value)
    return spoil


SPOILED = {
    "its head has nc = 80": change(model__33__nc=80),
    "nkpt = 5": change(model__33__nkpt=5),
    "model.14.f: takes its input from [-1, 6]": change(model__14__f=[-1, 6]),
    "model.33.f: takes its input from [17, 20, 23]": change(model__33__f=[17, 20, 23]),
    "model.33.stride": change(model__33__stride=torch.tensor([4.0, 8.0, 16.0, 32.0])),
    "model.3.conv.stride: is (1, 1)": change(model__3__conv__stride=(1, 1)),
    "model.3.bn.eps": change(model__3__bn__eps=1e-5),
    "model.33.m_kpt.0.0.conv.groups: is 1": change(model__33__m_kpt__0__0__conv__groups=1),
    "model.13.mode": change(model__13__mode="bilinear"),
    "model.10: pools over windows of [5, 9, 13]": change(
        model__10__m=nn.ModuleList(nn.MaxPool2d(k, 1, k // 2) for k in (5, 9, 13))),
    "model.4.cv1.act: is Identity": change(model__4__cv1__act=nn.Identity()),
    "model.4.m: is ModuleList": lambda model, _: setattr(model.model[4], "m", nn.ModuleList(model.model[4].m)),
    "model.5: is Bottleneck": lambda model, classes: model.model[5].__setattr__("__class__", classes.Bottleneck),
    "model.0: is Concat": lambda model, classes: model.model[0].__setattr__("__class__", classes.Concat),
    "model.34: is a SiLU that": lambda model, _: model.model.append(nn.SiLU()),
    "it is not one of the YOLO-Pose P6 models": lambda model, _: model.model.pop(33),
    "model.6.m.3: is a SiLU that": lambda model, _: model.model[6].m.append(nn.SiLU()),
    "has 1 and 2 bottlenecks": lambda model, _: model.model[4].m.pop(2),
    "model.33.anchors: are not positive": lambda model, _: model.model[33].anchors.mul_(2),
    "model.33.anchor_grid: is missing": lambda model, _: delattr(model.model[33], "anchor_grid"),
    "model.2.cv1.conv.weight: holds numbers that are not finite":
        lambda model, _: model.model[2].cv1.conv.weight.view(-1)[0].fill_(torch.inf),
    "model.2.cv1.bn.running_var: is missing": lambda model, _: delattr(model.model[2].cv1.bn, "running_var"),
    "model.2.cv1.bn.running_mean: is (8,) whole numbers":
        lambda model, _: setattr(model.model[2].cv1.bn, "running_mean", torch.zeros(8, dtype=torch.int32)),
    "model.extra: is (1,)": lambda model, _: model.model.register_buffer("extra", torch.zeros(1)),
    "asks for torch.nn.modules.activation.Hardswish": change(model__4__cv1__act=nn.Hardswish()),
    # values that are not printed, let alone as they are
    "has nc = 'int' and nkpt = 17": change(model__33__nc=1 << 1000),
    "has nc = 'str'": change(model__33__nc="\ud800"),
    "has nc = 'list of 50000'": change(model__33__nc=[1] * 50_000),
    "has nc = 'float'": change(model__33__nc=float("nan")),
    "model.14.f: takes its input from 'list of 2', must": change(model__14__f=[-1, 10**30]),
    "model: is not a stored module": lambda model, _: model.model._modules.update({"a\nb": nn.SiLU()}),
    "has 14 stages": lambda model, _: model.model[33].m_kpt[0].extend([nn.SiLU(), nn.SiLU()]),
}


def test_what_cannot_be_written_as_json_is_left_out_of_the_provenance(small, tmp_path):
    def spoil(model: nn.Module, _: Any) -> None:
        model.yaml |= {"depth_multiple": float("nan"), "width_multiple": 1 << 1000, "act": "x" * 1000}

    _, about = through(tmp_path, small, spoil=spoil)
    assert about["about"]["yaml"] == {"nc": 1, "nkpt": 17, "dw_conv_kpt": True}


@pytest.mark.parametrize("words", SPOILED)
def test_what_is_no_model_of_the_study_is_refused_by_name(small, tmp_path, words):
    assert_refused(write_checkpoint(tmp_path / "last.pt", small, half=False, spoil=SPOILED[words]), words)


def test_a_head_without_its_branch_a_truncated_and_a_damaged_file_are_refused(small, tmp_path):
    assert_refused(write_checkpoint(tmp_path / "last.pt", person_state(small, False)), "m_kpt: is missing")
    path = write_checkpoint(tmp_path / "last.pt", small)
    whole = path.read_bytes()
    for share in (0.2, 0.5, 0.9, 0.999):
        path.write_bytes(whole[:int(share * len(whole))])
        assert_refused(path, "is truncated")
    path.write_bytes(whole[:200_000] + bytes([whole[200_000] ^ 1]) + whole[200_001:])
    assert_refused(path, "last.pt: is damaged at data/")


@pytest.mark.parametrize("value", [{"epoch": 1}, [1, 2], {"model": None}, {"model": torch.zeros(3)},
                                   {"model": {"a": torch.zeros(3)}}, {"model": nn.SiLU()}, {"model": torch.float32}])
def test_files_of_torch_without_an_official_model_are_refused(tmp_path, value):
    torch.save(value, tmp_path / "last.pt")
    assert_refused(tmp_path / "last.pt", "last.pt: ")
