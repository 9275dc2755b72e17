# Orchestrator Agent. `make help` explains every target.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help run venv dev lab check lint unit bus engine e2e test bench reference lock format clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: venv ## start the agent with its local cloud, in the foreground; Ctrl-C stops everything
	@$(BIN)/python -m install.run

venv: $(VENV)/.ready ## make the virtual environment that the agent runs in

dev: $(VENV)/.ready-dev ## add the tools that tests and checks need

$(VENV)/.ready: requirements.txt
	@sh install/venv.sh $(PYTHON) $(VENV) requirements.txt
	@touch $@

$(VENV)/.ready-dev: requirements-dev.txt $(VENV)/.ready
	@sh install/venv.sh $(PYTHON) $(VENV) requirements-dev.txt
	@touch $@

lint: dev ## ruff, its formatter, mypy strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: dev ## tests that need nothing
	$(PYTEST) tests/unit -q

bus: dev ## tests with real sockets and child processes
	$(PYTEST) tests/bus -q

check: lint ## what must be green before every commit: linters, types, unit and bus tests (under two minutes)
	$(PYTEST) -q -n 2 --dist worksteal tests/unit tests/bus

lab: dev ## install what the simulated edge host needs (root)
	$(BIN)/python -m tests.lab

engine: lab ## tests with a real Docker engine in a simulated edge host (root)
	$(PYTEST) tests/engine -q

e2e: lab ## the whole product in a simulated edge host (root)
	$(PYTEST) tests/e2e -q

test: check lab ## every layer, installing what it needs (root)
	$(PYTEST) tests/engine tests/e2e -q --durations=15

bench: lab ## the figures: round trips, create time, memory, start, idle CPU (root)
	$(BIN)/python -m tests.bench

reference: dev ## write docs/messages.md anew
	$(BIN)/python -m bus.reference docs/messages.md

lock: ## resolve the dependencies anew into the hash-locked requirements files
	sh install/lock.sh $(PYTHON)

format: dev ## let ruff write the format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove the virtual environment, caches and what `make run` keeps
	rm -rf $(VENV) var .mypy_cache .ruff_cache .pytest_cache .hypothesis
