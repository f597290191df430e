# `make help` lists what there is. make itself ends with 2 whatever failed; the line it prints (`Error 75`) carries the
# code, and the scripts in docker/ end with it.
SHELL := /bin/bash -euo pipefail
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.installed
STAGES := doctor fetch generate audit sft dpo respond
COVERAGE := 85

# make sft RECIPE=mistral-7b RUN=ubuntu SET="dpo.beta=0.05 seed=1"
ifdef RECIPE
export CAI_RECIPE := $(RECIPE)
endif
ifdef RUN
export CAI_RUN := $(RUN)
endif
ifdef SET
export CAI_SET := $(SET)
endif

.PHONY: help demo test test-containers check build generate sft dpo dpo-detached results key lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo '  RECIPE=name RUN=name SET="key=value …" change what a stage runs.'

demo: $(STAMP) ## The whole path on this machine, without Docker: constitution in, SFT and DPO adapters out (runs/demo)
	@export HF_HOME="$${HF_HOME:-$$PWD/runs/models/hub}"; \
	for stage in $(STAGES); do $(PYTHON) -m jobs $$stage; done

test: $(STAMP) ## All tests that need no Docker, coverage, ruff and mypy
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(PYTHON) -m pytest --durations=15 --cov=jobs --cov-report=term:skip-covered --cov-fail-under=$(COVERAGE)

test-containers: $(STAMP) ## Build both images and run them on a Docker engine (started where none answers)
	@eval "$$(docker/engine.sh up)"; docker/engine.sh prune; \
	$(PYTHON) -m pytest -m docker tests/containers --durations=0

check: $(STAMP) ## ruff, format, mypy and the fast tests, for every commit
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(PYTHON) -m pytest -q -x --ignore=tests/train

build: ## Build both images
	@. docker/settings.sh; docker compose --profile dpo build

generate: ## In containers: download the weights, write prompts, critiques, revisions and preference pairs
sft: ## In containers: all before it, then the SFT adapter (on the GPU where there is one)
dpo: ## In containers: all before it, then the DPO adapter and the answers before and after
generate sft dpo:
	@docker/up.sh $@

dpo-detached: ## As dpo, but goes on when the connection drops
	@docker/up.sh dpo --detach

results: ## Copy RUN out of the volume to results/
	@docker/results.sh "$${CAI_RUN:-demo}"

key: ## Install the OpenAI key for the containers: make key < FILE (NAME=hf_token for the hub's)
	@docker/key.sh $(or $(NAME),openai_api_key) $(FILE)

UV := $(VENV)-lock/bin/uv
COMPILE := $(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
	--no-annotate --override requirements/overrides.txt
lock: ## Resolve requirements/*.in again into the hashed locks
	@python3 -m venv $(VENV)-lock && $(UV:uv=pip) install -q uv
	$(COMPILE) --upgrade requirements/dev.in -o requirements/dev.lock
	$(COMPILE) -c requirements/dev.lock requirements/cpu.in -o requirements/cpu.lock
	$(COMPILE) -c requirements/dev.lock requirements/cuda.in -o requirements/cuda.lock
	@rm -rf $(VENV)-lock

clean: ## Remove the virtual environment, caches, containers and networks; runs and their volume stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .coverage .coverage.* logs
	find jobs tests -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
	@! docker version >/dev/null 2>&1 || docker compose --profile dpo down --remove-orphans

$(STAMP): requirements/dev.lock
	@for python in python3 python3.13 python3.12 python3.11; do \
	  $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && found=$$python && break; \
	done; \
	test -n "$${found:-}" || { echo 'make: needs Python 3.11, 3.12 or 3.13 on PATH (Debian, Ubuntu: apt-get install python3 python3-venv)' >&2; exit 78; }; \
	echo "make: installing $(VENV) with $$found (about 8 GB, once)"; \
	$$found -m venv --clear $(VENV) || { echo "make: $$found has no venv module (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 78; }
	@$(PYTHON) -m pip install -q --disable-pip-version-check --no-cache-dir --only-binary :all: --no-deps --require-hashes \
	  -r requirements/dev.lock
	@$(PYTHON) -c 'import pathlib, sysconfig; (pathlib.Path(sysconfig.get_path("purelib")) / "cai.pth").write_text("$(CURDIR)\n")'
	@printf '#!/bin/sh\nexec "%s" -m jobs "$$@"\n' "$(CURDIR)/$(PYTHON)" > $(VENV)/bin/cai; chmod +x $(VENV)/bin/cai
	@touch $@
