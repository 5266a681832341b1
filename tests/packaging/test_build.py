"""Each value of NAS_ENGINE_BUILD does what it says, and a compile that fails says what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from nas_engine import native

ROOT = Path(__file__).resolve().parents[2]
TOOLS = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
NEW_MODULE = "import sys; sys.path.insert(0, sys.argv[1]); import _C; print(_C.INTERFACE, _C.capabilities())"


def build(folder: Path, mode: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Without optimisation, which takes most of the time: all other tests run the optimised module."""
    command = [sys.executable, "setup.py", "build_ext", "--debug"]
    command += [f"--build-lib={folder}/lib", f"--build-temp={folder}/temp"]
    return subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": TOOLS, "NAS_ENGINE_BUILD": mode, **environment},
    )


def imported(folder: Path) -> str:
    command = [sys.executable, "-c", NEW_MODULE, str(folder / "lib" / "nas_engine")]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_an_unknown_build_is_one_clear_line(tmp_path: Path) -> None:
    done = build(tmp_path, "gpu")
    assert done.returncode == 1
    assert done.stderr.strip() == "nas-engine: NAS_ENGINE_BUILD='gpu' is unknown; allowed: auto, cpu, cuda, none"


@pytest.mark.slow
@needs_compiler
def test_a_cpu_build_imports(tmp_path: Path) -> None:
    done = build(tmp_path, "cpu")
    assert done.returncode == 0, done.stdout + done.stderr
    assert imported(tmp_path).startswith(f"{native.INTERFACE} ")
    assert "'cuda': ''" in imported(tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
def test_auto_takes_cuda_where_nvcc_exists_and_imports_without_a_driver(tmp_path: Path) -> None:
    done = build(tmp_path, "auto")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "'cuda': ''" not in imported(tmp_path)


@needs_compiler
@pytest.mark.parametrize("mode", ["auto", "cpu", "cuda"])
def test_a_failing_compile_names_the_way_out(tmp_path: Path, mode: str) -> None:
    done = build(tmp_path, mode, CXX=str(shutil.which("false")))
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert f"did not compile with NAS_ENGINE_BUILD={mode}" in last
    assert "NAS_ENGINE_BUILD=none" in last


_DESCRIPTION = "nas_engine/tables/builtin/nasbench201.yaml"


@pytest.mark.slow
def test_none_makes_a_pure_wheel_with_both_packages(tmp_path: Path) -> None:
    # A copy, for setuptools leaves its build folder in the source tree.
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns(".venv", ".git", "runs", "build", "*.so", "*.egg-info", ".*_cache", "__pycache__")
    shutil.copytree(ROOT, source, ignore=ignored)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, source]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "NAS_ENGINE_BUILD": "none"})
    [wheel] = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    files = zipfile.ZipFile(wheel).namelist()
    assert {"nas_engine/py.typed", "nas_envs/py.typed", "nas_envs/vector_env.py", _DESCRIPTION} <= set(files)
    assert not [name for name in files if name.startswith(("nas_engine/_C", "envs/", "tests/", "csrc/"))]
