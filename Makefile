# Everything a person does with this repository, one target each. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# Any Python from 3.11 on; say `make PYTHON=python3.13 demo` to choose.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime
DEV := $(VENV)/.dev
JOBS ?= auto

.PHONY: help demo check test long lint types format docs bench panels dist clean

help: ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

demo: $(RUNTIME) ## Run a gateway before a stand-in API: no account, no internet, no server to install
	@exec $(BIN)/cbk-gateway demo

check: $(RUNTIME) ## Tour the demo and check every step
	@$(BIN)/cbk-gateway demo --check --port 0 --admin-port 0 --sandbox-port 0

test: $(DEV) ## Run every test, in parallel
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup

long: $(DEV) ## Run the long forms of the suites: soaks, crash rounds, saturation
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup -m long

lint: $(DEV) ## Check style and format
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(DEV) ## Check types
	@$(BIN)/mypy

format: $(DEV) ## Format the code
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

docs: $(DEV) ## Write the generated parts of the README and the settings schema anew
	@$(BIN)/python -m cbk_gateway.documentation README.md
	@$(BIN)/cbk-gateway config schema > config/gateway.schema.json
	@PYTHONPATH=tests $(BIN)/python -m benchmarks.scale --write >/dev/null

bench: $(DEV) ## Measure against nginx+Lua and fastify, side by side
	@PYTHONPATH=tests $(BIN)/python -m benchmarks

panels: $(DEV) ## Print what every panel and alert shows for the demo's traffic (needs Prometheus)
	@PYTHONPATH=tests $(BIN)/python -m panels_shown

dist: $(DEV) ## Build the wheel and the source distribution into dist/
	@$(BIN)/python -m build --outdir dist .

clean: ## Remove what the other targets made
	rm -rf $(VENV) dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis tests/dropin/node_modules \
		deploy/checks/node_modules grafana/schema-check/node_modules

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "cbk-gateway needs Python 3.11 or newer; none was found on PATH" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade pip

# A stamp per set of dependencies, so that a second call starts at once.
$(RUNTIME): pyproject.toml | $(BIN)/python
	@test -e $(DEV) || $(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(DEV): pyproject.toml | $(BIN)/python
	@$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(RUNTIME)
