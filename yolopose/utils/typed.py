"""Values out of YAML and JSON held against types: one reading in place of a check for each fault.

A type is a dataclass (of whose keys none may be unknown or missing), a ``TypedDict`` (further keys are kept as they
are), ``list``, ``tuple``, ``dict``, a union, ``Literal``, a scalar, or ``Annotated`` with limits such as those below.
Values are not converted, except lists into tuples: an integer where a float is allowed stays one, for hashes are taken.
(pydantic would do it; it is not among the requirements, and every ``make status`` would wait for its import.)
"""

import difflib
import re
import types
import typing
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml

from yolopose.utils.errors import StudyError

LARGEST = 1e15  # of any number that is read: what is computed of those stays finite
WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


class Mismatch(ValueError):
    """A value is not of the type that is wanted at ``key``, a path of keys separated by dots."""

    def __init__(self, key: str, problem: str):
        super().__init__(f"{key}: {problem}" if key else problem)
        self.key = key


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, above ``above``, whole multiples of ``step``; of a list or text: its length."""

    low: float = -LARGEST
    high: float = LARGEST
    above: float = -float("inf")
    step: int = 1

    def check(self, value: Any, key: str) -> None:
        """Raise a Mismatch where a value is not within."""
        size = value if isinstance(value, (int, float)) else len(value)
        if self.low <= size <= self.high and size > self.above and (self.step == 1 or size % self.step == 0):
            return
        words = [f"above {self.above:g}"] if self.above >= self.low else [f"from {self.low:g}"] * (self.low > -LARGEST)
        words += [f"up to {self.high:g}"] * (self.high < LARGEST) + [f"in steps of {self.step}"] * (self.step != 1)
        what = "be" if size is value else "have a length"
        raise Mismatch(key, f"must {what} {' '.join(words)}, not {shown(size)}")


@dataclass(frozen=True)
class Matches:
    """Text that a regular expression matches from end to end; ``words`` tell which that is."""

    pattern: str
    words: str

    def check(self, value: str, key: str) -> None:
        """Raise a Mismatch where it does not."""
        if not re.fullmatch(self.pattern, value):
            raise Mismatch(key, f"must be {self.words}, not {shown(value)}")


AtLeast0 = Annotated[float, Range(0)]
Above0 = Annotated[float, Range(above=0)]
Share = Annotated[float, Range(0, 1)]
Count = Annotated[int, Range(0)]
Positive = Annotated[int, Range(1)]
# Part of a path: of a folder's name and of a file's.
Name = Annotated[str, Matches(r"\w[\w.+-]{0,99}", "a name of letters, digits, '_', '-' and '.'")]


def nearest(name: str, known: Iterable[str]) -> str:
    """The part of an error message that lists the known names, the nearest one first where there is one."""
    known = list(known)
    close = difflib.get_close_matches(str(name), known, n=1)
    return (f"did you mean {close[0]!r}? " if close else "") + f"known: {', '.join(known)}"


def shown(value: Any) -> str:
    """A value for a message, in at most 60 characters; of a list or mapping, which may be large, its kind alone."""
    if isinstance(value, (list, tuple, dict)):
        return "a mapping" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and abs(value) > LARGEST:
        return "a huge number"
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


@cache
def hints(kind: type) -> dict[str, Any]:
    """Types of the keys of a dataclass or TypedDict."""
    found = typing.get_type_hints(kind, include_extras=True)
    return {name: get_args(part)[0] if get_origin(part) is typing.NotRequired else part for name, part in found.items()}


def conform(kind: Any, value: Any, key: str = "", **given: Any) -> Any:
    """``value`` as ``kind``, else a :class:`Mismatch` at the key, below ``key``, that is wrong; ``given`` are fields of
    a dataclass that have their value already and may not be given again."""
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin is Annotated:
        value = conform(args[0], value, key)
        for limit in kind.__metadata__:
            limit.check(value, key)
        return value
    if origin in (typing.Union, types.UnionType):
        return _one_of(args, value, key)
    if origin is Literal:
        if isinstance(value, (bool, list, dict)) or value not in args:
            words = ", ".join(str(word) for word in args if word is not None)
            raise Mismatch(key, f"{shown(value)} is none of {words}")
        return value
    if is_dataclass(kind) or typing.is_typeddict(kind) or origin is dict:
        if not isinstance(value, dict):
            raise Mismatch(key, f"must be a mapping of keys to values, not {shown(value)}")
        return _mapping(kind, value, key, given)
    if origin in (list, tuple):
        return _sequence(origin, args, value, key)
    fits = (isinstance(value, kind) or (kind is float and isinstance(value, int))) and (
        kind is bool or not isinstance(value, bool)) if kind is not type(None) else value is None
    if not fits:
        raise Mismatch(key, f"must be {WORDS.get(kind, 'empty')}, not {shown(value)}")
    if isinstance(value, (int, float)) and not -LARGEST <= value <= LARGEST:  # and NaN, which no comparison is true of
        raise Mismatch(key, f"must be {WORDS[kind]} of usual size, not {shown(value)}")
    if isinstance(value, str) and not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
        raise Mismatch(key, f"must be text, not {shown(value)} with half a character")
    return value


def _one_of(kinds: Iterable[Any], value: Any, key: str) -> Any:
    """The first kind that fits; else the Mismatch that lies deepest, which is that of the kind that was meant."""
    found: list[Mismatch] = []
    for kind in kinds:
        try:
            return conform(kind, value, key)
        except Mismatch as error:
            if kind is not type(None):
                found.append(error)
    raise max(found, key=lambda error: len(error.key))


def _mapping(kind: Any, value: dict[Any, Any], key: str, given: dict[str, Any]) -> Any:
    def below(name: Any) -> str:
        return f"{key}.{name}" if key else str(name)

    if get_origin(kind) is dict:
        names, values = get_args(kind)
        return {conform(names, name, below(shown(name).strip("'"))): conform(values, part, below(name))
                for name, part in value.items()}
    known = {name: part for name, part in hints(kind).items() if name not in given}
    if is_dataclass(kind):
        needed = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING} - set(given)
        if unknown := [name for name in value if name not in known]:
            raise Mismatch(key, f"unknown key {shown(unknown[0])}; {nearest(unknown[0], known)}")
    else:
        needed = kind.__required_keys__
    if lacking := [repr(name) for name in known if name in needed and name not in value]:
        raise Mismatch(key, f"missing {', '.join(lacking)}")
    read = {name: conform(known[name], part, below(name)) if name in known else part for name, part in value.items()}
    return kind(**given, **read) if is_dataclass(kind) else read


def _sequence(kind: type, parts: tuple[Any, ...], value: Any, key: str) -> Any:
    if not isinstance(value, (list, tuple)):
        raise Mismatch(key, f"must be a list, not {shown(value)}")
    if kind is list or parts[-1] is ...:
        parts = parts[:1] * len(value)
    if len(parts) != len(value):
        raise Mismatch(key, f"must be a list of {len(parts)}, not of {len(value)}")
    return kind(conform(part, one, f"{key}.{n}") for n, (part, one) in enumerate(zip(parts, value, strict=True)))


class _Loader(yaml.SafeLoader):
    """Plain values alone: PyYAML would take the last of two equal keys in silence, and a few aliases of aliases grow
    into gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "aliases are not read", self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for name, _ in node.value:
            if name.value in seen if isinstance(name, yaml.ScalarNode) else False:
                raise yaml.constructor.ConstructorError(None, None, f"the key {name.value!r} is there twice",
                                                        name.start_mark)
            seen.add(str(name.value))
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, kind: Any, **given: Any) -> Any:
    """The YAML in a file as ``kind``; a StudyError names file and key of what is wrong."""
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506  (a SafeLoader)
    except RecursionError:
        raise StudyError(f"{path}: cannot be read as YAML: nested too deeply; restore the file") from None
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: bytes, dates or numbers that are none
        raise StudyError(f"{path}: cannot be read as YAML: {error}; correct or restore the file") from error
    return held(kind, value, path, "correct it", **given)


def held(kind: Any, value: Any, file: Path | str, remedy: str, key: str = "", **given: Any) -> Any:
    """:func:`conform`, with a StudyError that names the file and the remedy."""
    try:
        return conform(kind, value, key, **given)
    except Mismatch as error:
        raise StudyError(f"{file}: {error}; {remedy}") from error
