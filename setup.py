"""Builds nas_engine._C with CMake as NAS_ENGINE_BUILD says; everything else about the package is in pyproject.toml."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

BUILD = os.environ.get("NAS_ENGINE_BUILD", "auto")
CHOICES = ("auto", "cpu", "cuda", "none")
ROOT = Path(__file__).resolve().parent


def nvcc() -> str | None:
    """Path of the CUDA compiler, found as CMake finds it: CUDACXX, then PATH, then CUDA_HOME."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    return os.environ.get("CUDACXX") or shutil.which("nvcc") or shutil.which("nvcc", path=str(Path(home) / "bin"))


class CMakeBuild(build_ext):
    """Lets CMake compile the one extension, and says in one sentence what to do where it cannot."""

    def build_extension(self, ext: Extension) -> None:
        """Configure, build and install into the folder where setuptools expects the module."""
        # pybind11 is a requirement of the build, absent where setup.py only answers questions about metadata.
        import pybind11

        cuda = BUILD == "cuda" or (BUILD == "auto" and nvcc() is not None)
        folder = Path(self.build_temp).resolve() / ("cuda" if cuda else "cpu")
        target = Path(self.get_ext_fullpath(ext.name)).resolve().parent
        # All paths are repeated on each call: an isolated build brings its own tools, at another place every time.
        options = {
            "CMAKE_BUILD_TYPE": "Debug" if self.debug else "Release",
            "CMAKE_INSTALL_PREFIX": str(target),
            "CMAKE_MAKE_PROGRAM": shutil.which("ninja") or "ninja",
            "Python_EXECUTABLE": sys.executable,
            "pybind11_DIR": pybind11.get_cmake_dir(),
            "NAS_ENGINE_CUDA": "ON" if cuda else "OFF",
        }
        if cuda:
            options["CMAKE_CUDA_COMPILER"] = nvcc() or "nvcc"
        defines = [f"-D{name}={value}" for name, value in options.items()]
        run_cmake("-S", str(ROOT), "-B", str(folder), "-G", "Ninja", *defines)
        run_cmake("--build", str(folder), "--target", "install")


def run_cmake(*arguments: str) -> None:
    """Run one CMake command; its own output says what is wrong, the error says what to do."""
    try:
        subprocess.run(["cmake", *arguments], check=True)
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        raise SystemExit(
            f"nas-engine: the native module did not compile with NAS_ENGINE_BUILD={BUILD} ({error}); the reason is "
            "above. Install a C++17 compiler, or set NAS_ENGINE_BUILD=cpu to leave out CUDA, or "
            "NAS_ENGINE_BUILD=none to install the slower pure Python package."
        ) from error


if BUILD not in CHOICES:
    raise SystemExit(f"nas-engine: NAS_ENGINE_BUILD={BUILD!r} is unknown; allowed: {', '.join(CHOICES)}")

setup(
    package_dir={"nas_engine": "nas_engine", "nas_envs": "envs"},
    ext_modules=[] if BUILD == "none" else [Extension("nas_engine._C", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
)
