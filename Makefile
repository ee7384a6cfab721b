# The environment, the first run, the checks and the tests. `make help` lists them.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/pip --disable-pip-version-check install --quiet --constraint constraints.txt
# Further words of the command line, as in: make train ARGS="recipe_name=mild max_duration=2ep"
ARGS ?=

NATIVE := loaders/images/native/decode.so
PATH_FILES := .venv/lib/python3.11/site-packages/resnet_recipes
OURS := .venv/.ours

.PHONY: help env train test quick network check clean

help:  ## List these targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/'

# The stamp .run is older than the requirements only if they have changed, so nothing is installed twice.
.venv/.run: requirements.txt constraints.txt
	@echo "creating the environment in .venv (a few minutes and about 6 GB, once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP) --requirement requirements.txt
	@touch $@

.venv/.dev: .venv/.run tests/requirements.txt
	@$(PIP) --requirement requirements.txt --requirement tests/requirements.txt
	@touch $@

# Replace Composer's `composer`, which kills ranks that take more than 30 seconds to save, with ours (launch/ranks.py),
# and let Python find the checkout from any folder (launch/on_path.py).
$(OURS): .venv/.run launch/composer launch/on_path.py
	@cp launch/composer $(BIN)/composer
	@cp launch/on_path.py $(PATH_FILES).py
	@echo "import resnet_recipes" > $(PATH_FILES).pth
	@touch $@

# The fast JPEG decoder. Without a compiler or libjpeg-turbo's headers it is not built, and torchvision decodes instead.
$(NATIVE): loaders/images/native/decode.c $(wildcard loaders/images/native/*.h)
	@$(CC) -O3 -std=gnu11 -ffp-contract=off -fPIC -fvisibility=hidden -pthread -shared -o $@.tmp $< -ljpeg 2>/dev/null \
		&& mv $@.tmp $@ || rm -f $@.tmp

env: .venv/.run $(OURS) $(NATIVE)  ## Create the environment that a run needs

train: .venv/.run $(OURS) $(NATIVE)  ## Train a ResNet-18 on real scanned digits, about a minute on two cores
	@$(BIN)/composer main.py yamls/digits.yaml $(ARGS)

test: .venv/.dev $(OURS) $(NATIVE)  ## Run every test that needs no network
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --max-worker-restart 0 $(ARGS)

quick: .venv/.dev $(OURS) $(NATIVE)  ## Run the tests that neither start a process nor train; takes under a minute
	@$(BIN)/python -m pytest -m "not slow and not network" --numprocesses 2 --dist loadfile --max-worker-restart 0 $(ARGS)

network: .venv/.dev  ## Run the tests that need a package index
	@$(BIN)/python -m pytest -m network $(ARGS)

check: .venv/.dev  ## Check style and types
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/hadolint Dockerfile

clean:  ## Remove the environment and the caches; runs/ and data/ stay
	rm -rf .venv $(NATIVE) .pytest_cache .ruff_cache .mypy_cache .hypothesis
