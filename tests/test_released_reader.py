"""Hostile and damaged checkpoint files: refused, by name, and without a trace of having been executed.

Every hostile pickle is first given to Python's own unpickler, which proves that it is one: it leaves a file behind."""

import copyreg
import functools
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from contextlib import nullcontext, suppress
from copy import copy
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.torch_version import TorchVersion

from tests.official_files import write_container
from yolopose.models.archive import NAMES
from yolopose.released.importer import import_checkpoint
from yolopose.released.reader import STAND_INS, Inert, read_checkpoint
from yolopose.utils.errors import StudyError


class Call:
    """Pickles as a call of ``function``; further positions of ``__reduce__`` follow."""

    def __init__(self, function: Any, *args: Any, then: tuple = ()):
        self.reduced = (function, args, *then)

    def __reduce__(self) -> tuple:
        return self.reduced


class Born(Call):
    """Leaves its file when an object of it is made of a name, before anything is initialised."""

    def __new__(cls, file: Any = None, *_: Any, named: str = "") -> Any:
        if isinstance(found := file or named, str):
            Path(found).touch()
        return super().__new__(cls)


class Trap:
    """Leaves its file when it is given a state."""

    def __setstate__(self, state: dict[str, str]) -> None:
        Path(state["file"]).touch()


touch, python = "touch {}".format, "open({!r}, 'w').close()".format


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def call_of(function: bytes, protocol: bytes = b"\x80\x02") -> Any:
    """The pickle that calls what ``function`` pushes with the command."""
    return lambda path: protocol + function + text(touch(path)) + b"\x85R."


# What leaves the file ``p`` behind when it is unpickled: bytes, or an object to be pickled by protocol 2 or another.
HOSTILE = {
    "os.system": lambda p: Call(os.system, touch(p)),
    "os.system beside a model": lambda p: {"epoch": 1, "model": None, "x": Call(os.system, touch(p))},
    "eval": lambda p: Call(eval, python(p)),
    "exec": lambda p: Call(exec, python(p)),
    "nested reduce": lambda p: Call(OrderedDict, [["a", Call(os.system, touch(p))]]),
    "reduce in arguments": lambda p: Call(torch.Size, (Call(os.system, touch(p)),)),
    "reduce in reduce": call_of(  # getattr(__import__("os"), "system"): what is called is itself the result of a call
        b"c__builtin__\ngetattr\nc__builtin__\n__import__\n" + text("os") + b"\x85R" + text("system") + b"\x86R"),
    "getattr chain": lambda p: Call(getattr, Call(eval, python(p)), "__class__"),
    "apply": lambda p: Call(list, Call(map, os.system, [touch(p)])),
    "list items": lambda p: Call(list, then=(None, iter([Call(os.system, touch(p))]))),
    "dictionary items": lambda p: Call(OrderedDict, then=(None, None, iter([("a", Call(os.system, touch(p)))]))),
    "state": lambda p: Call(OrderedDict, then=({"a": Call(os.system, touch(p))},)),
    "setstate": lambda p: Call(Trap, then=({"file": p},)),
    "setstate, protocol 4": lambda p: pickle.dumps(Call(Trap, then=({"file": p},)), 4),
    "copyreg": lambda p: pickle.dumps(Call(copyreg._reconstructor, Trap, object, None, then=({"file": p},)), 1),
    "copyreg, protocol 2": lambda p: Call(copyreg._reconstructor, Trap, object, None, then=({"file": p},)),
    "partial": lambda p: pickle.dumps(Call(functools.partial(os.system, touch(p))), 4),
    "NEWOBJ": lambda p: Born(copyreg.__newobj__, Born, p),
    "NEWOBJ_EX": lambda p: pickle.dumps(Born(copyreg.__newobj_ex__, Born, (), {"named": p}), 4),
    "dotted name": call_of(b"\x8c\x13torch.serialization\x8c\x09os.system\x93", b"\x80\x04"),  # by attributes
    "INST": lambda p: b"(" + text(touch(p)) + b"ios\nsystem\n.",  # name and call in one
    "OBJ": lambda p: b"(cos\nsystem\n" + text(touch(p)) + b"o.",
    "EXT1": call_of(b"\x82\xf0"),  # a name by its number in copyreg's registry
}
copyreg.add_extension("os", "system", 0xF0)
ASKED_FOR = {"os.system": f"{os.name}.system" if os.name == "nt" else "posix.system", "eval": "__builtin__.eval",
             "getattr chain": "__builtin__.getattr", "reduce in reduce": "__builtin__.getattr",
             "copyreg, protocol 2": "copy_reg._reconstructor", "dotted name": "torch.serialization.os.system",
             "setstate": f"{__name__}.Trap", "INST": "asks for os.system", "EXT1": "EXT1",
             "partial": "functools.partial", "NEWOBJ": f"{__name__}.Born", "NEWOBJ_EX": f"{__name__}.Born"}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_pickle_is_refused_by_name_and_nothing_of_it_runs(tmp_path, kind):
    effect = tmp_path / "ran"
    payload = HOSTILE[kind](str(effect))
    payload = payload if isinstance(payload, bytes) else pickle.dumps(payload, 2)
    with suppress(TypeError, AttributeError):  # raised after the deed, when its result is used
        pickle.loads(payload)  # the control: an ordinary unpickler runs it
    assert effect.exists(), "this pickle does nothing: the test would prove nothing"
    effect.unlink()
    path = write_container(tmp_path / "last.pt", payload)
    with pytest.raises(StudyError, match=rf"^{path}: .*nothing of it was executed.*[Dd]elete") as refused:
        read_checkpoint(path)
    assert not effect.exists() and ASKED_FOR.get(kind, "asks for ") in str(refused.value)


def test_the_allowed_names_are_an_exact_list_and_no_other_module_is_imported(tmp_path, monkeypatch):
    def asked(name: str) -> Any:
        pickled = f"\x80\x02c{name.replace(' ', chr(10), 1)}\n.".encode("latin-1")
        return read_checkpoint(write_container(tmp_path / "a.pt", pickled))

    (tmp_path / "not_imported.py").write_text(python(str(tmp_path / "ran")))
    monkeypatch.syspath_prepend(tmp_path)
    for name in (*NAMES, *STAND_INS):
        found = asked(name)
        assert name.startswith(("torch ", "torch._utils", "collections", "_codecs", "__builtin__", "builtins")) or (
            issubclass(found, Inert) and f"{found.__module__} {found.__name__}" == name)
    for name in ("torch load", "torch.serialization load", "models.yolo Model.load", " os", "builtins getattr",
                 "torch.nn.modules.conv Conv2d.__init__", "torch.hub load", "models yolo.Model", "not_imported Thing",
                 "torch._utils _rebuild_wrapper_subclass", "builtins bytearray"):  # the last two torch would allow
        with pytest.raises(StudyError, match=f"asks for {name.replace(' ', '.')}"):
            asked(name)
    assert not (tmp_path / "ran").exists()


def test_a_torch_that_cannot_read_safely_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.5.1+cu124"))
    with pytest.raises(StudyError, match=r"torch .* cannot read released checkpoints safely, 2\.6 and newer can"):
        read_checkpoint(tmp_path / "last.pt")


@pytest.mark.parametrize("call", [
    b"\x80\x02ctorch.nn.modules.conv\nConv2d\n)R.",  # a class called as a function
    b"\x80\x02ccollections\nOrderedDict\n)\x81.",  # a function made as an object
    b"\x80\x02ctorch\nFloatStorage\nK\x05\x85R.",  # a value called
    b"\x80\x02ccollections\nOrderedDict\n)R)R.",  # a dictionary called
    b"\x80\x02ctorch\ndevice\nX\x03\x00\x00\x00cpuR.",  # arguments that are no tuple
    b"\x80\x02ccollections\nOrderedDict\n}b.",  # a state for a name
    b"\x80\x02}}b.",  # a state for a dictionary
    b"\x80\x02ctorch.nn.modules.conv\nConv2d\n)\x81}b}b.",  # a second state
    b"\x80\x02c__builtin__\nset\n](h\x00e\x85R.",  # an unknown memo
    b"\x80\x02c__builtin__\nset\n]]a\x85R.",  # a set of lists
    b"\x80\x02}]K\x01s.",  # a list as a key
    b"\x80\x02})K\x01s.",  # a tuple as a key
    b"\x80\x02K\x01K\x02a.",  # appending to a number
    b"\x80\x02ctorch\nSize\nK\x01\x85R.",  # a size that is no tuple
    b"\x80\x02cmodels.yolo\nModel\n)\x81K\x01K\x02s.",  # items of an object
    b"\x80\x02K\x05Q.", b"\x80\x02X\x03\x00\x00\x00cpuQ.", b"\x80\x02]Q.", b"\x80\x02)Q.",  # no storages
    b"\x80\x02(K\x01K\x02K\x03K\x04K\x05tQ.",
    b"\x80\x02" + b"(" * 100_000, b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b".",  # nested without end
    b"\x80\x02)" + b"\x85" * 100_000 + b".", b"\x80\x02}X\x01\x00\x00\x00a)" + b"\x85" * 100_000 + b"s.",
])
def test_calls_states_and_items_that_torch_does_not_write_are_refused(tmp_path, call):
    with pytest.raises(StudyError, match=r"last\.pt: (its pickle|holds no dictionary with a model)"):
        import_checkpoint(write_container(tmp_path / "last.pt", call), tmp_path / "weights.pt", 960)


def tensor_pickle(key: str = "0", numel: int = 4, offset: int = 0, size: tuple = (4,), stride: tuple = (1,),
                  kind: str = "FloatStorage") -> bytes:
    """The instructions that make one tensor, as torch.save writes it, with the numbers given."""
    def number(n: int) -> bytes:
        return b"\x8a" + bytes([n.bit_length() // 8 + 1]) + n.to_bytes(n.bit_length() // 8 + 1, "little", signed=True)

    def numbers(values: tuple) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    return (b"ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + f"ctorch\n{kind}\n".encode()
            + text(key) + text("cpu") + number(numel) + b"tQ" + number(offset) + numbers(size) + numbers(stride)
            + b"\x89ccollections\nOrderedDict\n)RtR")


@pytest.mark.parametrize("options", [
    {"numel": 1 << 40}, {"numel": 5}, {"numel": 3}, {"numel": -4}, {"key": "1"}, {"key": "../../etc/passwd"},
    {"kind": "DoubleStorage"}, {"offset": 1}, {"offset": -1}, {"size": (5,)}, {"size": (-1,)}, {"size": (1 << 60,)},
    {"size": (1 << 30,), "stride": (0,)}, {"size": (2, 2)}, {"size": (2, 2), "stride": (1, -1)},
    {"size": (1,) * 9, "stride": (1,) * 9}, {"size": (), "stride": (), "offset": 4},
    {"size": (0, 1 << 62), "stride": (1, 1)}, {},
])
def test_storages_and_tensors_of_impossible_size_are_refused(tmp_path, options):
    """As a parameter of a model; with an honest one, and with an empty one, the model is refused later."""
    state = b"}(" + text("_modules") + b"}" + text("_buffers") + b"}" + text("_parameters") + b"}" + text("w")
    path = write_container(tmp_path / "last.pt", b"\x80\x02}" + text("model") + b"cmodels.yolo\nModel\n)\x81" + state
                           + tensor_pickle(**options) + b"subs.", {"data/0": bytes(16)})
    harmless = not options or 0 in options.get("size", ())
    with pytest.raises(StudyError, match=r"last\.pt: " + ("its model is a Model whose" if harmless else
                                                          "(its pickle is damaged|w: is no stored tensor)")):
        import_checkpoint(path, tmp_path / "weights.pt", 960)


def test_tensors_are_read_where_they_lie_and_the_values_of_torch_save_come_back(tmp_path):
    numbers, pickled = np.arange(12, dtype=np.float32), tensor_pickle("0", 12, 2, (2, 3), (1, 3))
    path = write_container(tmp_path / "a.pt", b"\x80\x02" + pickled + b".", {"data/0": numbers.tobytes()})
    assert read_checkpoint(path).tolist() == [[2, 5, 8], [3, 6, 9]]
    value = {"tensor": torch.arange(6, dtype=torch.float16).view(2, 3).T, "set": {"a"}, "size": torch.Size([1, 2]),
             "none": None, "list": [1, -2, 1 << 70, 0.5, True], "tuple": ("x", ()), "ordered": OrderedDict(a=1),
             "device": torch.device("cpu"), "number": np.float64(0.5), "layer": torch.nn.SiLU()}
    torch.save(value, tmp_path / "a.pt")
    found = read_checkpoint(tmp_path / "a.pt")
    assert torch.equal(found.pop("tensor"), value.pop("tensor"))
    number, layer = found.pop("number"), found.pop("layer")
    assert found == {key: value[key] for key in found} and isinstance(number, Inert)
    assert f"{type(layer).__module__}.{type(layer).__name__}" == "torch.nn.modules.activation.SiLU"
    assert isinstance(layer, Inert) and layer.state["inplace"] is False


def doubled(levels: int, kind: str) -> bytes:
    """Instructions for a value that holds another twice, which holds another twice, and so on."""
    if kind == "tuple":
        return b")" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(levels))
    first, fill = (b"]q\0", b"(h%ch%ce") if kind == "list" else (b"}q\0", b"(K\1h%cK\2h%cu")
    return first + b"".join(first[:1] + b"q%c" % (i + 1) + fill % (i, i) for i in range(levels))


# What torch does with a value; some of its errors print it.
USES = {"call": b"ctorch._utils\n_rebuild_tensor_v2\n%bR", "argument": b"ctorch\nSize\n%b\x85R", "class": b"%b)\x81",
        "items of a set": b"c__builtin__\nset\n%b\x85R", "device": b"ctorch\ndevice\n%b\x85R", "storage": b"%bQ",
        "key": b"}%bK\1s", "state": b"cmodels.yolo\nModel\n)\x81%bb", "value": b"}X\5\0\0\0model%bs"}


@pytest.mark.parametrize("kind", ["list", "dict", "tuple"])
@pytest.mark.parametrize("use", USES)
def test_a_value_that_doubles_itself_again_and_again_costs_nothing(tmp_path, kind, use):
    """A list of 26 levels took 32 s and 1.4 GiB, when an error of torch's printed it; a tuple is hashed as a key."""
    value = USES[use] % doubled(60, kind)
    with pytest.raises(StudyError, match="uses values again"):
        read_checkpoint(write_container(tmp_path / "last.pt", b"\x80\x02" + value + b"."))


def test_a_value_is_filled_before_it_stands_in_another(tmp_path):
    """Else it could grow behind the count."""
    late = b"]q\0]q\1(h\0h\0e0h\0(K\1K\1e."
    with pytest.raises(StudyError, match="changes a value that stands in another"):
        read_checkpoint(write_container(tmp_path / "a.pt", b"\x80\x02" + late))


def test_another_byte_order_is_refused(tmp_path):
    with pytest.raises(StudyError, match=r"numbers in the byte order 'big', and this machine in another\. Delete"):
        read_checkpoint(write_container(tmp_path / "last.pt", b"\x80\x02N.", {"byteorder": b"big"}))


def test_compressed_and_overlapping_entries_are_refused_before_they_are_unpacked(tmp_path):
    for entries, words in (({"data/0": bytes(64 << 20)}, "zip bomb"), ({}, "compressed")):
        path = write_container(tmp_path / "last.pt", b"\x80\x02N.", entries, zipfile.ZIP_DEFLATED)
        assert path.stat().st_size < 1 << 20
        with pytest.raises(StudyError, match=words):
            read_checkpoint(path)
    # many entries that share the same bytes: each is honest alone, together they are larger than the file
    path = write_container(tmp_path / "last.pt", b"\x80\x02N.", {"data/0": bytes(100_000)})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data/50", b"")
        for i in range(1, 50):
            info = copy(archive.getinfo("archive/data/0"))
            info.filename = info.orig_filename = f"archive/data/{i}"
            archive.filelist.append(info)
    with pytest.raises(StudyError, match="zip bomb"):
        read_checkpoint(path)


@pytest.mark.parametrize("name", ["archive/../evil", "/etc/passwd", "archive/data/../../x", "archive/code/a.py",
                                  "../data/0", "archive/data/0/1", "archive\\data\\0", "other/data/0",
                                  "archive/data/x", "archive/version"])
def test_entries_with_other_names_or_twice_are_refused(tmp_path, name):
    path = write_container(tmp_path / "last.pt", b"\x80\x02N.")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns() if name == "archive/version" else nullcontext():
        archive.writestr(name, b"x")
    with pytest.raises(StudyError, match="entry"):
        read_checkpoint(path)


def test_other_files_are_refused_in_words(tmp_path):
    torch.save({"a": torch.zeros(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "page.pt").write_text("<html>not found</html>")
    (tmp_path / "empty.pt").write_bytes(b"")
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("archive/version", b"3")
    for name, words in (("old", "before version 1.6"), ("page", "no checkpoint"), ("empty", "no checkpoint"),
                        ("zip", "data.pkl"), ("absent", "not found")):
        with pytest.raises(StudyError, match=rf"{name}\.pt: .*{words}"):
            read_checkpoint(tmp_path / f"{name}.pt")


@pytest.fixture(scope="module")
def honest() -> bytes:
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1), torch.nn.SiLU()).half()
    torch.save({"model": model, "epoch": 3}, file := BytesIO())
    return file.getvalue()


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["truncated", "damaged", "forged", "forged"]), st.data())
def test_a_damaged_file_is_refused_or_read_but_never_a_traceback(honest, tmp_path_factory, kind, data):
    def damaged(content: bytes, most: int) -> bytes:
        changed = bytearray(content)
        for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=most)):
            changed[place] = data.draw(st.integers(0, 255))
        return bytes(changed)

    path = tmp_path_factory.mktemp(kind) / "a.pt"
    if kind == "forged":  # behind the checksum: what a forger would change
        with zipfile.ZipFile(BytesIO(honest)) as archive:
            entries = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
        entries.pop("version", None)
        write_container(path, damaged(entries.pop("data.pkl"), 6), entries)
    else:
        size = data.draw(st.integers(0, len(honest) - 1))
        path.write_bytes(honest[:size] if kind == "truncated" else damaged(honest, 4))
    with pytest.raises(StudyError) if kind == "truncated" else suppress(StudyError):
        read_checkpoint(path)
