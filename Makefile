# The environment, the first run, the checks and the tests. `make help` lists them.
# Further words of the command line, as in: make train ARGS="recipe_name=mild max_duration=2ep"
ARGS ?=
# STACK=next: a newer torch, in an environment of its own, as in: make train STACK=next
STACK ?= pinned
# LEAN=1: only the packages that training imports, in an environment of its own; goes with either stack
LEAN ?=
# With LEAN=1, trackers to install, as in: make env LEAN=1 TRACKERS="wandb mlflow"
TRACKERS ?=

# The first of some names that runs; pyenv puts names on the path that do not.
first_of = $(shell for name in $(1); do $$name -V >/dev/null 2>&1 && echo $$name && break; done)

ifeq ($(STACK),pinned)
VENV := .venv
VERSIONS := 3.11
PYTHON ?= $(call first_of,python3.11 python3)
LOCK := constraints.txt
RUN := --constraint constraints.txt --requirement requirements.txt
DEV := $(RUN) --requirement tests/requirements.txt
else ifeq ($(STACK),next)
VENV := .venv-next
VERSIONS := 3.12 3.13
PYTHON ?= $(call first_of,python3.12 python3.13 python3)
LOCK := constraints-next.txt
# Composer's upper bounds exclude this torch, so pip must not resolve: the lock lists every package.
RUN := --no-deps --requirement constraints-next.txt
DEV := $(RUN)
else
$(error STACK=$(STACK): no such stack; use STACK=pinned (torch 2.7.0, the default) or STACK=next (torch 2.13.0))
endif

ifneq ($(LEAN),)
VENV := $(VENV)-lean
# Composer and Streaming without their dependencies, which include the clients of four clouds.
RUN = --constraint $(LOCK) --requirement launch/lean/requirements.txt $(TRACKERS) && \
	$(PIP) --no-deps --constraint $(LOCK) mosaicml mosaicml-streaming ./launch/lean
DEV = --constraint $(LOCK) pytest pytest-timeout pytest-xdist hypothesis 'moto[server,s3]' wandb tensorboard
endif

BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check install --quiet
NATIVE := loaders/images/native/decode.so
OURS := $(VENV)/.ours

.PHONY: help env train test quick network check clean

help:  ## List these targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/'

# The stamp .run is older than the requirements only if they have changed, so nothing is installed twice.
$(VENV)/.run: requirements.txt $(LOCK) $(if $(LEAN),$(wildcard launch/lean/*.*))
	@test -x $(BIN)/python || $(PYTHON) -V | grep -q $(patsubst %,-e 'Python %[.]',$(VERSIONS)) || { \
		echo "STACK=$(STACK) needs one of Python $(VERSIONS), and '$(PYTHON)' is none of them;" \
			"name one: make ... PYTHON=/path/to/python" >&2; exit 1; }
	@echo "creating the environment in $(VENV) (a few minutes and 6 to 7 GB, once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) $(RUN)
	@touch $@

$(VENV)/.dev: $(VENV)/.run tests/requirements.txt
	@$(PIP) $(DEV)
	@touch $@

# Replace Composer's `composer`, which kills ranks that take more than 30 seconds to save, with ours (launch/ranks.py),
# and let Python find the checkout from any folder (launch/on_path.py).
$(OURS): $(VENV)/.run launch/composer launch/on_path.py
	@cp launch/composer $(BIN)/composer
	@for packages in $(VENV)/lib/python3.*/site-packages; do \
		cp launch/on_path.py $$packages/resnet_recipes.py && \
		echo "import resnet_recipes" > $$packages/resnet_recipes.pth; \
	done
	@touch $@

# The fast JPEG decoder. Without a compiler or libjpeg-turbo's headers it is not built, and torchvision decodes instead.
$(NATIVE): loaders/images/native/decode.c $(wildcard loaders/images/native/*.h)
	@$(CC) -O3 -std=gnu11 -ffp-contract=off -fPIC -fvisibility=hidden -pthread -shared -o $@.tmp $< -ljpeg -lm 2>/dev/null \
		&& mv $@.tmp $@ || rm -f $@.tmp

env: $(VENV)/.run $(OURS) $(NATIVE)  ## Create the environment that a run needs

train: $(VENV)/.run $(OURS) $(NATIVE)  ## Train a ResNet-18 on real scanned digits, about a minute on two cores
	@$(BIN)/composer main.py yamls/digits.yaml $(ARGS)

test: $(VENV)/.dev $(OURS) $(NATIVE)  ## Run every test that needs no network
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --max-worker-restart 0 $(ARGS)

quick: $(VENV)/.dev $(OURS) $(NATIVE)  ## Run the tests that neither start a process nor train; takes under a minute
	@$(BIN)/python -m pytest -m "not slow and not network" --numprocesses 2 --dist loadfile --max-worker-restart 0 $(ARGS)

network: $(VENV)/.dev  ## Run the tests that need a package index
	@$(BIN)/python -m pytest -m network $(ARGS)

check: $(VENV)/.dev  ## Check style and types
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/hadolint Dockerfile

clean:  ## Remove the environments and the caches; runs/ and data/ stay
	rm -rf .venv .venv-* $(NATIVE) .pytest_cache .ruff_cache .mypy_cache .hypothesis
