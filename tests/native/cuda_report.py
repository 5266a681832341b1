"""Compiles every CUDA kernel for sm_80 and sm_90 (and PTX) and reports registers and spills: cuda_report.py.

The exit status is 1 where a kernel does not compile or spills registers to memory, and 0 without a CUDA compiler.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGETS = ("sm_80", "sm_90")
_KERNEL = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for '(?P<target>\w+)'.*?"
    r"(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers",
    re.DOTALL,
)


@dataclass(frozen=True)
class Kernel:
    """What the assembler made of one kernel."""

    name: str
    target: str
    registers: int
    spilled_bytes: int


def nvcc() -> str | None:
    """The CUDA compiler, or None."""
    home = os.environ.get("CUDA_HOME") or "/usr/local/cuda"
    return os.environ.get("CUDACXX") or shutil.which("nvcc") or shutil.which("nvcc", path=f"{home}/bin")


def compile_kernels(compiler: str, source: Path) -> list[Kernel]:
    """Compile one file for all targets.

    Raises:
        subprocess.CalledProcessError: it does not compile; its `stderr` says why.
    """
    targets = [f"-gencode=arch=compute_{target[3:]},code={target}" for target in TARGETS]
    ptx = f"-gencode=arch=compute_{TARGETS[-1][3:]},code=compute_{TARGETS[-1][3:]}"
    with tempfile.TemporaryDirectory() as folder:
        command = [compiler, "-std=c++17", f"-I{ROOT / 'csrc'}", *targets, ptx, "-Xptxas", "-v", "-Werror=all-warnings"]
        command += ["-c", str(source), "-o", str(Path(folder) / "kernels.o")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = _KERNEL.finditer(done.stderr + done.stdout)
    return [
        Kernel(_readable(one["name"]), one["target"], int(one["registers"]), int(one["stores"]) + int(one["loads"]))
        for one in found
    ]


def _readable(mangled: str) -> str:
    name = re.search(r"\d([a-z_]+_kernel)(ILb(\d)E)?", mangled)
    if name is None:
        return mangled
    return name[1] + ("" if name[3] is None else f"<{'true' if name[3] == '1' else 'false'}>")


def main() -> int:
    """Print a line for each kernel and target."""
    compiler = nvcc()
    if compiler is None:
        sys.stdout.write("no CUDA compiler here: the kernels were not compiled\n")
        return 0
    spilled = False
    for source in sorted((ROOT / "csrc" / "cuda").glob("*.cu")):
        try:
            kernels = compile_kernels(compiler, source)
        except subprocess.CalledProcessError as error:
            sys.stdout.write(f"{source.name} does not compile:\n{error.stdout}{error.stderr}")
            return 1
        for kernel in kernels:
            spilled |= kernel.spilled_bytes > 0
            sys.stdout.write(
                f"{source.name:20} {kernel.target}  {kernel.name:24} {kernel.registers:4} registers  "
                f"{kernel.spilled_bytes:4} bytes spilled\n"
            )
    return int(spilled)


if __name__ == "__main__":
    sys.exit(main())
