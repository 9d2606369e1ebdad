# Needs Python >= 3.11 and make; everything else goes into .venv from the hashed locks under requirements/.
SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
LOCK   := $(BIN)/uv pip compile -q --universal --fork-strategy fewest --generate-hashes --python-version 3.11 --no-annotate \
          --custom-compile-command "make lock"

# Tests share their cores with each other: one thread each, said to every library that would take all of them.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 RAYON_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false

.PHONY: help setup demo test test-here test-cluster test-all test-lowest browser check bench images cluster-up cluster-down format lock docs clean

help: ## these lines
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

setup: $(STAMP) ## .venv with the locked packages and modelyard itself, editable

$(STAMP): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "modelyard needs Python >= 3.11: make PYTHON=/path/to/python3.11 setup")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	awk '/^[a-zA-Z]/ {uv = /^uv==/} uv' requirements/dev.txt > $(VENV)/uv.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps -r $(VENV)/uv.txt
	$(BIN)/uv pip sync -q --python $(BIN)/python --require-hashes --compile-bytecode requirements/dev.txt
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation --editable .
	$(BIN)/python -m compileall -q lib jobs
	touch $@

demo: setup ## a sentiment model's whole life on this machine: search to publish, and a report (cold: minutes; again: reused)
	$(BIN)/python examples/demo.py

test: setup browser ## unit tests (no network, no torch, no real time), hubs by their real clients, the steps on CPU, the report in a browser, a real cluster
	$(ONE_THREAD) $(BIN)/pytest -m "not slow" tests/unit
	$(MAKE) --no-print-directory -j2 test-here test-cluster

# Side by side: the cluster's tests build programs and images first, and then wait for pods more than they compute.
test-here:
	$(ONE_THREAD) $(BIN)/pytest --timeout 600 -m "not slow" tests/hubs
	$(ONE_THREAD) $(BIN)/pytest --timeout 600 -m "not slow" tests/steps
	$(ONE_THREAD) $(BIN)/pytest -m "not slow" tests/browser

test-cluster:
	$(ONE_THREAD) $(BIN)/pytest --timeout 3600 -m "not slow" --durations=30 tests/cluster 2>&1 | sed -u 's/^/cluster| /'

test-all: setup browser ## every test, the slow ones too, and the steps with the lowest versions that pyproject.toml allows
	$(ONE_THREAD) $(BIN)/pytest tests/unit
	$(ONE_THREAD) $(BIN)/pytest --timeout 1800 tests/hubs
	$(ONE_THREAD) $(BIN)/pytest --timeout 1800 tests/steps
	$(ONE_THREAD) $(BIN)/pytest tests/browser
	$(ONE_THREAD) $(BIN)/pytest --timeout 3600 tests/cluster
	$(MAKE) --no-print-directory test-lowest

# The locks are the newest versions; whoever installs into an environment of their own may have older ones.
test-lowest: setup
	test -x $(VENV)-lowest/bin/python || $(PYTHON) -m venv $(VENV)-lowest
	$(BIN)/uv pip sync -q --python $(VENV)-lowest/bin/python --require-hashes requirements/lowest.txt
	$(BIN)/uv pip install -q --python $(VENV)-lowest/bin/python --no-deps --no-build-isolation --editable .
	$(ONE_THREAD) $(VENV)-lowest/bin/python -m pytest --timeout 1800 -m "not slow" tests/steps

browser: # what tests/browser looks at reports with; without it those tests are skipped, and say so
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || { command -v apt-get >/dev/null && test "$$(id -u)" = 0 \
	  && export TMPDIR=/var/tmp DEBIAN_FRONTEND=noninteractive && apt-get -qq update && apt-get -qq install -y --no-install-recommends chromium >/dev/null; } \
	  || echo 'no chromium, and no right to install it: the tests of the report in a browser will be skipped' >&2

check: setup ## lint, format, types, arrows, docstrings, generated files, forbidden words
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python requirements/pin.py --check
	$(BIN)/modelyard schema | diff -u docs/pipeline.schema.json - || { echo 'docs/pipeline.schema.json is stale: make docs' >&2; exit 1; }
	$(BIN)/python docs/generate.py --check
	@! git grep -nE --untracked '[/]work/|py[p]i\.org|python[h]osted|[/]root/' \
	  || { echo 'the lines above name a machine or a registry host: take that out' >&2; exit 1; }

images: ## modelyard:VERSION-light and -cuda by docker, podman or buildah (images/build.py says what can be set)
	$(PYTHON) images/build.py

cluster-up: setup ## a real Kubernetes on this machine, two nodes with fake GPUs; as root on Debian (cold: about fifteen minutes)
	$(BIN)/python -m tests.cluster.images
	$(BIN)/python -m tests.cluster.harness up

cluster-down: setup ## stop it, and leave nothing behind
	$(BIN)/python -m tests.cluster.harness down

bench: setup ## the command line against hf, submitting against TorchX and Hera, explain against its calls by hand (KUBECONFIG), fetch against both SDKs, finetune against transformers.Trainer, infer against calls by hand
	$(BIN)/python -m compileall -q lib jobs   # as an installed package is, and its peer here
	$(ONE_THREAD) $(BIN)/python benchmarks/cli.py
	$(ONE_THREAD) $(BIN)/python benchmarks/submit.py
	$(ONE_THREAD) $(BIN)/python benchmarks/explain.py
	$(ONE_THREAD) $(BIN)/python benchmarks/fetch.py
	$(BIN)/python examples/demo_hub.py .demo/hub
	$(ONE_THREAD) $(BIN)/python -m benchmarks.train
	$(ONE_THREAD) $(BIN)/python -m benchmarks.infer

format: setup ## format, and mend what the linter can mend
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

lock: setup ## solve the locks again (make lock UPGRADE=--upgrade: to the newest versions), and what is made from them
	$(LOCK) $(UPGRADE) --extra hub --extra jobs --extra dev pyproject.toml -o requirements/dev.txt
	cp requirements/dev.txt requirements/jobs-default.txt
	$(LOCK) --extra jobs pyproject.toml -o requirements/jobs-default.txt
	cp requirements/dev.txt requirements/light.txt
	$(LOCK) --extra hub pyproject.toml -o requirements/light.txt
	echo 'torchx[kubernetes] hera' | tr ' ' '\n' | $(LOCK) $(UPGRADE) - -o requirements/peers.txt
	$(LOCK) --resolution lowest-direct --extra hub --extra jobs --extra dev pyproject.toml -o requirements/lowest.txt
	$(BIN)/python requirements/pin.py

docs: setup ## what of docs/ is made from the settings of the steps, the table of failures and the categories of explain
	$(BIN)/modelyard schema > docs/pipeline.schema.json
	$(BIN)/python docs/generate.py

clean: ## everything that make made, the demo's yard too
	rm -rf $(VENV) $(VENV)-lowest .bench .demo report dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
