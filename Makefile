# Two commands matter: `make demo` and `make test`. Each sets up .venv first if it must.
# Python 3.11 comes first: constraints.txt pins what was tried on it.

VENV  := .venv
BIN   := $(VENV)/bin
READY := $(VENV)/.ready

# An index of PyTorch builds, for a CPU or a CUDA build that the default index does not give.
TORCH_INDEX ?=

# Those that want neither data nor a run; the others say at their top what they do want.
BENCH := store frame measure map learning spender mock

.PHONY: help setup demo test test-slow bench lint clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' \
	| while IFS="$$(printf '\t')" read -r name what; do printf '  make %-10s %s\n' "$$name" "$$what"; done

setup: $(READY) ## .venv with specmill and everything it needs
	@echo "$(VENV) is ready"

demo: $(READY) ## a mock survey from files to report: runs/demo/report/index.html
	@$(BIN)/specmill run deploy/cards/demo.toml

# Tests that start workers, which have threads of their own, run after the others.
test: lint ## ruff, mypy and the tests, but for slow and GPU ones
	@OMP_NUM_THREADS=1 $(BIN)/pytest -n logical --maxprocesses 4 --dist loadfile \
	  -m "not slow and not gpu and not cluster and not ray"
	@$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder \
	  -m "(cluster or ray) and not slow and not gpu"

test-slow: $(READY) ## the slow tests
	@$(BIN)/pytest -m "slow and not gpu"

bench: $(READY) ## how fast the parts are, on this machine
	@for each in $(BENCH); do echo "== $$each"; $(BIN)/python -m "benchmarks.$$each"; done

lint: $(READY) ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy

clean: ## remove .venv and caches; runs/ stays
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
	@find storage training pipeline deploy tests -name __pycache__ -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@set -e; python=; for each in python3.11 python3.12 python3.13 python3; do \
	  if "$$each" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	    >/dev/null 2>&1; then python=$$each; break; fi; done; \
	if [ -z "$$python" ]; then \
	  echo "specmill needs Python 3.11, 3.12 or 3.13 on PATH; python3 here is:" \
	    "$$(python3 --version 2>&1 || true)" >&2; exit 1; fi; \
	echo "setting up $(VENV) with $$("$$python" --version) (a minute or two, about 2.2 GB)"; \
	"$$python" -m venv $(VENV)
	@$(if $(TORCH_INDEX),$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt \
	  --no-deps --index-url $(TORCH_INDEX) torch)
	@$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[test,dev,slurm,s3,specutils]'
	@touch $@
