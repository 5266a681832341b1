# Each target sets up what it needs; a fresh machine needs Python >= 3.11, make and g++.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
DATA := $(wildcard ../shared/data)
# In the order of their names, so that files of few but long tests, which compile or search, are not the last.
PYTEST := $(BIN)/pytest --numprocesses auto --dist loadfile --no-loadscope-reorder
GPU_PYTHON ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))
export NAS_ENGINE_DATA ?= $(abspath $(DATA))

.PHONY: search test test-slow coverage check format test-native cuda-report build-gpu test-gpu \
  bench bench-gpu clean

search: $(READY)
	$(BIN)/python -m nas_engine search

# All tests but those that compile the module again, kill searches or search for long; these are `test-slow`.
test: $(READY)
	$(PYTEST) -m "not slow"

test-slow: $(READY)
	$(PYTEST) -m slow

coverage: $(READY)
	$(PYTEST) --cov nas_engine --cov nas_envs --cov-report term

# The C++ tests under AddressSanitizer with UndefinedBehaviorSanitizer and under ThreadSanitizer; the bodies of CUDA
# kernels run as plain C++.
test-native: $(READY)
	$(BIN)/python tests/native/run_ctest.py
	$(BIN)/python tests/native/run_ctest.py --sanitize thread

# Registers and spills of every CUDA kernel; a spill is an error. Needs nvcc, no GPU.
cuda-report: $(READY)
	$(BIN)/python tests/native/cuda_report.py

# On a machine with a GPU and nvcc; elsewhere every test is skipped with the reason. Nothing is installed: the Python
# needs torch, numpy, pybind11, cmake, ninja and pytest.
test-gpu: build-gpu
	$(GPU_PYTHON) -m pytest -m gpu tests/ops/test_*_cuda.py

bench-gpu: build-gpu
	PYTHONPATH=. $(GPU_PYTHON) benchmarks/supernet_eval_cuda.py --out benchmarks/results/supernet_eval_cuda.json

build-gpu:
	NAS_ENGINE_BUILD=cuda $(GPU_PYTHON) setup.py --quiet build_ext --inplace

# Style, types, layers and C++ format; no file is changed.
check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	git ls-files 'csrc/*' 'tests/native/*' | grep -E '\.(cpp|cu|cuh|h)$$' | xargs $(BIN)/clang-format --dry-run --Werror

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	git ls-files 'csrc/*' 'tests/native/*' | grep -E '\.(cpp|cu|cuh|h)$$' | xargs $(BIN)/clang-format -i

bench: $(READY)
	cd benchmarks && for script in cost_estimate env_step policy_step known_optimum code_size; do \
	  ../$(BIN)/python $$script.py --out results/$$script.json || exit 1; done

# Installed once, and again whenever what it is built from changes.
$(READY): pyproject.toml setup.py constraints.txt CMakeLists.txt $(wildcard csrc/*.cpp csrc/*/*)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf build $(VENV)
