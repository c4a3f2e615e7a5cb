# Each target does its own set-up; all that a machine needs is Python 3.10 or newer with pip and venv, make and a C compiler.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Where pip finds torch beside its usual index, such as --extra-index-url https://download.pytorch.org/whl/cpu
TORCH_FLAGS ?=

.PHONY: install demo test lint types bench

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	# torch by itself first: what comes after it then keeps the build that was found, for CPU or for CUDA
	$(BIN)/python -m pip install --quiet $(TORCH_FLAGS) "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,export,dev]'
	touch $@

demo: $(STAMP)
	$(BIN)/edgessl demo --output demo --overwrite

test: lint types
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	@echo "ruff checked $$($(BIN)/ruff check --show-files | grep -c '\.py$$') Python files"
	$(BIN)/lint-imports --no-logo --no-cache

types: $(STAMP)
	$(BIN)/mypy

bench: $(STAMP)
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done
