# make report                                 learn the pair cat_dog with the embedded model; prints where the report lies
# make report PAIR=chair_lamp                 another shipped reference picture
# make report IMAGE=my.png CLASSES=cat,dog    a picture of your own
# make report ARGS="--method custom_diffusion"    another method, into runs/cat_dog-custom_diffusion
# make all-pairs                              every shipped pair, and a page over all of them: runs/all-pairs/index.html
# make notebooks                              execute all notebooks as they are and check them; copies go to runs/ci-notebooks
# make test                                   all the tests, those of the notebooks among them
# make test-fast                              without the slow ones, the notebooks and the browser
#
# The first run makes .venv and installs into it; later ones install nothing, until requirements.txt or pyproject.toml change.

PYTHON ?=
PAIR ?= cat_dog
IMAGE ?=
CLASSES ?=
ARGS ?=
TESTS ?= tests

VENV := .venv
INSTALLED := $(VENV)/.installed
SOURCE = $(if $(IMAGE),--image "$(IMAGE)" $(if $(CLASSES),--classes "$(CLASSES)"),--pair "$(PAIR)" $(if $(CLASSES),--classes "$(CLASSES)"))

# One test process a core, with one thread each: two of them do more than one with two threads. The long ones begin first.
PARALLEL := -n auto --maxprocesses 4 --maxschedchunk 1 --durations 8

# Where the notebooks' tests keep the executed copies.
export EXECUTED_NOTEBOOKS ?= runs/ci-notebooks

.PHONY: report all-pairs notebooks test test-fast install
.DELETE_ON_ERROR:

report: install
	@$(VENV)/bin/python -m disendiff_lite report $(SOURCE) $(ARGS)

all-pairs: install
	@$(VENV)/bin/python -m disendiff_lite report --all-pairs $(ARGS)

notebooks: install
	@OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest $(PARALLEL) tests/test_notebooks.py $(ARGS)

test: install
	@OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest $(PARALLEL) $(TESTS) $(ARGS)

test-fast: install
	@OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest $(PARALLEL) $(TESTS) -m "not slow and not notebook and not browser" $(ARGS)

install: $(INSTALLED)

# The name of the first Python that is new enough, in a variable of the shell: make itself must work without one.
$(INSTALLED): requirements.txt pyproject.toml
	@for python in $(if $(PYTHON),"$(PYTHON)",python3 python3.14 python3.13 python3.12 python3.11 python); do \
	    "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
	    python=; \
	done; \
	if [ -z "$$python" ]; then \
	    echo "No Python 3.11 or newer was found: install one, or name it with make PYTHON=/path/to/python3." >&2; exit 1; \
	fi; \
	if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	    echo "$$python cannot make virtual environments: install its venv module (Debian, Ubuntu: apt install python3-venv)." >&2; \
	    exit 1; \
	fi; \
	echo "Installing into $(VENV) with $$python: some minutes and about 6 GB, once."; \
	"$$python" -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -e . || \
	    { echo "The installation failed: mend what pip says above, then run make again." >&2; exit 1; }
	@touch $@
