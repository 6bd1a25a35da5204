# Each target makes the environment that it needs in .venv; only Python 3.11 or newer and pip are assumed.
# An environment is made again when pyproject.toml or constraints.txt change.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test check bench validate docs site clean

PYTHON ?=
MEASUREMENTS ?= ../shared/validation/measurements.csv
OUT ?= validation
VENV := .venv
BIN := $(VENV)/bin
# Byte-compiling every installed file costs more than compiling the few that are imported.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt

help:
	@echo "make demo    capture, replay and report on this machine, no GPU needed"
	@echo "make test    run the tests"
	@echo "make check   linter, formatter, type checker, layout of the packages"
	@echo "make bench   measure speed and memory, write benchmarks/results.json"
	@echo "make validate  predict published measurements (MEASUREMENTS=file.csv OUT=folder)"
	@echo "make docs    write the generated pages again"
	@echo "make site    build the documentation's site in build/site; a broken link is an error"
	@echo "make clean   remove the environment"

demo: $(VENV)/.run
	PATH="$(abspath $(BIN)):$$PATH" bash docs/demo.sh

test: $(VENV)/.test
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile $(TESTFLAGS)

check: $(VENV)/.dev .mypy_root/eidola
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd .mypy_root && $(abspath $(BIN))/mypy --config-file ../pyproject.toml
	$(BIN)/python -m pytest -q tests/test_layout.py

bench: $(VENV)/.run
	$(BIN)/python benchmarks/run.py

# The page of the project is written anew where its own measurements are predicted, not where another file is.
validate: $(VENV)/.run
	$(BIN)/eidola replay score "$(MEASUREMENTS)" -o "$(OUT)" \
	    $(if $(filter default file,$(origin MEASUREMENTS)),--into docs/validation.md)

docs: $(VENV)/.run
	$(BIN)/python -m eidola.schemas.reference > docs/schema.md.new
	mv docs/schema.md.new docs/schema.md
	$(BIN)/python -m eidola.capture.support docs/support.md README.md

# Nothing is fetched. The variable silences a banner about the theme's successor.
site: $(VENV)/.site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) build/site .mypy_root .mypy_cache .ruff_cache .pytest_cache

# The folders are checked under the names by which they are imported: eidola.capture, eidola.cli, ...
.mypy_root/eidola:
	mkdir -p .mypy_root && ln -sfn .. $@

$(BIN)/python:
	@for python in "$(PYTHON)" python3 python3.14 python3.13 python3.12 python3.11; do \
	    if [ -n "$$python" ] && "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	    then "$$python" -m venv $(VENV) && exit 0; \
	        echo "make: $$python cannot make an environment; on Debian and Ubuntu install python3-venv" >&2; \
	        rm -rf $(VENV); exit 1; \
	    fi; \
	done; \
	echo "make: no Python 3.11 or newer found; install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1

# What the tools need; then what checking needs; then what the tests need, the CPU build of torch included.
$(VENV)/.run: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) -e .
	touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) -e '.[dev]'
	touch $(VENV)/.run $@

$(VENV)/.test: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) torch==2.13.0 -e '.[cluster,dev]'
	touch $(VENV)/.run $(VENV)/.dev $@

$(VENV)/.site: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) -e '.[docs]'
	touch $@
