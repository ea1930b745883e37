# moco-transfer: what people and CI type. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# What starts often is to be compiled once.
unexport PYTHONDONTWRITEBYTECODE
UV := $(VENV)/bin/uv

.PHONY: help run setup setup-dev test check lint types contracts unit servers test-gpu bench-gpu gpu-packages images detectron2 bench golden lock clean

help:  ## list the targets
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

run: setup  ## set up, then run one column of each kind of task, in miniature on handwritten digits
	$(BIN)/moco run first_look --scale digits

test: setup-dev  ## set up, then lint, types, import contracts and all tests
	@$(MAKE) --no-print-directory -j2 -O check servers $(VENV)/linters/.done
	@$(MAKE) --no-print-directory unit

setup: $(VENV)/.run  ## make .venv with what running needs, locked and hashed
setup-dev: $(VENV)/.dev  ## make .venv with everything, tests and checks included

check: lint types contracts  ## everything that needs no test run

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/hadolint images/*/Dockerfile

types: setup-dev
	$(BIN)/mypy

contracts: setup-dev
	$(BIN)/lint-imports

unit: setup-dev servers $(VENV)/linters/.done  ## the tests alone; ARGS='-k NAME' chooses
	PYTEST_XDIST_AUTO_NUM_WORKERS=$$(($$(nproc) + 1)) OMP_NUM_THREADS=1 \
	  MOCO_TEST_LINTERS=$(abspath $(VENV))/linters/bin \
	  $(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder --durations=10 $(ARGS)

servers: setup-dev  ## build the servers and tools that tests talk to, where Go is present
	@$(BIN)/python -m tests.servers.minio build || echo "no MinIO server: the store's S3 tests will be skipped"
	@$(BIN)/python -m tests.servers.toxiproxy build || echo "no toxiproxy: the store's network tests will be skipped"
	@$(BIN)/python -m tests.servers.helm build || echo "no Helm: the chart's tests will be skipped"

# A machine with a torch of its own, and no way to a package index: WHEELS=FOLDER with what it lacks,
# PYTHON=python3. Nothing of it is replaced, and no environment made; build/wheels takes the wheels.
ifdef WHEELS
ON_GPU := PYTHONPATH=$(abspath build/wheels) $(PYTHON)
gpu-packages:
	$(PYTHON) -m pip install -q --disable-pip-version-check --no-index --no-deps --no-compile --upgrade \
	  --target build/wheels $(WHEELS)/*.whl
else
ON_GPU := $(BIN)/python
gpu-packages: $(VENV)/.bench
endif

test-gpu: gpu-packages  ## the tests that need a GPU, in under 4 minutes; ARGS='-k NAME' chooses
	$(ON_GPU) -m pytest -n auto --maxprocesses 8 --dist worksteal tests/gpu tests/vision/test_kernels.py $(ARGS)

bench-gpu: gpu-packages  ## measure on a GPU against peers, 8 minutes; ARGS=ROW chooses
	$(ON_GPU) -m tests.benchmarks.gpu $(ARGS)

# Needs no environment: Python 3.11 or later, and Docker or Podman.
images:  ## build the container images; images/README.md says how to push them
	@$(PYTHON) -m images.build $(if $(REGISTRY),--registry '$(REGISTRY)') $(if $(PUSH),--push) \
	  $(if $(BASE),--base '$(BASE)') $(if $(ENGINE),--engine '$(ENGINE)') \
	  $(if $(SOURCE),--source '$(SOURCE)') $(if $(DETECTRON2),--detectron2 '$(DETECTRON2)') $(ARGS)

# Its setup needs torch, a C++ compiler and git. DensePose names its own detectron2: not that one.
detectron2: setup  ## build the paper's detection library into .venv, from its public repository
	$(UV) pip install -q --python $(BIN)/python --no-build-isolation --require-hashes -r requirements-detectron2.lock
	@source="$(or $(DETECTRON2),$$(cat images/detectron2/source))"; set -x; \
	$(UV) pip install -q --python $(BIN)/python --no-deps --no-build-isolation \
	  "detectron2 @ $$source" "detectron2-densepose @ $$source#subdirectory=projects/DensePose"

bench: setup-dev $(VENV)/.bench  ## measure against peers; prints ratios in one run
	$(BIN)/python -m tests.benchmarks $(ARGS)

golden: setup-dev  ## compile all pipelines anew: a few whole, all in summary.txt
	$(BIN)/python -m tests.pipelines.golden

lock: $(UV)  ## resolve the locks anew from pyproject.toml
	@resolve() { $(UV) pip compile -q --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --no-header --no-annotate "$$@"; }; \
	compile() { resolve "$$@" pyproject.toml; }; \
	printf '%s\n' 'checkov>=3.2' 'kubernetes-validate>=1.34' | resolve - -o requirements-linters.lock; \
	echo 'lvis>=0.5.3' | resolve --no-deps - -o requirements-lvis.lock; \
	compile --extra train --extra kubeflow --extra dev -o requirements-dev.lock; \
	compile --extra train --extra cluster -c requirements-dev.lock -o requirements-train.lock; \
	compile --extra train --extra cluster --extra detectron2 -c requirements-dev.lock -o requirements-detectron2.lock; \
	compile --extra train --extra kubeflow -c requirements-dev.lock -o requirements.lock; \
	compile --extra train --extra kubeflow --extra dev --extra bench -c requirements-dev.lock -o requirements-bench.lock

clean:  ## remove what was built here; runs/ stays
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

# uv installs the same wheels as pip, side by side; its own wheel is pinned by hash too.
$(UV): requirements-uv.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements-uv.lock
	@touch $@

define install
	$(UV) pip install -q --python $(BIN)/python --compile-bytecode --require-hashes -r $(1)
	$(UV) pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@
endef

$(VENV)/.run: requirements.lock pyproject.toml | $(UV)
	$(call install,requirements.lock)

# LVIS's own evaluation, to compare ours with. What it runs on is in the other lock; it asks for
# opencv-python, which would overwrite the files of opencv-python-headless.
$(VENV)/.dev: requirements-dev.lock requirements-lvis.lock pyproject.toml | $(UV)
	$(UV) pip install -q --python $(BIN)/python --no-deps --require-hashes -r requirements-lvis.lock
	$(call install,requirements-dev.lock)
	@touch $(VENV)/.run

# What looks at the chart: checkov needs other versions of what kfp needs, and where there is
# kubernetes-validate, the Kubernetes client imports it, for seconds.
$(VENV)/linters/.done: requirements-linters.lock | $(UV)
	$(PYTHON) -m venv $(VENV)/linters
	$(UV) pip install -q --python $(VENV)/linters/bin/python --require-hashes -r $<
	@touch $@

$(VENV)/.bench: requirements-bench.lock pyproject.toml | $(UV)
	$(call install,requirements-bench.lock)
