# Two commands for newcomers: `make demo` and `make test`. Each sets up what it needs, once.
# VENV=... puts the virtual environment elsewhere; PYTHON=... picks the interpreter that makes it.

PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo
STUDIES ?= 600
SEED ?= 0

BIN := $(VENV)/bin
# Dependencies are installed again only when pyproject.toml changes; the package only when the checkout moves.
DEPS := $(VENV)/deps-$(shell sha256sum pyproject.toml | cut -c1-16)
HERE := $(VENV)/here-$(shell pwd | sha256sum | cut -c1-16)

.PHONY: demo test lint docs bench clean

$(DEPS): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("reg2rg needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.11 ...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --progress-bar off --quiet torch torchvision
	$(BIN)/python -m pip install --progress-bar off --quiet --editable '.[dev]'
	rm -f $(VENV)/deps-* $(VENV)/here-*
	touch $@

$(HERE): $(DEPS)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	rm -f $(VENV)/here-*
	touch $@

demo: $(HERE)
	$(BIN)/python examples/demo.py --out $(DEMO) --studies $(STUDIES) --seed $(SEED)

test: $(HERE)
	$(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report=term:skip-covered

lint: $(HERE)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(HERE)
	$(BIN)/mkdocs build --strict --site-dir site

bench: $(HERE)
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv site $(DEMO) .pytest_cache .mypy_cache .ruff_cache .coverage*
