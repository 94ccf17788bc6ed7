# `make test` and `make demo` do all their set-up: a virtual environment, the packages, then the job.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Two processes of one thread each beat one of two threads on a small machine, and more on a large one.
export OMP_NUM_THREADS ?= 1

.PHONY: setup demo test test-all gpu lint types docs serve wheel clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

# Threads that wait sleep: 7 % slower alone, but where they spin and one other program runs, 3.5 images a second for 20.
demo: setup
	env -u OMP_NUM_THREADS OMP_WAIT_POLICY=passive $(BIN)/python -m detectors demo --output runs/demo --overwrite

test: setup
	$(BIN)/python -m pytest -m "not slow and not cuda and not docs" -n 2 --dist worksteal --timeout 600

test-all: setup
	$(BIN)/python -m pytest -m "not cuda" -n 2 --dist worksteal --timeout 3600 --hypothesis-profile thorough

# Tests and benchmarks that need a GPU, in twenty minutes; writes docs/results.
gpu: setup
	env -u OMP_NUM_THREADS $(BIN)/python -m benchmarks gpu

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: setup
	$(BIN)/mypy

# The site, and the code of its pages and docstrings.
docs: setup
	$(BIN)/mkdocs build --strict
	$(BIN)/python -m pytest -m "docs and not slow" -n 2 --dist worksteal --timeout 600

serve: setup
	$(BIN)/mkdocs serve

wheel: setup
	rm -rf dist
	$(BIN)/python -m build --wheel --outdir dist

clean:
	rm -rf $(VENV) dist site runs
