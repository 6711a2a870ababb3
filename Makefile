# Each target installs what it needs: Python 3.10 or later and make are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: quickstart test integration lint bench docs check-docs frameworks ecosystem clean

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
	$(BIN)/python tools/make_sync.py --check

bench: $(VENV)/installed-dev
	$(BIN)/python benchmarks/encode.py

# the site in site/; a warning is an error
docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

# the site of `make docs` in Chromium, which must be installed: what overflows, raw markup, names without an entry
check-docs: $(VENV)/installed-docs
	$(BIN)/python -m pytest site_tests

# tests of LangChain, LlamaIndex and Haystack, with the code of their page, in a separate environment of 0.7 GB
frameworks: $(VENV)-frameworks/installed
	$(VENV)-frameworks/bin/python -m pytest \
		$(foreach name,langchain llamaindex haystack,$(wildcard ecosystem_tests/test_$(name)*.py))
	$(VENV)-frameworks/bin/python -m pytest -p no:asyncio tests/docs/test_docs.py -k frameworks

# that, embedding models and Ray, in an environment of 1.3 GB; WEAVIATE_BIN or WEAVIATE_URL for the Ray test
ecosystem:
	$(PYTHON) -m venv $(VENV)-ecosystem
	$(VENV)-ecosystem/bin/python -m pip install --quiet --editable '.[ecosystem-test]'
	$(VENV)-ecosystem/bin/python -m pytest ecosystem_tests -rs
	$(VENV)-ecosystem/bin/python -m pytest -p no:asyncio tests/docs/test_docs.py -rs

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

$(VENV)-frameworks/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)-frameworks
	$(VENV)-frameworks/bin/python -m pip install --quiet --editable '.[frameworks-test]'
	touch $@

$(VENV)/installed-docs: $(VENV)/created pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-frameworks $(VENV)-ecosystem build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis
