# SPDX-License-Identifier: GPL-2.0-only
# Everything below works from a fresh Debian 12 or 13 with git, make and Python >= 3.11.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help venv run test check bench format clean

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

venv: $(STAMP) ## the virtual environment .venv

$(STAMP): pyproject.toml .ci/venv.sh
	@sh .ci/venv.sh $(PYTHON) $(VENV)
	@touch $@

run: $(STAMP) ## the main job: build both kernels, boot, run the kselftests, report (ARGS="-k tsm")
	@$(BIN)/tdisp-harness run $(ARGS)

test: $(STAMP) ## all of the project's own tests, virtual machines included
	@$(BIN)/tdisp-harness doctor --install --quiet
	@$(BIN)/python -m pytest $(ARGS)

check: $(STAMP) ## lint, types and fast tests, in seconds
	@sh .ci/check.sh $(BIN)

bench: $(STAMP) ## our times beside their references, measured in one run
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@$(BIN)/python -m tests.bench.main $(ARGS)

format: $(STAMP) ## format the Python code
	@$(BIN)/ruff format harness tests
	@$(BIN)/ruff check --fix harness tests

clean: ## remove the virtual environment and the tools' caches (not runs/, not the user's cache)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
