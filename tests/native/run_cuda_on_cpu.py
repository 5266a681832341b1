"""Builds a native module whose CUDA kernels are plain C++ with real threads, and compares it with the reference.

python tests/native/run_cuda_on_cpu.py FOLDER    (build folder; the process loads no other native module)
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
TOOLS = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
sys.path.append(str(ROOT))


def build(folder: Path) -> ModuleType:
    """Compile the module in `folder` and make it this process's `nas_engine._C`."""
    import pybind11

    cmake, ninja = (str(shutil.which(tool, path=TOOLS)) for tool in ("cmake", "ninja"))
    defines = {
        "CMAKE_BUILD_TYPE": "Release",
        "CMAKE_CXX_FLAGS_RELEASE": "-O1",
        "CMAKE_INTERPROCEDURAL_OPTIMIZATION": "OFF",  # pybind11 links with it otherwise, which takes long
        "NAS_ENGINE_AVX512": "OFF",
        "NAS_ENGINE_CUDA_ON_CPU": "ON",
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": pybind11.get_cmake_dir(),
        "CMAKE_MAKE_PROGRAM": ninja,
    }
    options = [f"-D{name}={value}" for name, value in defines.items()]
    subprocess.run([cmake, "-S", str(ROOT), "-B", str(folder), "-G", "Ninja", *options], check=True)
    subprocess.run([cmake, "--build", str(folder)], check=True)
    [file] = folder.glob("_C.*")
    spec = importlib.util.spec_from_file_location("nas_engine._C", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["nas_engine._C"] = module
    spec.loader.exec_module(module)
    return module


def compare(module: ModuleType) -> int:
    """Networks of both spaces, every kind of statistics, odd numbers of images; returns how many were compared."""
    from nas_engine.evaluators.path_programs import path_programs
    from nas_engine.ops.supernet_eval import Statistics, describe, supernet_eval_reference
    from nas_engine.ops.supernet_eval_cuda import GpuPaths
    from nas_engine.spaces.mobilenet import MobileNetSpace
    from nas_engine.spaces.nasbench201 import NASBench201Options, NASBench201Space
    from nas_engine.types import ImageShape

    shape = ImageShape(3, 9, 7, 5)
    rng, compared = np.random.default_rng(0), 0
    for space in (NASBench201Space(shape, NASBench201Options(channels=6, cells=1)), MobileNetSpace(shape)):
        torch.manual_seed(0)
        supernet = space.supernet()
        paths = [space.sample(rng).genes for _ in range(9)]
        programs = path_programs(supernet)
        assert programs is not None
        images = torch.randn(11, shape.channels, shape.height, shape.width)
        with torch.no_grad():
            for genes in paths:  # running statistics that differ from their defaults
                supernet.train()(images, genes)
        labels = torch.randint(shape.classes, (11,))
        for context in dict.fromkeys(programs.context(genes) for genes in paths):
            genes = np.array([genes for genes in paths if programs.context(genes) == context])
            inputs = programs.images(images, context)
            program = programs.program(context, *inputs.shape[2:])
            described = describe(module, program, torch.device("cpu"))
            for statistics in Statistics:
                batches = [inputs[:5], inputs[5:]] if statistics is Statistics.RECALIBRATED else []
                expected = supernet_eval_reference(program, genes, inputs, labels, statistics, batches)
                for limit in (1 << 40, 1):  # all paths at once, and each one alone
                    on_gpu = GpuPaths(module, described, shape.classes, 3, 16, limit)
                    loss, correct, logits = on_gpu.score(
                        genes, inputs, labels, int(statistics), batches, want_logits=True
                    )
                    scale = expected.logits.abs().amax(dim=(1, 2), keepdim=True)
                    assert torch.all((logits - expected.logits).abs() <= 1e-4 * scale), (space.name, statistics)
                    torch.testing.assert_close(loss, expected.loss, rtol=1e-4, atol=1e-4)
                    assert torch.equal(correct, expected.correct)
                    without = on_gpu.score(genes, inputs, labels, int(statistics), batches)
                    assert without[2] is None
                    assert torch.equal(without[0], loss)
                    assert torch.equal(without[1], correct)
                    compared += len(genes)
    return compared


def compare_costs(module: ModuleType) -> int:
    """Costs and rewards of architectures of both spaces; returns how many were compared."""
    from nas_engine.objectives import soft_power
    from nas_engine.ops.cost_estimate import cost_estimate_reference
    from nas_engine.spaces.mobilenet import MobileNetSpace
    from nas_engine.spaces.nasbench201 import NASBench201Space
    from nas_engine.types import ImageShape

    shape, rng = ImageShape(3, 9, 7, 5), np.random.default_rng(0)
    formula = soft_power("macs", target=1e5, exponent_above=-0.5).formula
    spaces = (NASBench201Space(shape), MobileNetSpace(shape))
    for space in spaces:
        memory = space.memory_table()
        assert memory is not None
        prices = space.prices(space.cost_table(), memory)
        genes, accuracy = space.genes([space.sample(rng) for _ in range(500)]), rng.random(500)
        expected = cost_estimate_reference(genes, prices, formula, accuracy)
        counts, rewards, first_bad = np.empty((500, 3), dtype=np.int64), np.empty(500), np.array([500])
        outputs = (counts.ctypes.data, 0, rewards.ctypes.data)
        rows = module.PricedRows(genes.ctypes.data, accuracy.ctypes.data, 500, *outputs)
        native_formula = formula.to_native(module, prices.names)
        module.cost_estimate_cuda(prices.on_cpu(module), native_formula, rows, first_bad.ctypes.data, 0)
        assert first_bad == 500
        np.testing.assert_array_equal(counts, expected.counts)
        np.testing.assert_allclose(rewards, expected.rewards, rtol=1e-12)
    return 500 * len(spaces)


if __name__ == "__main__":
    native = build(Path(sys.argv[1]))
    sys.stdout.write(f"{compare(native)} paths compared, {compare_costs(native)} architectures priced\n")
