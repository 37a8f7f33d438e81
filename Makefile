# The verbs that developers, the workflows and .ci/run share.
# They use the active environment, or .venv if none is active. `make setup` creates .venv.

VENV ?= $(or $(VIRTUAL_ENV),$(CONDA_PREFIX),$(CURDIR)/.venv)
PYTHON ?= python3
# One test process per core, at most eight: each loads torch.
JOBS ?= auto --maxprocesses 8

export PATH := $(VENV)/bin:$(PATH)
SHELL := /bin/bash# not the default, or make 3.81 of macOS ignores the new PATH
PYTEST := pytest -n $(JOBS)

.PHONY: help setup lint types format test test-slow test-all test-docs dist wheel

help: ## list the verbs
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/\1\t\2/p' Makefile | expand -t 12

setup: ## create .venv unless an environment is active, and install the package with its dev tools
	@test -x "$(VENV)/bin/python" || $(PYTHON) -m venv "$(VENV)"
	@command -v uv >/dev/null || python -m pip install --quiet uv
	uv pip install --quiet --python "$(VENV)/bin/python" -e '.[dev]'

lint: ## check style and formatting (ruff)
	ruff check .
	ruff format --check .

types: ## check types (mypy, strict)
	mypy

format: ## fix style and formatting (ruff)
	ruff check --fix .
	ruff format .

test: ## run the fast tests
	$(PYTEST)

test-slow: ## run the slow tests
	$(PYTEST) -m slow

test-all: test test-slow ## run the fast tests, then the slow ones

test-docs: ## run the documents and notebooks, both tiers
	$(PYTEST) -m "" tests/test_docs.py tests/test_notebooks.py

dist: ## build the sdist and the wheel into dist/, and check their metadata
	rm -rf dist
	uv build --quiet
	uvx --quiet twine check --strict dist/*

wheel: dist ## build the wheel, install it in an empty environment, run the demo from another folder
	.ci/try_wheel "$(CURDIR)"/dist/*.whl
