"""The GPU ways of scoring paths and pricing, from Python to the kernel bodies, on a machine without a GPU."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("run_cuda_on_cpu.py")


@pytest.mark.slow
@pytest.mark.timeout(1200)  # compiles: minutes on a busy machine
@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
def test_kernels_as_plain_cpp_give_what_pytorch_gives(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, SCRIPT, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "paths compared, 1000 architectures priced" in done.stdout
