# The README's two commands are `make demo` and `make test`; `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
HOST ?= 127.0.0.1
PORT ?= 7860
PYTEST_ARGS ?=

help: ## list these commands
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

demo: $(VENV)/.installed ## install into .venv and open the page on 127.0.0.1:7860
	@GRADIO_SERVER_NAME=$(HOST) GRADIO_SERVER_PORT=$(PORT) $(BIN)/python app.py

test: $(VENV)/.installed-tools ## install what tests need, find or install Chromium, run all tests
	@chromium="$$(PYTHON=$(BIN)/python .ci/chromium)"; \
	CHROMIUM="$$chromium" $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

test-fast: $(VENV)/.installed-tools ## run the tests that need neither browser nor training
	@$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m "not slow" $(PYTEST_ARGS)

lint: $(VENV)/.installed-ruff ## check style and formatting
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: $(VENV)/.installed-ruff ## apply formatting and the safe fixes
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

versions: ## try the lowest and the highest versions that requirements.txt allows
	@$(PYTHON) .ci/versions.py

clean: ## remove .venv and every cache
	rm -rf $(VENV) .pytest_cache .ruff_cache .gradio
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@command -v $(PYTHON) > /dev/null || { echo "Python 3.10 or newer is needed, and $(PYTHON) is not on the path." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python 3.10 or newer is needed; $$($(PYTHON) --version) is here. Set PYTHON=/path/to/python3." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "Python's venv module is incomplete; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/.installed: requirements.txt .ci/tried.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c .ci/tried.txt -r requirements.txt
	@touch $@

$(VENV)/.installed-tools: .ci/requirements-test.txt $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r .ci/requirements-test.txt
	@touch $@ $(VENV)/.installed-ruff

$(VENV)/.installed-ruff: .ci/requirements-test.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(sed -nE 's/^(ruff[^ ]*).*/\1/p' $<)"
	@touch $@

.PHONY: help demo test test-fast lint format versions clean
.DELETE_ON_ERROR:
