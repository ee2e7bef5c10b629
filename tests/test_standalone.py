"""The script that runs an exported file with onnxruntime, numpy and Pillow alone."""

import ast
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
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from tests.lively import CFG, SHALLOW, lively_model
from yolopose.data.letterbox import letterbox
from yolopose.export import standalone
from yolopose.export.onnx_file import export_network, run_alone
from yolopose.export.parity import TorchModel
from yolopose.utils.errors import StudyError

SCRIPT = Path(standalone.__file__)


def test_standalone_imports_nothing_but_three_packages():
    nodes = list(ast.walk(ast.parse(SCRIPT.read_text())))
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    roots = {name.split(".")[0] for name in [*names, *(node.module for node in froms)]}
    assert not any(node.level for node in froms)
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
    (folder / "photos").mkdir()
    for name, shape in (("wide.png", (60, 150, 3)), ("tiny.png", (7, 5, 3)), ("square.jpg", (128, 128, 3))):
        Image.fromarray(np.random.default_rng(3).integers(0, 256, shape, np.uint8)).save(folder / "photos" / name)
    return folder


def alone(bare: Path, code: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run code in a Python without site-packages (-S) and environment (-I) but for ``site``."""
    return subprocess.run([sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, 'site'); {code}",
                           *map(str, words)], cwd=bare, capture_output=True, text=True, timeout=120)


def test_in_a_bare_environment_it_prints_and_draws_the_people_that_pytorch_finds(bare, pose_file):
    code = "import importlib.util as u; print([n for n in ('torch', 'yolopose', 'onnx', 'cv2') if u.find_spec(n)])"
    assert alone(bare, code).stdout == "[]\n"
    done = alone(bare, "sys.path[0] = 'nowhere'; import runpy; runpy.run_path('standalone.py')")
    assert done.stderr == "error: numpy is not installed; pip install onnxruntime numpy pillow\n"
    done = alone(bare, "import runpy; runpy.run_path('standalone.py', run_name='__main__')", pose_file,
                 "photos/wide.png", "out.png", "--confidence", "0.5", "--max-detections", "5")
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


def test_it_takes_a_folder_of_photos(bare, pose_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(bare)
    assert standalone.main([str(pose_file), "photos", str(tmp_path / "drawn")]) == 0
    assert sorted(p.name for p in (tmp_path / "drawn").iterdir()) == ["square.png", "tiny.png", "wide.png"]
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("photos")] == [
        "photos/square.jpg", "photos/tiny.png", "photos/wide.png"]


def test_what_the_user_can_mend_is_one_line(bare, pose_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, content in (("text.onnx", "no model"), ("empty.onnx", ""), ("text.png", "no image")):
        (tmp_path / name).write_text(content)
    (tmp_path / "empty").mkdir()
    export_network(lively_model(**SHALLOW), tmp_path / "network.onnx", 64)
    photo = bare / "photos" / "square.jpg"
    for words, message in (
        (("absent.onnx", photo, "o.png"), "absent.onnx: no such file"),
        (("text.onnx", photo, "o.png"), "text.onnx: is not an ONNX model"),
        (("empty.onnx", photo, "o.png"), "empty.onnx: is "),
        (("network.onnx", photo, "o.png"), "network.onnx: is an ONNX model without this project's metadata"),
        ((pose_file, "absent.jpg", "o.png"), "absent.jpg: no such file"),
        ((pose_file, "text.png", "o.png"), "text.png: cannot be read as an image"),
        ((pose_file, "empty", "o"), "has no photo"),
        ((pose_file, photo, photo), "is the photo itself"),
        ((pose_file, photo, "o.xyz"), "is not the name of a picture"),
        ((pose_file, photo, "o.png", "--size", "100"), "--size 100: must be a multiple of 64 px"),
        ((pose_file, photo, "o.png", "--confidence", "2"), "--confidence 2.0: must be between 0 and 1"),
        ((pose_file, photo, "o.png", "--max-detections", "0"), "--max-detections 0: must be between 1 and 30000"),
    ):
        status, printed = standalone.main(list(map(str, words))), capsys.readouterr().err
        assert status == 2 and printed.startswith("error: ") and printed.count("\n") == 1, (words, printed)
        assert message in printed, (words, printed)


PEOPLE = {"image_index": np.zeros(2, np.int64), "boxes_xyxy": np.full((2, 4), 9, np.float32),
          "scores": np.full(2, 0.9, np.float32), "keypoints": np.full((2, 3, 3), 0.5, np.float32)}
SAID = {"format": standalone.FORMAT, "keypoints": '["nose", "left_eye", "right_eye"]', "skeleton": "[[0, 1], [0, 2]]",
        "input_size": "64", "size_multiple": "64", "pad_value": "114"}


def pretended(path: Path, outputs: dict[str, np.ndarray], side: int | str = "side", **about: str | None) -> Path:
    """A model that gives these outputs whatever it is shown; ``about`` changes what it says of itself."""
    values = {name: numpy_helper.from_array(value, name) for name, value in (PEOPLE | outputs).items()}
    graph = helper.make_graph(
        [helper.make_node("Constant", [], [name], value=value) for name, value in values.items()], "people",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", 3, side, side])],
        [helper.make_tensor_value_info(name, value.data_type, value.dims) for name, value in values.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {key: value for key, value in (SAID | about).items() if value is not None})
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(("changes", "message"), [
    *(({key: value}, f"its metadata is damaged ({key} is ") for key in SAID if key != "format"
      for value in (None, "", "no JSON", "null", '"text"', "[1, 2]", "[" * 100_000, "-1.5")),
    ({"skeleton": "[[0, 3]]"}, "(skeleton is "), ({"skeleton": "[[0, true]]"}, "(skeleton is "),
    ({"pad_value": "300"}, "(pad_value is "), ({"size_multiple": "0"}, "(size_multiple is "),
    ({"format": "yolopose-onnx-0"}, "without this project's metadata"),
    ({"input_size": "100"}, "input_size 100: must be a multiple"), ({"input_size": "0"}, "input_size 0: must be"),
    ({"input_size": "6400000"}, "and at most 8192")],
    ids=lambda value: str(value)[:40])
def test_damaged_metadata_are_one_line(bare, tmp_path, capsys, changes, message):
    path = pretended(tmp_path / "m.onnx", {}, **changes)
    assert standalone.main([str(path), str(bare / "photos" / "tiny.png"), str(tmp_path / "o.png")]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: {path}: ") and message in printed and printed.count("\n") == 1, printed
    assert len(printed) < 400 and not (tmp_path / "o.png").exists()


@pytest.mark.parametrize(("outputs", "message"), [
    ({"scores": np.array([0.9, np.nan], np.float32)}, "scores has numbers that are not finite"),
    ({"boxes_xyxy": np.full((2, 4), np.inf, np.float32)}, "boxes_xyxy has numbers that are not finite"),
    ({"keypoints": np.zeros((2, 17, 3), np.float32)}, "keypoints has the shape (2, 17, 3), not (2, 3, 3)"),
    ({"keypoints": np.zeros((2, 9), np.float32)}, "keypoints has the shape (2, 9)"),
    ({"boxes_xyxy": np.zeros((3, 4), np.float32)}, "boxes_xyxy has the shape (3, 4), not (2, 4)"),
    ({"image_index": np.array(0)}, "boxes_xyxy has the shape (2, 4), not (4,)"),
    ({"scores": np.array(["a", "b"])}, "scores has other things than numbers")], ids=lambda value: str(value)[:30])
def test_outputs_that_are_no_people_are_one_line(bare, tmp_path, capsys, outputs, message):
    path = pretended(tmp_path / "m.onnx", outputs)
    assert standalone.main([str(path), str(bare / "photos" / "tiny.png"), str(tmp_path / "o.png")]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: {path}: its output ") and message in printed and printed.count("\n") == 1


def test_a_size_that_the_file_does_not_take_and_an_output_that_it_lacks_are_one_line(bare, tmp_path, capsys):
    photo, out = str(bare / "photos" / "tiny.png"), str(tmp_path / "o.png")
    path = str(pretended(tmp_path / "m.onnx", {}, side=128))
    assert standalone.main([path, photo, out, "--size", "128"]) == 0
    assert capsys.readouterr().out.startswith(f"{photo}: 2 people in 5x7 px\n")
    assert standalone.main([path, photo, out]) == 2
    assert f"error: {path}: cannot be run at 64 px (" in capsys.readouterr().err
    model = onnx.load(path)
    model.graph.output.pop()
    onnx.save(model, path)
    assert standalone.main([path, photo, out, "--size", "128"]) == 2
    printed = capsys.readouterr().err
    assert f"error: {path}: cannot be run at 128 px (" in printed and printed.count("\n") == 1


def test_a_photo_whose_name_is_no_text_is_printed(tmp_path):
    path, photo = pretended(tmp_path / "m.onnx", {}), os.fsencode(tmp_path) + b"/caf\xe9.png"
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    os.rename(tmp_path / "a.png", photo)
    done = subprocess.run([sys.executable, str(SCRIPT), str(path), photo, str(tmp_path / "o.png")], capture_output=True)
    assert done.returncode == 0 and b"caf\\udce9.png: 2 people in 9x9 px" in done.stdout and not done.stderr


def test_a_bad_photo_of_a_folder_is_named_after_the_others_were_drawn(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for name in ("a.png", "c.png"):
        Image.fromarray(np.full((9, 9), 65535, np.uint16)).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "b.png").touch()
    path = pretended(tmp_path / "m.onnx", {})
    assert standalone.main([str(path), "photos", "drawn"]) == 2
    assert sorted(one.name for one in (tmp_path / "drawn").iterdir()) == ["a.png", "c.png"]
    printed = capsys.readouterr()
    assert printed.err.startswith("error: 1 of 3 photos could not be read:\nphotos/b.png: cannot be read as an image (")
    assert [line[:12] for line in printed.out.splitlines() if line[0] != " "] == ["photos/a.png", "photos/c.png"]
    with Image.open("drawn/a.png") as drawn:
        assert drawn.getpixel((drawn.width - 30, 30)) == (255, 255, 255), "16-bit white is white"
    assert standalone.main([str(path), "photos/b.png", "b.png"]) == 2 and not (tmp_path / "b.png").exists()


def test_the_notebooks_call_runs_the_script_in_a_process_of_its_own(bare, pose_file, tmp_path):
    photo, drawing = bare / "photos" / "tiny.png", tmp_path / "out.png"
    assert run_alone(pose_file, photo, drawing, confidence=1.0) == f"{photo}: no people in 5x7 px\n"  # a result
    with Image.open(drawing) as drawn:
        assert drawn.size == (345, 483)
    with pytest.raises(StudyError, match="absent.jpg: no such file"):
        run_alone(pose_file, "absent.jpg", drawing)
