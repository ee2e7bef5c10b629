"""This machine, as far as its operating system tells: without torch, at once."""

import platform
import re
from contextlib import suppress
from pathlib import Path


def cpu_name() -> str:
    """The processor's name, such as ``AMD EPYC 9654``."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def lacks_bfloat16() -> bool:
    """Whether this is known to be a CPU on which training computes in float32, for want of bfloat16 instructions."""
    flags = _cpuinfo("flags").split()
    return bool(flags) and not {"avx512_bf16", "amx_tile"} & set(flags)


def _cpuinfo(name: str) -> str:
    """What Linux tells of its first processor; empty where there is none of that."""
    with suppress(OSError):
        if found := re.search(rf"^{name}\s*: *(.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.M):
            return found[1].strip()
    return ""
