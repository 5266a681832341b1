"""Configures, builds and runs the C++ tests: python tests/native/run_ctest.py [--sanitize WHAT] [FOLDER]."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOLS = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])


def run_ctest(folder: Path, sanitizers: str) -> None:
    """Build the tests in `folder` with `sanitizers` (may be empty) and run them.

    Raises:
        subprocess.CalledProcessError: a compile or a test failed; the output says which.
    """
    cmake, ctest, ninja = (str(shutil.which(tool, path=TOOLS)) for tool in ("cmake", "ctest", "ninja"))
    switches = {
        "NAS_ENGINE_PYTHON": "OFF",
        "NAS_ENGINE_TESTS": "ON",
        "NAS_ENGINE_SANITIZE": sanitizers,
        "NAS_ENGINE_AVX512": _avx512(sanitizers),
    }
    defines = [f"-D{name}={value}" for name, value in {**switches, "CMAKE_MAKE_PROGRAM": ninja}.items()]
    for command in (
        [cmake, "-S", str(ROOT), "-B", str(folder), "-G", "Ninja", *defines],
        [cmake, "--build", str(folder)],
        [ctest, "--test-dir", str(folder), "--output-on-failure"],
    ):
        # Threads that wait spin otherwise: most of the time where there are more of them than processors.
        subprocess.run(command, check=True, env={**os.environ, "OMP_WAIT_POLICY": "passive"})


def _avx512(sanitizers: str) -> str:
    """Without AVX-512 its kernels run emulated, in one of the builds: they take long to compile."""
    information = Path("/proc/cpuinfo")
    if not information.exists() or "avx512vl" in information.read_text():
        return "ON"
    return "EMULATED" if sanitizers == "thread" else "OFF"


def main() -> int:
    """Run the tests in a folder given or a temporary one; the exit status says whether all passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--sanitize",
        default="address,undefined",
        metavar="WHAT",
        help="address,undefined (default), thread, or '' for none",
    )
    parser.add_argument("folder", nargs="?", type=Path, help="build folder to keep (default: a temporary one)")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as temporary:
            run_ctest(options.folder or Path(temporary), options.sanitize)
    except subprocess.CalledProcessError as error:
        return int(error.returncode)
    return 0


if __name__ == "__main__":
    sys.exit(main())
