# pacsgate: the commands people use. `make` alone lists them.
# Everything is installed into .venv; nothing outside it is touched, except the test peers by `make test` as root.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
RUN_ENV := $(VENV)/.installed-run
DEV_ENV := $(VENV)/.installed-dev

.PHONY: help demo run test lint bench clean

help:
	@echo "make demo   set up, start a node, send it a good and a ruined simulated study, print what comes back"
	@echo "make run    set up and start a node (CONFIG=file.toml, DATA=folder)"
	@echo "make test   set up, lint, check types and import rules, run all tests"
	@echo "make lint   style, types and import rules only"
	@echo "make bench  benchmarks; prints ratios against a peer in the same run"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(RUN_ENV): pyproject.toml deploy/constraints.txt | $(BIN)/python
	$(PIP) install -c deploy/constraints.txt -e ".[ai,codecs]"
	@touch $@

$(DEV_ENV): pyproject.toml deploy/constraints.txt | $(BIN)/python
	$(PIP) install -c deploy/constraints.txt -e ".[ai,codecs,postgres,dev]"
	@touch $@ $(RUN_ENV)

demo: $(RUN_ENV)
	@$(BIN)/python deploy/demo.py

run: $(RUN_ENV)
	@$(BIN)/pacsgate up $(if $(CONFIG),--config $(CONFIG)) $(if $(DATA),--data-dir $(DATA))

lint: $(DEV_ENV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: $(DEV_ENV) lint
	deploy/install-test-peers.sh
	$(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder

bench: $(DEV_ENV)
	deploy/install-test-peers.sh
	$(BIN)/python -m benchmarks.receive
	$(BIN)/python -m benchmarks.footprint
	$(BIN)/python -m benchmarks.index_growth
	$(BIN)/python -m benchmarks.completion
	$(BIN)/python -m benchmarks.end_to_end
	$(BIN)/python -m benchmarks.decoding
	$(BIN)/python -m benchmarks.telemetry
	$(BIN)/python -m benchmarks.hosts

clean:
	rm -rf $(VENV) demo-data .mypy_cache .ruff_cache .pytest_cache
