# Development and first steps. `make` lists what there is.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SOURCES := ra3kit tests benchmarks examples docs/_hooks
PYTEST := $(BIN)/python -m pytest
JOBS ?= 2

.DEFAULT_GOAL := help
.PHONY: help install quickstart test test-slow test-gpu check format docs docs-serve clean distclean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The stamps: nothing is installed again until pyproject.toml or constraints.txt changes.
$(VENV)/.stamp-run: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing the tested versions into $(VENV) (a few minutes, once)"
	$(PIP) install --quiet --constraint constraints.txt --editable '.[plot]'
	@touch $@

$(VENV)/.stamp-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing the tested versions into $(VENV) (a few minutes, once)"
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(VENV)/.stamp-run

$(VENV)/.stamp-docs: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing the tested versions into $(VENV) (a few minutes, once)"
	$(PIP) install --quiet --constraint constraints.txt --editable '.[docs]'
	@touch $@

install: $(VENV)/.stamp-run ## create .venv and install ra3kit with the tested versions

quickstart: $(VENV)/.stamp-run ## install, then mid-train a small model with RA3 and with NTP (under 8 minutes on 2 fast cores)
	$(BIN)/ra3kit fit --recipe quickstart

test: $(VENV)/.stamp-dev ## the fast tests, JOBS files at a time
	OMP_NUM_THREADS=1 $(PYTEST) -m "not slow and not gpu" --timeout=120 -n $(JOBS) --dist loadfile

test-slow: $(VENV)/.stamp-dev ## the longer checks
	$(PYTEST) -m slow --timeout=900

test-gpu: $(VENV)/.stamp-dev ## the tests that need a CUDA device
	$(PYTEST) -m gpu --timeout=900

check: $(VENV)/.stamp-dev ## formatting, lint, types, spelling
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/codespell

format: $(VENV)/.stamp-dev ## format the code and fix what lint can fix
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

docs: $(VENV)/.stamp-docs ## the documentation site, into site/; a broken link or a page outside the navigation fails it
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "open site/index.html, or: make docs-serve"

docs-serve: $(VENV)/.stamp-docs ## show the documentation while it is written, at http://127.0.0.1:8000
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

clean: ## remove caches and builds; runs/ and .venv stay
	rm -rf dist build site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## also remove .venv
	rm -rf $(VENV)
