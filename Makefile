# Each target sets up what it needs; a fresh machine needs Python >= 3.11, make and g++.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
DATA := $(wildcard ../shared/data)
export NAS_ENGINE_DATA ?= $(abspath $(DATA))

.PHONY: search test coverage check format test-native test-gpu bench clean

search: $(READY)
	$(BIN)/python -m nas_engine search

test: $(READY)
	$(BIN)/pytest --numprocesses auto --dist loadfile

coverage: $(READY)
	$(BIN)/pytest --numprocesses auto --dist loadfile --cov nas_engine --cov nas_envs --cov-report term

# The C++ tests under AddressSanitizer and UndefinedBehaviorSanitizer, CUDA kernel bodies through the host shim.
test-native: $(READY)
	$(BIN)/python tests/native/run_ctest.py

# On a machine with a GPU; elsewhere every test is skipped with the reason.
test-gpu: $(READY)
	$(BIN)/pytest -m gpu

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
	cd benchmarks && for script in cost_estimate env_step known_optimum code_size; do \
	  ../$(BIN)/python $$script.py --out results/$$script.json || exit 1; done

# Installed once, and again whenever what it is built from changes.
$(READY): pyproject.toml setup.py constraints.txt CMakeLists.txt $(wildcard csrc/*.cpp csrc/*/*)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf build $(VENV)
