# Everything from a fresh clone: each command makes .venv first where it is missing.
# PYTHON=python3.12 make test   picks the interpreter (3.11 or newer) that .venv is made from.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help demo serve test lint docs clean
.DEFAULT_GOAL := help

help:  ## list these commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

demo: .venv/.installed  ## repaint the bundled photos with the bundled model
	@$(BIN)/nuwa-lip demo

serve: .venv/.installed-serve  ## paint in the browser
	@$(BIN)/nuwa-lip serve

test: lint  ## style, types and all tests
	$(BIN)/python -m pytest -rs -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: .venv/.installed-test  ## style and types only
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: .venv/.installed-docs  ## build the documentation site into site/
	$(BIN)/mkdocs build --strict
	@echo "open site/index.html; for its search: $(BIN)/mkdocs serve"

clean:  ## remove .venv and the tools' caches
	rm -rf .venv site .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; name one: PYTHON=python3.12 make ..." >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.installed: pyproject.toml | $(BIN)/python
	@echo "Installing into .venv (torch is large: a minute or two) ..."
	$(PIP) install --editable .
	@touch $@

.venv/.installed-serve: pyproject.toml | $(BIN)/python
	@echo "Installing with the server into .venv (torch is large: a minute or two) ..."
	$(PIP) install --editable '.[serve]'
	@touch .venv/.installed $@

.venv/.installed-docs: pyproject.toml | $(BIN)/python
	@echo "Installing with the documentation's tools into .venv (torch is large: a minute or two) ..."
	$(PIP) install --editable '.[docs]'
	@touch .venv/.installed $@

.venv/.installed-test: pyproject.toml | $(BIN)/python
	@echo "Installing with the test tools into .venv (torch is large: a minute or two) ..."
	$(PIP) install --editable '.[test]'
	@touch .venv/.installed .venv/.installed-serve .venv/.installed-docs $@
