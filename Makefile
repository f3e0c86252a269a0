# The two commands are `make demo` and `make test`; everything else is a part of them.
# Set-up: one virtual environment with exactly the versions of constraints.txt. The lock is complete, so it installs
# without resolving (--no-deps), and vLLM's torchvision/torchaudio/torchcodec (CUDA builds that break `import
# transformers` beside a CPU torch, and that a text engine never imports) are simply not in it.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# A hundred short processes run our code in the tests: let them keep what they compile, whatever the environment says.
export PYTHONDONTWRITEBYTECODE :=
MODEL := .tuneloop/models/SmolLM2-135M-Instruct

.PHONY: setup model browser demo loadtest peers serve test test-fast check lint types layers format clean

setup: $(VENV)/.ready
$(VENV)/.pinned: constraints.txt pyproject.toml
	@echo "setup · creating $(VENV) and installing $$(grep -c '==' constraints.txt) pinned packages (a few minutes, once)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement constraints.txt
	@touch $@
$(VENV)/.ready: $(VENV)/.pinned gateway/engine/_lane.c
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@$(BIN)/python -c "import torch, transformers, vllm, gateway, trainer; from gateway.engine.lane import COMPILED; \
		print('setup · ready: torch', torch.__version__, '· vllm', vllm.__version__, '· lane', COMPILED)"
	@touch $@

model: $(MODEL)/.ready
$(MODEL)/.ready: | $(VENV)/.ready
	@$(BIN)/python -m loadtests.demo.model $(MODEL)

# The console is tested in a real browser: Debian's Chromium, installed where there is none.
browser:
	@command -v chromium >/dev/null || { echo "setup · installing chromium"; \
		$$([ "$$(id -u)" = 0 ] || echo sudo) sh -c "apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium >/dev/null"; }

demo: setup model
	@$(BIN)/python -m loadtests.demo

# S=steady by default; `make loadtest S=all` runs every scenario (loadtests/README.md).
S := steady
loadtest: setup
	@$(BIN)/python -m loadtests $(S)

peers: setup
	@$(BIN)/python -m loadtests.peers

serve: setup model
	@$(BIN)/python -m loadtests.demo serve

# Most tests wait more than they compute; those that train use a core each; the engine wants the whole machine.
test: setup model browser
	@$(BIN)/python -m pytest -q -m "not engine and not training" -n 3 --dist loadfile
	@$(BIN)/python -m pytest -q -m "training and not engine" -n 2 --dist loadfile
	@$(BIN)/python -m pytest -m engine

test-fast: setup
	@$(BIN)/python -m pytest -q -m "not engine and not training and not processes and not long" -n 4 --dist loadfile \
		--hypothesis-profile=fast

check: lint types layers
	@$(BIN)/python -m pytest -q tests/house
lint: setup
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
types: setup
	@$(BIN)/mypy
layers: setup
	@$(BIN)/lint-imports

format: setup
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

clean:
	rm -rf $(VENV) .tuneloop .mypy_cache .ruff_cache .pytest_cache .import_linter_cache build *.egg-info
