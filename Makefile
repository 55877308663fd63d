# `make` alone lists the targets. `make demo` and `make test` need nothing before them: they set up what is missing.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The first of these that works, looked for once and only where a target needs it; pyenv's shims of versions that are not
# installed do not work.
PYTHON ?= $(eval PYTHON := $(or $(firstword $(foreach python,python3.11 python3.12 python3,$(shell \
  $(python) -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null \
  && echo $(python)))),python3.11))$(PYTHON)
VENV ?= .venv
DEVICE ?= cpu
BIN := $(VENV)/bin
SITE := $(VENV)/site-builder
PEERS ?= $(VENV)/peers
STAMP := $(VENV)/.installed
CODE := $(wildcard lrm_safety hydra_plugins launchers tests benchmarks)
SCRIPTS := .ci/run constraints/install_cpu.sh docker/install.sh launchers/slurm/run.sbatch tests/stand_in_slurm/scontrol

# What an environment was made from; a changed pin or dependency makes `setup` run again, a changed mtime does not.
FINGERPRINT = $$(cat pyproject.toml constraints/$(DEVICE).txt | sha256sum | cut -d ' ' -f 1)-$(DEVICE)

export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false
export RAY_USAGE_STATS_ENABLED ?= 0
export VLLM_NO_USAGE_STATS ?= 1

.PHONY: help setup browser doctor demo study test test-unit lint format bench peers drill docs build-miniature clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

setup: ## create .venv with the pinned packages (DEVICE=gpu for CUDA); returns at once when nothing changed
	@if [ "$$(cat $(STAMP) 2>/dev/null)" = "$(FINGERPRINT)" ]; then exit 0; fi; \
	[ "$$(uname -sm)" = "Linux x86_64" ] || { \
	  echo "make: lrm_safety runs on Linux on x86_64, and this is $$(uname -sm): use such a machine, a container" \
	       "(docker/Dockerfile.cpu) or, on Windows, WSL 2" >&2; exit 1; }; \
	$(PYTHON) -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null || { \
	  echo "make: '$(PYTHON)' is not a working Python 3.11 or 3.12 with venv: install one (python3.11 and python3.11-venv)," \
	       "or name it: make setup PYTHON=/path/to/python3.11 (or python3.12)" >&2; exit 1; }; \
	[ -x $(BIN)/python ] || { echo "creating $(VENV)"; $(PYTHON) -m venv $(VENV); }; \
	$(MAKE) install-$(DEVICE); \
	echo "$(FINGERPRINT)" > $(STAMP)

.PHONY: install-cpu install-gpu
install-cpu:
	@constraints/install_cpu.sh $(VENV)

install-gpu:
	@echo "installing the pinned CUDA packages: about 12 GB, 5 to 15 minutes"
	@$(BIN)/python -m pip install --disable-pip-version-check -c constraints/gpu.txt -e ".[gpu,dev]"

browser: ## install headless Chromium, for the test of the report's page (Debian's package, as root)
	@if $(PYTHON) tests/end_to_end/browser.py; then exit 0; fi; \
	command -v apt-get >/dev/null || { \
	  echo "make: no apt-get here: install Chromium or Chrome, or name one in LRM_SAFETY_BROWSER" >&2; exit 1; }; \
	echo "installing chromium-headless-shell (100 MB)"; \
	apt-get update -qq; \
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium-headless-shell >/dev/null

doctor: setup ## check this machine and environment
	@$(BIN)/lrm-safety doctor

demo: setup ## align the miniature model on this machine and show before and after
	@$(BIN)/lrm-safety demo

study: setup ## base, SFT and RL of the miniature over five seeds, and a report (about half an hour)
	@$(BIN)/lrm-safety study

# In the order of their folders: files of one long test come first, and none of them is left alone at the end.
test: setup ## every test: unit, integration, end to end
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-unit: setup ## the fast tests only
	@$(BIN)/python -m pytest tests/unit -n 2

lint: setup ## style, types, import contracts, generated pages up to date
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/ruff format --check $(CODE)
	@$(BIN)/shellcheck $(SCRIPTS)
	@$(BIN)/hadolint docker/Dockerfile.*
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/lrm-safety docs --check

format: setup ## rewrite the code in the project's style
	@$(BIN)/ruff check --fix $(CODE)
	@$(BIN)/ruff format $(CODE)

bench: setup ## measure speed and memory into outputs/bench/bench.json
	@$(BIN)/python -m benchmarks --peers $(PEERS)

# TRL without what it requires: it sees the packages of $(VENV), so that both sides run on one torch and one transformers.
peers: setup ## install TRL into an environment of its own, for the figures of `make bench` that compare with it
	@pin="$$($(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["peers"])')"; \
	if [ "$$(cat $(PEERS)/installed 2>/dev/null)" = "$$pin" ]; then exit 0; fi; \
	echo "installing $$pin into $(PEERS): a few MB"; \
	packages='import sysconfig; print(sysconfig.get_path("purelib"))'; \
	$(BIN)/python -m venv $(PEERS); \
	$(BIN)/python -c "$$packages" > "$$($(PEERS)/bin/python -c "$$packages")/project.pth"; \
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps $$pin || { \
	  echo "make: pip cannot find $$pin; without it the figures that compare with TRL are not measured" >&2; exit 1; }; \
	echo "$$pin" > $(PEERS)/installed

drill: setup ## do harm to runs in every way and see what becomes of them (half an hour, three at a time; some as root); ONLY="stop_engine ..." SEED=0
	@$(BIN)/python tests/drill --seed $(or $(SEED),0) $(ONLY)

# mkdocs counts no warnings under --quiet, and --strict would pass them.
docs: setup ## write what the pages generate from declarations (keys, metrics, tables), and build the site into site/
	@$(BIN)/lrm-safety docs
	@cmp -s docs/requirements.txt $(SITE)/requirements.txt || { \
	  echo "installing what builds the site into $(SITE): 170 MB, half a minute"; \
	  $(PYTHON) -m venv $(SITE) && $(SITE)/bin/python -m pip install --quiet --disable-pip-version-check \
	    -r docs/requirements.txt && cp docs/requirements.txt $(SITE) || { \
	  echo "make: the pages are written; the site wants the packages of docs/requirements.txt, which pip cannot find" >&2; \
	  exit 1; }; }
	@NO_MKDOCS_2_WARNING=1 $(SITE)/bin/mkdocs build --strict
	@echo "the site: site/index.html"

build-miniature: setup ## train the miniature's models again, into outputs/miniature
	@$(BIN)/lrm-safety build-miniature outputs/miniature

clean: ## remove caches and build leftovers (never outputs/, never .venv)
	@rm -rf build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find lrm_safety tests launchers -name __pycache__ -type d -prune -exec rm -rf {} +
