"""Reading a checkpoint that pickled whole objects, without executing anything that it contains.

The official checkpoints (reference §1.8) hold a pickle of ``nn.Module`` objects. A pickle is a program: Python's
unpickler imports any name that it asks for and calls it. Here the program runs on a machine of our own that knows the
instructions that torch.save writes and an exact list of names. It imports none of them and calls none of them: objects
become :class:`Inert` (a name, arguments and a state), tensors a place in the file
(:class:`yolopose.released.pickle_archive.StoredTensor`), and every other name is refused and named.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from typing import Any

from yolopose.released.pickle_archive import NUMBERS, Archive, Storage, StoredTensor, place_tensor, whole_numbers

# Objects of these classes are kept as names with a state. Their code is not needed, and need not be installed.
OBJECTS = frozenset({
    *(("models.yolo", name) for name in ("Model", "Detect")),
    *(("models.common", name) for name in ("Focus", "ConvFocus", "Contract", "Conv", "Bottleneck", "C3", "SPP",
                                           "Concat")),
    ("torch.nn.modules.conv", "Conv2d"), ("torch.nn.modules.batchnorm", "BatchNorm2d"),
    ("torch.nn.modules.activation", "SiLU"), ("torch.nn.modules.activation", "ReLU"),
    ("torch.nn.modules.pooling", "MaxPool2d"), ("torch.nn.modules.upsampling", "Upsample"),
    ("torch.nn.modules.container", "Sequential"), ("torch.nn.modules.container", "ModuleList"),
    ("torch.nn.modules.linear", "Identity"),
})
# Functions whose result nothing here reads (the best score is a NumPy number): kept as names with arguments.
UNREAD = frozenset({
    ("torch", "device"), ("_codecs", "encode"), ("numpy", "dtype"),
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
})
# Functions that the machine answers itself; see _answer.
ANSWERED = frozenset({
    ("collections", "OrderedDict"), ("__builtin__", "set"), ("builtins", "set"), ("torch", "Size"),
    ("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_parameter"),
})
STORAGES = {f"{kind}Storage": kind for kind in NUMBERS}
# Names that stand for themselves: kinds of numbers, and the class that a NumPy array's arguments name.
VALUES = frozenset({("numpy", "ndarray"), *(("torch", name) for name in STORAGES),
                    *(("torch", dtype) for dtype, _ in NUMBERS.values())})
ALLOWED = OBJECTS | UNREAD | ANSWERED | VALUES
MAX_DEPTH = 100
KEYS = (str, int, float, bool, type(None))  # of dictionaries: hashing nested tuples can take for ever
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
LITERALS = frozenset({"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE",
                      "BINBYTES", "SHORT_BINBYTES", "BINSTRING", "SHORT_BINSTRING"})


@dataclass(frozen=True)
class Name:
    """An allowed name that the pickle mentions; nothing is imported for it."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Inert:
    """What stands in place of an object: the name that would make it, its arguments and the state it would get."""

    name: str
    args: tuple = ()
    state: Any = None


def load_inert(archive: Archive) -> Any:
    """The value that a checkpoint pickled, as plain values, :class:`Inert` and ``StoredTensor``.

    Raises:
        StudyError: the pickle asks for a name that is not allowed (which is named), or is none that torch.save writes.
    """
    return _Machine(archive).run(archive.read_pickle())


class _Machine:
    """The pickle machine. It holds only plain values, :class:`Name`, :class:`Inert` and places in the archive."""

    def __init__(self, archive: Archive):
        self.archive, self.refuse = archive, archive.refuse
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        try:
            for opcode, argument, _ in pickletools.genops(data):
                if opcode.name == "STOP":
                    value = self.stack.pop()
                    _check_depth(value, self.archive)
                    return value
                self._step(opcode.name, argument)
        except (ValueError, IndexError, KeyError, OverflowError) as error:
            self.refuse(f"its pickle is damaged ({type(error).__name__}: {error}); delete the file and fetch it again")

    def _step(self, op: str, argument: Any) -> None:
        stack = self.stack
        if op in LITERALS:
            stack.append(argument)
        elif op in CONSTANTS:
            stack.append(CONSTANTS[op])
        elif op in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif op == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif op in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif op == "MARK":
            self.marked.append(stack)
            self.stack = []
            if len(self.marked) > MAX_DEPTH:
                self.refuse(f"its pickle is nested deeper than {MAX_DEPTH} levels; delete the file")
        elif op in ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE"):
            stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[op]())
        elif op in ("TUPLE1", "TUPLE2", "TUPLE3"):
            stack.append(tuple(self._pop(int(op[-1]))))
        elif op == "TUPLE":
            items = self._pop_mark()
            self.stack.append(tuple(items))
        elif op in ("APPEND", "APPENDS"):
            self._extend(self._pop(1) if op == "APPEND" else self._pop_mark())
        elif op in ("SETITEM", "SETITEMS"):
            self._set_items(self._pop(2) if op == "SETITEM" else self._pop_mark())
        elif op == "GLOBAL":
            stack.append(self._name(*argument.split(" ", 1)))
        elif op == "STACK_GLOBAL":
            stack.append(self._name(*self._pop(2)))
        elif op == "BINPERSID":
            stack.append(self._storage(stack.pop()))
        elif op in ("NEWOBJ", "REDUCE"):
            function, args = self._pop(2)
            stack.append(self._make(op, function, args))
        elif op == "BUILD":
            state, target = stack.pop(), stack[-1]  # the object stays on the stack
            if type(target) is not Inert or target.state is not None:
                self.refuse(f"its pickle gives a state to a {type(target).__name__}, which torch.save does not do")
            target.state = state
        elif op not in ("PROTO", "FRAME"):
            what = op if argument is None else f"{op} {ascii(argument)[:80]}"
            self.refuse(f"its pickle has the instruction {what}, which torch.save does not write; nothing of it was "
                        "executed. Delete the file")

    def _pop(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise IndexError("empty stack")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def _pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marked.pop()
        return items

    def _extend(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            self.refuse(f"its pickle appends to a {type(self.stack[-1]).__name__}")
        self.stack[-1].extend(items)

    def _set_items(self, items: list[Any]) -> None:
        target, keys, values = self.stack[-1], items[::2], items[1::2]
        if type(target) is not dict or len(keys) != len(values) or any(type(key) not in KEYS for key in keys):
            self.refuse(f"its pickle sets items of a {type(target).__name__} under keys that are no plain values")
        target.update(zip(keys, values, strict=True))

    def _storage(self, pid: Any) -> Storage:
        """The storage that a persistent id names."""
        if not (type(pid) is tuple and len(pid) == 5 and pid[0] == "storage" and type(pid[1]) is Name
                and pid[1].name in STORAGES and type(pid[2]) is str and type(pid[4]) is int and pid[4] >= 0):
            self.refuse("its pickle has a persistent id that is no storage of torch.save")
        return self.archive.storage(STORAGES[pid[1].name], pid[2], pid[4])

    def _name(self, module: Any, name: Any) -> Name:
        if type(module) is not str or type(name) is not str or (module, name) not in ALLOWED:
            self.refuse(f"asks for {ascii(f'{module}.{name}')[1:121]}, which no YOLO-Pose checkpoint needs; nothing of "
                        "it was executed. Do not open the file with torch.load; delete it")
        return Name(module, name)

    def _make(self, op: str, function: Any, args: Any) -> Any:
        """The value of a call that the pickle asks for, made without calling."""
        place = (function.module, function.name) if type(function) is Name else None
        if type(args) is not tuple or place is None or place not in (OBJECTS if op == "NEWOBJ" else UNREAD | ANSWERED):
            what = str(function) if place else f"a {type(function).__name__}"
            self.refuse(f"asks to call {what} in a way that no YOLO-Pose checkpoint does; nothing of it was executed. "
                        "Delete the file")
        if place in ANSWERED:
            try:
                return self._answer(place[1], args)
            except (TypeError, ValueError) as error:
                self.refuse(f"its pickle gives {function} arguments that torch.save does not write ({error})")
        return Inert(str(function), args)

    @staticmethod
    def _answer(name: str, args: tuple) -> Any:
        """Dictionaries, sets, sizes and tensors, from arguments that are checked."""
        if name == "OrderedDict" and not args:
            return {}
        if name == "set" and len(args) == 1 and all(type(item) in KEYS for item in args[0]):
            return frozenset(args[0])
        if name == "Size" and len(args) == 1:
            return whole_numbers(args[0])
        if name == "_rebuild_parameter" and len(args) == 3 and type(args[0]) is StoredTensor:
            return args[0]
        if name == "_rebuild_tensor_v2" and len(args) in (6, 7) and type(args[0]) is Storage:
            return place_tensor(args[0], args[1], whole_numbers(args[2]), whole_numbers(args[3]))
        raise ValueError(f"{len(args)} of them")


def _check_depth(root: Any, archive: Archive) -> None:
    """Refuse a value that is nested too deep for those who read it; every container is visited once."""
    level, seen, depth = [root], set(), 0
    while level:
        below: list[Any] = []
        for value in level:
            if type(value) not in (dict, list, tuple, Inert) or id(value) in seen:
                continue
            seen.add(id(value))
            below += (value.values() if type(value) is dict else (value.args, value.state) if type(value) is Inert
                      else value)
        level, depth = below, depth + 1
        if depth > MAX_DEPTH:
            archive.refuse(f"its pickle is nested deeper than {MAX_DEPTH} levels; delete the file")
