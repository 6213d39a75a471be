# `make` alone lists what there is to make.
PYTHON ?= python3
LOCKS := deploy/locks
SERVE := .venv/serve
DEV := .venv/dev
KSERVE := .venv/kserve
BENCH := bench/.work/venv/base

.DEFAULT_GOAL := help
.PHONY: help serve train test kserve lint types imports format converters lock proto image image-check bench bench-quick overload profile fuzz chaos soak clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

serve: $(SERVE)/.installed ## Serve models/ on port 8000 (COMMITTEE_* variables are passed on)
	$(SERVE)/bin/python -m server

train: $(DEV)/.installed ## Run the whole of recipe fashion.toml and publish into models/ (under an hour; reruns do what changed)
	$(DEV)/bin/python -m export train export/recipes/fashion.toml --out models

test: $(DEV)/.installed $(KSERVE)/.installed lint types imports ## Lint, types, import rules, tests, coverage
	rm -f .coverage .coverage.*
	$(DEV)/bin/coverage run -m pytest
	$(DEV)/bin/coverage combine --quiet
	$(DEV)/bin/coverage report --include='server/*' --fail-under=95
	$(DEV)/bin/coverage report --include='export/*' --fail-under=90

kserve: $(KSERVE)/.installed ## Install KServe's own client, by which tests ask the server

lint: $(DEV)/.installed
	$(DEV)/bin/ruff check .
	$(DEV)/bin/ruff format --check .

types: $(DEV)/.installed
	$(DEV)/bin/mypy

imports: $(DEV)/.installed
	$(DEV)/bin/lint-imports

format: $(DEV)/.installed ## Format the code and mend what the linter can
	$(DEV)/bin/ruff check --fix .
	$(DEV)/bin/ruff format .

image: ## Build the container image (without a Docker engine: as root, on Debian)
	deploy/image.sh build

image-check: ## Build the image, run it read-only and unprivileged, predict, stop it with a request in flight
	deploy/image.sh check

converters: $(DEV)/.installed ## Try every kind of model, and write the table of docs/converters.md
	$(DEV)/bin/python -m bench.converters

bench: $(SERVE)/.installed $(BENCH)/.installed ## Measure Committee beside its peers and the limits (wrk; half an hour): docs/performance-peers.md
	$(BENCH)/bin/python -m bench.peers

bench-quick: $(SERVE)/.installed $(BENCH)/.installed ## Measure it beside FastAPI by hand and the limit (wrk; 3 minutes)
	$(BENCH)/bin/python -m bench.peers --quick

overload: $(DEV)/.installed ## Send ten times as much as can be answered (2 minutes): bench/results/overload.json
	$(DEV)/bin/python -m bench.overload

profile: $(DEV)/.installed ## Draw what a worker does under load (wrk, py-spy): bench/.work/profile.svg
	$(DEV)/bin/python -m bench.profile

fuzz: MINUTES ?= 5
fuzz: $(DEV)/.installed ## Throw damaged requests, bodies, manifests and graphs at the server's parts, and at a server (MINUTES=5)
	$(DEV)/bin/python -m tests.fuzz --minutes $(MINUTES)

chaos: $(DEV)/.installed ## Stop, kill, starve and crowd servers under load, a hundred times each (15 minutes): bench/results/chaos.json
	CHAOS=long CHAOS_FIGURES=bench/results/chaos.json $(DEV)/bin/python -m pytest -s tests/chaos

soak: MINUTES ?= 60
soak: $(DEV)/.installed ## Serve under everything at once, workers killed, and see that nothing is lost, wrong or grows (MINUTES=60)
	$(DEV)/bin/python -m tests.soak --minutes $(MINUTES)

lock: ## Resolve the locks anew (needs uv)
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header pyproject.toml -o $(LOCKS)/serve.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header pyproject.toml --extra dev -c $(LOCKS)/serve.txt -o $(LOCKS)/dev.txt
	echo 'kserve>=0.21' | uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header - -o $(LOCKS)/kserve.txt
	echo 'setuptools' | uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header - -o $(LOCKS)/build.txt

proto: $(DEV)/.installed ## Make the messages of gRPC from server/rpc/inference.proto anew
	$(DEV)/bin/python -m grpc_tools.protoc -I . --python_out=. server/rpc/inference.proto

clean: ## Remove the environments and caches
	rm -rf .venv bench/.work *.egg-info build dist .coverage* .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

# One environment to serve, one to train and test: the first holds no training library.
$(SERVE)/.installed: $(LOCKS)/serve.txt $(LOCKS)/build.txt pyproject.toml
	$(call install,$(SERVE),$(LOCKS)/serve.txt)

$(DEV)/.installed: $(LOCKS)/dev.txt $(LOCKS)/build.txt pyproject.toml
	$(call install,$(DEV),$(LOCKS)/dev.txt)

# KServe's client wants an older pandas and protobuf than Committee, so it has an environment of its own, beside DEV.
$(KSERVE)/.installed: $(LOCKS)/kserve.txt
	$(PYTHON) -m venv $(KSERVE)
	$(KSERVE)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-compile --require-hashes -r $<
	touch $@

$(BENCH)/.installed: bench/peers/requirements/base.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/pip install --quiet --disable-pip-version-check -r $<
	cp $< $@

define install
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Committee needs Python 3.11 or newer: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv $(1)
	$(1)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r $(2)
	$(1)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r $(LOCKS)/build.txt
	$(1)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@
endef
