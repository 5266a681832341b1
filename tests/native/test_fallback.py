"""native.py: which module is used, what is said where there is none, and what `doctor` is told."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from nas_engine import native

WITHOUT = "import sys; sys.modules['nas_engine._C'] = None\n"  # the import system then reports it as missing
STALE = """
import sys, types
old = types.ModuleType("nas_engine._C")
old.INTERFACE, old.__file__ = 0, "/old/_C.so"
sys.modules["nas_engine._C"] = old
"""
PRICE = """
import numpy as np
from nas_engine.ops.cost_estimate import cost_estimate
from nas_engine.ops.cost_table import CostTable, PriceList
def price():
    one = np.ones((1, 1), dtype=np.int64)
    prices = PriceList([CostTable(("macs",), (), one, one[None, None])], (1,))
    print(cost_estimate(np.zeros((1, 1), dtype=np.int64), prices).counts.item())
price(); price()
"""

LEARN = """
from nas_engine import native
from nas_engine.controllers.ppo import PPOController, PPOOptions
from nas_engine.testing.block_space import BlockSpace
controller = PPOController(BlockSpace(), PPOOptions(replay=16), seed=0)
for _ in range(3):
    proposed = controller.propose(8)
    controller.update(proposed, [float(sum(architecture.genes)) for architecture in proposed])
    print(*(architecture.key for architecture in proposed))
print(native.available())
"""


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name != "NAS_ENGINE_REQUIRE_NATIVE"}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**clean, **environment}
    )


def test_without_native_the_reference_runs_with_one_warning() -> None:
    done = run(WITHOUT + PRICE)
    assert done.stdout.split() == ["2", "2"]
    assert done.stderr.count("slower Python references") == 1


def test_required_native_is_an_error_that_says_why() -> None:
    done = run(WITHOUT + PRICE, NAS_ENGINE_REQUIRE_NATIVE="1")
    assert done.returncode == 1
    assert "NativeError: NAS_ENGINE_REQUIRE_NATIVE=1 is set, but " in done.stderr
    assert "pip install" in done.stderr


def test_a_stale_module_is_not_used_but_explained() -> None:
    done = run(STALE + PRICE)
    assert done.stdout.split() == ["2", "2"]
    assert f"/old/_C.so is of another version (interface 0, needed {native.INTERFACE})" in done.stderr


@pytest.mark.parametrize("setup", [WITHOUT, STALE])
def test_capabilities_report_the_problem_without_warning(setup: str) -> None:
    done = run(setup + "from nas_engine import native; print(native.available(), native.capabilities())")
    assert done.stdout.startswith("False {'available': False, 'problem': '")
    assert "pip install" in done.stdout
    assert done.stderr == ""


@pytest.mark.skipif(not native.available(), reason=native.problem())
def test_capabilities_of_an_installed_module() -> None:
    found = native.capabilities()
    assert found["available"] is True
    assert found["problem"] == ""
    assert os.path.exists(found["file"])
    assert found["compiler"]
    assert found["openmp"] >= 0
    assert found["cuda_devices"] == 0 or found["cuda"]


def test_a_policy_learns_the_same_with_and_without_native() -> None:
    """Rounding apart, which a few proposals do not show."""
    native_lines, reference_lines = run(LEARN).stdout.splitlines(), run(WITHOUT + LEARN).stdout.splitlines()
    assert (native_lines.pop(), reference_lines.pop()) == (str(native.available()), "False")
    assert native_lines == reference_lines
    assert len(native_lines) == 3
