# Each target does its own set-up: Python 3.10 or later and make are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: quickstart test integration lint bench clean

quickstart: $(VENV)/installed
	$(BIN)/muvera quickstart

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest

# STORES='--require NAME ...': fail where a store would be skipped; QDRANT_URL, MILVUS_URI: a server to run against
integration: $(VENV)/installed-dev
	$(BIN)/python -m pytest integration_tests -rs $(STORES)

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/installed-dev
	$(BIN)/python benchmarks/encode.py

$(VENV)/created:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or later is needed: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/installed: $(VENV)/created pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[edge]'
	touch $@

$(VENV)/installed-dev: $(VENV)/created pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[edge,dev]'
	touch $@ $(VENV)/installed

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
