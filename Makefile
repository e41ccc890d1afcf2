# Two doors: `make lab` and `make test`. Everything else is listed by `make help`.
# Written for GNU make 3.81 (macOS) and later; Windows: see README.md.

VENV     := .venv
BIN      := $(VENV)/bin
PY       := $(BIN)/python
COLAB    := .venv-colab
NOTEBOOK := notebooks/01_axes.ipynb

# The first Python that is new enough (macOS's own python3 may not be); `make PYTHON=/path/to/python lab` overrides.
PYTHON   ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10 python; do \
              $$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && { echo $$p; break; }; done)
PYTEST   := $(PY) -m pytest
# What to pass on: make test PYTEST_ARGS="-k partition"; make lab LAB_ARGS="--no-browser"
PYTEST_ARGS ?=
LAB_ARGS    ?= $(if $(filter 0,$(shell id -u)),--allow-root)

# The kernel named python3 is the one of the environment that runs, whatever the user has installed elsewhere.
export JUPYTER_PREFER_ENV_PATH := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup lab bench test test-long test-colab test-zoo soak site notebooks images badges claims lint constraints clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/installed  ## build .venv (the first time, or after a change of the pins)

lab: $(VENV)/installed  ## open JupyterLab at notebook 01
	$(BIN)/jupyter lab --ServerApp.kernel_websocket_connection_class=normviz.serving.PromptConnection \
	    $(LAB_ARGS) $(NOTEBOOK)

# Notebooks are tested on the CPU: what they store must not depend on the machine.  They come first: the longest files,
# begun last, would leave one of the two processes idle.
WHOLE = CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 $(1) $(PYTEST) notebooks tests -n 2 --dist loadfile --no-loadscope-reorder \
	    --nbval --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg -m $(2) $(PYTEST_ARGS)

test: $(VENV)/installed  ## unit, property, notebook and browser tests
	$(call WHOLE,NORMVIZ_RUN=short,"not long")

test-long: $(VENV)/installed  ## what `make test` cuts short: trainings at full length, every page, every chapter in JupyterLab
	$(call WHOLE,NORMVIZ_RUN=,long)

test-colab: $(COLAB)/installed  ## the notebooks and the explorer with Colab's versions (Python 3.11 or newer)
	CUDA_VISIBLE_DEVICES= $(COLAB)/bin/python -m pytest tests/colab $(PYTEST_ARGS)

test-zoo: $(VENV)/installed-zoo  ## `nv.inspect` on networks of timm, transformers and torchvision
	CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 $(PYTEST) tests/zoo $(PYTEST_ARGS)

soak: $(VENV)/installed  ## kills, damage, full disks and thousands of events, at length
	CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 NORMVIZ_SOAK=long $(PYTEST) tests/test_soak.py tests/test_exercises.py -s $(PYTEST_ARGS)

site: $(VENV)/installed  ## build site/: the chapters as pages that need no kernel
	$(PY) -m tools.site

notebooks: $(VENV)/installed  ## re-execute every notebook in place
	CUDA_VISIBLE_DEVICES= $(PY) tools/run_notebooks.py

images: $(VENV)/installed  ## regenerate images/
	$(PY) -m normviz images
	$(PY) -m tools.site --moving images/axes_explorer.svg

badges: $(VENV)/installed  ## rewrite the Colab links from [project.urls]
	$(PY) tools/badges.py

claims: $(VENV)/installed  ## bring the README's table of claims up to date with results/
	$(PY) -m normviz claims --write README.md

bench: $(VENV)/installed-peers  ## time us against other libraries, folding, imports, notebooks: make bench BENCH_ARGS=peers
	$(PY) -m benchmarks $(BENCH_ARGS)

lint: $(VENV)/installed  ## ruff: errors and formatting rules
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

constraints: $(VENV)/installed  ## renew the pins: make constraints UPGRADE="--upgrade-package numpy"
	$(PY) -m pip install --quiet uv
	$(BIN)/uv pip compile $(UV_ARGS) --python-version 3.10 --extra notebooks --extra test --extra dev pyproject.toml -o constraints.txt
	$(BIN)/uv pip compile $(UV_ARGS) --python-version 3.11 tests/colab/runtime.in -o constraints-colab.txt
UV_ARGS = --quiet --universal --no-annotate --custom-compile-command "make constraints" $(UPGRADE)

clean:  ## remove both environments and everything generated
	rm -rf $(VENV) $(COLAB) build *.egg-info .pytest_cache .ruff_cache .hypothesis test-artifacts
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find . -name .ipynb_checkpoints -type d -prune -exec rm -rf {} +

# The stamp is newer than the pins once everything is installed: the next run goes straight to work.
$(VENV)/installed: pyproject.toml constraints.txt
	$(call check-python,3,10)
	"$(PYTHON)" -m venv $(VENV)
	$(PY) -m pip install -c constraints.txt -e '.[notebooks,test,dev]'
	@touch $@

# What we are measured against; users and tests never need it.
$(VENV)/installed-peers: $(VENV)/installed
	$(PY) -m pip install -c constraints.txt -e '.[bench]'
	@touch $@

# Other people's networks, for `make test-zoo` alone
$(VENV)/installed-zoo: $(VENV)/installed
	$(PY) -m pip install -c constraints.txt -e '.[zoo]'
	@touch $@

# normviz itself is not installed here: its setup cell is tested in this environment.
$(COLAB)/installed: tests/colab/runtime.in constraints-colab.txt
	$(call check-python,3,11)
	"$(PYTHON)" -m venv $(COLAB)
	$(COLAB)/bin/python -m pip install -c constraints-colab.txt -r tests/colab/runtime.in
	@touch $@

define check-python
@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < ($(1), $(2)))' 2>/dev/null || { \
    echo "normviz needs Python $(1).$(2) or newer, but '$(or $(PYTHON),no such Python)' is: $$("$(PYTHON)" --version 2>&1)." >&2; \
    echo "Name one that is: make PYTHON=/path/to/python$(1).$(2) $(MAKECMDGOALS)" >&2; exit 1; }
endef
