# The commands of this project; `make help` lists them. Every one makes .venv first where it is missing or out of date.

PYTHON ?= python3
PRESET ?= sample
DATA ?= sample
# Parameters of the notebooks that this study sets besides its preset, such as P="-p epochs 1 -p seed 2".
P ?=
# pytest processes; each keeps to one computing thread.
JOBS ?= 2
# The notebook that `make app` shows: 0_try, or 6_search after `make study`.
PAGE ?= 0_try
# More words for JupyterLab or Voila, such as LAB_ARGS="--no-browser --port 8889".
LAB_ARGS ?=

# What a user gives is text: make expands none of it, and recipes read it from the environment, quoted.
on_sample := $(filter file,$(origin DATA))
override PRESET := $(value PRESET)
override DATA := $(value DATA)
NAME ?= $(PRESET)
# Windows' Linux (WSL) has the machine's name as NAME in every environment, which is no name of a study.
unnamed := $(filter file,$(origin NAME)) $(and $(value WSL_DISTRO_NAME),$(filter environment,$(origin NAME)))
override NAME := $(if $(strip $(unnamed)),$(PRESET),$(value NAME))
override P := $(value P)
override JOBS := $(value JOBS)
override LAB_ARGS := $(value LAB_ARGS)
override PAGE := $(value PAGE)
export PRESET DATA NAME P JOBS LAB_ARGS PAGE
# In a container the user is often root, whom JupyterLab refuses unless told.
as_root := $(if $(filter 0,$(shell id -u)),--allow-root)

BIN := .venv/bin
INSTALLED := .venv/installed
CODE := patsim_utils tests notebooks tools

.DEFAULT_GOAL := help
.PHONY: help study test lab app lint readme record lock clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo 'make study PRESET=described DATA=path/to/folder NAME=real P="-p epochs 1"'

study: $(INSTALLED) ## run the notebooks on DATA with PRESET and write reports/NAME (PRESET, DATA, NAME, P)
	@$(if $(on_sample),[ "$$PRESET" = sample ] || echo 'DATA is not set: this study runs on the sample that ships';) \
	PATSIM_P="$$P" $(BIN)/python -m patsim_utils study --preset="$$PRESET" --data="$$DATA" --name="$$NAME"

test: $(INSTALLED) ## run the whole test suite, without network or GPU (JOBS)
	HF_HUB_OFFLINE=1 CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n "$$JOBS" --dist worksteal

lab: $(INSTALLED) ## open the notebooks in JupyterLab, which saves them without outputs (LAB_ARGS)
	$(BIN)/jupyter lab --ContentsManager.pre_save_hook=patsim_utils.tool.web.lab.clean $(as_root) $$LAB_ARGS

app: $(INSTALLED) ## open 0_try, or PAGE=6_search, as a page for people who have no Python (PAGE, LAB_ARGS)
	@[ "$$PAGE" != 6_search ] || [ -f runs/sample/metrics.json ] || \
		{ echo '6_search needs a study, whose model ranks: make study' >&2; exit 2; }
	@$(BIN)/voila "notebooks/$$PAGE.ipynb" $$LAB_ARGS

lint: $(INSTALLED) ## check style and format of the code and the notebooks
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)

readme: $(INSTALLED) ## write the recorded results into the table of README.md
	$(BIN)/python -m patsim_utils readme

record: $(INSTALLED) ## share study NAME: reports/recorded/NAME and reports/results.csv
	@$(if $(strip $(unnamed)),echo 'name the study to share: make record NAME=real' >&2; exit 2,) \
	$(BIN)/python -m patsim_utils record -- "$$NAME"

lock: $(INSTALLED) ## pin in requirements.lock what .venv holds now
	$(BIN)/python -m pip freeze --all --exclude pip --exclude wheel --exclude-editable > requirements.tmp
	{ grep '^#' requirements.lock; sed 's/+[^;]*//' requirements.tmp; } > requirements.new
	mv requirements.new requirements.lock && rm requirements.tmp

clean: ## remove .venv and caches; runs/ and reports/ stay
	rm -rf .venv .pytest_cache .ruff_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else \
		"patsim needs Python 3.11 or newer; name one with: make PYTHON=python3.11")'
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@
