"""The C++ tests pass under AddressSanitizer with UndefinedBehaviorSanitizer, and under ThreadSanitizer."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("run_ctest.py")


@pytest.mark.slow
@pytest.mark.timeout(1200)  # compiles: minutes on a busy machine
@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("sanitizers", ["address,undefined", "thread"])
def test_cpp_tests_pass_under_sanitizers(sanitizers: str, tmp_path: Path) -> None:
    command = [sys.executable, SCRIPT, "--sanitize", sanitizers, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "100% tests passed" in done.stdout
