# Everything a person does here, and everything .ci/run does. Without make: see README.md.
# Paths stay relative, so that a checkout whose path has spaces works.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help setup setup-demo setup-serve demo serve test check format lint types floors docs fix bench bench-read wheel clean

BIN := $(if $(filter Windows_NT,$(OS)),.venv/Scripts,.venv/bin)
PYTHON := $(BIN)/python

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

demo: setup-demo ## Watch a text become a picture, on this machine alone
	@$(PYTHON) -m comfyserve demo

serve: setup-serve ## Serve the examples as an API, in front of a ComfyUI or of the built-in engine
	@$(PYTHON) -m comfyserve serve examples

test: setup ## Run every test
	@$(PYTHON) -m pytest

check: format lint types floors docs ## Check format, lint, types, floors and docs

bench: setup ## Measure what comfyserve costs, against its budgets
	@$(PYTHON) -m bench

bench-read: setup ## Measure how well official templates are read
	@$(PYTHON) -m bench.read

wheel: setup ## Build the wheel and use it where no source is
	@scripts/check-wheel

fix: setup ## Mend what ruff can mend: format and imports
	@$(PYTHON) -m ruff check --quiet --fix .
	@$(PYTHON) -m ruff format .

clean: ## Remove .venv and everything built or cached
	@rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

format: setup
	@$(PYTHON) -m ruff format --check .

lint: setup
	@$(PYTHON) -m ruff check .

types: setup
	@$(PYTHON) -m mypy

floors: setup
	@$(BIN)/lint-imports

docs: setup
	@$(PYTHON) -m pytest -q tests/test_docs.py

setup:
	@scripts/setup dev

setup-demo:
	@scripts/setup demo

setup-serve:
	@scripts/setup serve
