# Everything from an empty machine with Python 3.11 and make. `make help` lists the targets.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# Override any of these on the command line or in the environment: `make backtest N_EPOCHS=20 DEVICE=cuda`.
PYTHON      ?= python3.11 python3.12 python3
VENV        ?= .venv
SAMPLE      ?= sample_market
SAMPLE_SEED ?= 0
SAMPLE_START ?= 2013-01-04
SAMPLE_END  ?= 2018-12-28
QLIB_DATA   ?= $(SAMPLE)
WORKFLOW    ?= workflows/mimstocr_csi300.yaml
PYTEST_ARGS ?= -n auto --maxprocesses 8 --dist loadfile

BIN := $(VENV)/bin
# Errors alone: a machine's own settings of pip may bring warnings that say nothing of this project.
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet

# On the sample market the run is a demonstration, of about two minutes: one epoch with large steps where the workflow
# has 100 with small ones, a narrower backbone, two years to train on and two to trade.
ifeq ($(QLIB_DATA),$(SAMPLE))
N_EPOCHS      ?= 1
LEARNING_RATE ?= 0.002
HIDDEN_SIZE   ?= 32
MARKET := sample
endif

# MLflow reports its use to its makers unless told not to; a strategy is nobody else's business.
MLFLOW_DISABLE_TELEMETRY ?= true
export MLFLOW_DISABLE_TELEMETRY

# What the workflow reads from its environment.
export QLIB_DATA
ifdef N_EPOCHS
export N_EPOCHS
endif
ifdef LEARNING_RATE
export LEARNING_RATE
endif
ifdef HIDDEN_SIZE
export HIDDEN_SIZE
endif

.PHONY: help install backtest sample test chromium lint format site site-version pins vulnerabilities licences \
	test-lowest test-newest dist image docker-rehearsal clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' Makefile

install: $(VENV)/.installed ## Make the virtual environment with the pinned versions

backtest: $(VENV)/.installed $(MARKET) ## Run the workflow, by default on the sample market
	$(BIN)/qrun $(WORKFLOW)

sample: $(VENV)/.installed ## Write the sample market, unless it is there already
	$(BIN)/qlib-ext data sample --out $(SAMPLE) --seed $(SAMPLE_SEED) --start $(SAMPLE_START) --end $(SAMPLE_END)

test: chromium lint ## Check format, lint and types, then run the tests
	$(BIN)/pytest $(PYTEST_ARGS)

chromium: ## Install the browser that the tests open, where this user may; without it they say that they skip
	@for name in chromium chromium-browser google-chrome; do command -v $$name > /dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
		echo "Installing Chromium for the browser tests"; \
		apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium > /dev/null \
			|| echo "Chromium could not be installed: the browser tests will skip" >&2; \
	else echo "There is no Chromium, and only root may install it: the browser tests will skip" >&2; fi

lint: $(VENV)/.installed-test ## Check format, lint and types
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

format: $(VENV)/.installed-test ## Format the code and mend what the linter can mend
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

# Hooks are found in the working directory. The notice is about a later version of mkdocs, which the pins keep away.
SITE := PATH="$(abspath $(BIN)):$$PATH" PYTHONPATH=. NO_MKDOCS_2_WARNING=1

site: $(VENV)/.installed-test ## Build the documentation into build/site; whatever leads nowhere is an error
	$(SITE) $(BIN)/mkdocs build --strict

site-version: $(VENV)/.installed-test ## Commit the site of a VERSION to the branch gh-pages, as the latest
	$(SITE) $(BIN)/mike deploy --update-aliases $(VERSION) latest
	$(SITE) $(BIN)/mike set-default latest

pins: $(VENV)/.installed-test ## Write constraints.txt from the virtual environment
	$(PIP) install --no-build-isolation --editable '.[test,dev,fetch]'
	grep '^#' constraints.txt > $(VENV)/pins.txt
	$(PIP) freeze --all --exclude-editable | grep -E '^[A-Za-z0-9._-]+==' | grep -vE '^(pip|wheel|nvidia-|cuda-|triton)' \
		| sed 's/+.*//' | sort -f >> $(VENV)/pins.txt
	mv $(VENV)/pins.txt constraints.txt

vulnerabilities: | $(BIN)/python ## Ask pip-audit about the pinned versions; it needs a network
	$(BIN)/python -m venv $(VENV)-audit
	$(VENV)-audit/bin/pip --disable-pip-version-check install --quiet pip-audit
	$(VENV)-audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip

licences: $(VENV)/.installed-test ## Write docs/licences.md from what is installed
	$(BIN)/python -m benchmarks.licences

# The ends of pyproject's ranges, each in an environment of its own, tried as a user would: a report, LightGBM, a portfolio.
test-lowest: RESOLUTION := lowest-direct
test-newest: RESOLUTION := highest
test-lowest: | $(BIN)/python ## Install the oldest versions that pyproject.toml allows, and run a few commands on them
	$(smoke)
test-newest: | $(BIN)/python ## The same with the newest versions
	$(smoke)

define smoke
	rm -rf $(VENV)-$@ && $(BIN)/python -m venv $(VENV)-$@
	$(VENV)-$@/bin/python -m pip --disable-pip-version-check install --quiet uv
	$(VENV)-$@/bin/uv pip compile --quiet --resolution $(RESOLUTION) --extra portfolio --extra search \
		--python $(VENV)-$@/bin/python pyproject.toml --output-file $(VENV)-$@/versions.txt
	$(VENV)-$@/bin/python -m pip --disable-pip-version-check install --quiet --requirement $(VENV)-$@/versions.txt
	$(VENV)-$@/bin/python -m pip --disable-pip-version-check install --quiet --no-deps .
	$(VENV)-$@/bin/qlib-ext doctor
	$(VENV)-$@/bin/qlib-ext quickstart $(VENV)-$@/study
	cd $(VENV)-$@/study && PATH=$(abspath $(VENV)-$@/bin):$$PATH && export QLIB_DATA=sample_market \
		&& qrun workflows/lightgbm_csi300.yaml \
		&& qlib-ext backtest lightgbm_csi300 --portfolio workflows/portfolios/top50_weekly.yaml
	rm -rf $(VENV)-$@
endef

dist: $(VENV)/.installed ## Build sdist and wheel into dist; with TAG=v1.2.3 only if that is the version
	@version=v$$($(BIN)/python -c 'import qlib_ext; print(qlib_ext.__version__)'); \
	if [ -n "$(TAG)" ] && [ "$(TAG)" != "$$version" ]; then \
		echo "The tag must be $$version, as qlib_ext/__init__.py says, found $(TAG)" >&2; exit 1; fi
	rm -rf build dist
	$(BIN)/python -c 'import setuptools.build_meta as b; b.build_sdist("dist"); b.build_wheel("dist")' > /dev/null

image: ## Build the Docker image; it needs an engine
	docker build -f docker/Dockerfile -t qlib-ext .

docker-rehearsal: ## Do the steps of docker/Dockerfile in an empty folder, where no engine is
	$(firstword $(PYTHON)) docker/rehearse.py docker/Dockerfile

clean: ## Remove what make made, but no run: MLflow's store and the checkpoints stay
	rm -rf build dist panel_cache qlib_ext.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	if [ -f $(SAMPLE)/side/sample.json ]; then rm -rf $(SAMPLE); fi
	if [ -f $(VENV)/.made ]; then rm -rf $(VENV); fi

$(BIN)/python:
	@python=; \
	for candidate in $(PYTHON); do \
		if "$$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null; \
		then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo "Python 3.11 or 3.12 is needed, found neither (tried: $(PYTHON))." >&2; \
		echo "Install Python 3.11, or say where it is: make PYTHON=<path of python3.11> ..." >&2; \
		exit 1; \
	fi; \
	echo "Making $(VENV) with $$("$$python" --version)"; \
	"$$python" -m venv $(VENV) && touch $(VENV)/.made

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing the pinned versions into $(VENV): some minutes the first time"
	@$(PIP) install --constraint constraints.txt setuptools
	@$(PIP) install --no-build-isolation --constraint constraints.txt --editable '.[portfolio]'
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	@$(PIP) install --no-build-isolation --constraint constraints.txt --editable '.[test]'
	@touch $@
