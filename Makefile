# One command for everything. Needs make and Python 3.11 or newer; all else goes into .venv.
# Lines that begin with two number signs are the help text.

PYTHON  ?= $(shell command -v python3.11 || command -v python3)
PROFILE ?=
DATA    ?=
RESULTS ?=
SEEDS   ?=
DEVICE  ?= auto
PARAMS  ?=
A       ?= $(or $(RESULTS),results/$(or $(PROFILE),mini)$(if $(DATA),-$(DATA_NAME)))
B       ?= paper
TESTS   ?= tests
LAUNCH  ?=
PROCESSES ?=
IMAGES  ?= $(if $(DATA),$(wildcard $(DATA)/annotations/image_info_test-dev2017.json))

# The name that yolopose/study/config.py gives to results on other data: that of the folder, links followed.
DATA_NAME = $(shell cd "$(DATA)" && basename "$$(pwd -P)")
VENV    := .venv
PY      := $(VENV)/bin/python
STAMP   := $(VENV)/.installed
OPTIONS  = --profile "$(PROFILE)" --data "$(DATA)" --results "$(RESULTS)" --seeds "$(SEEDS)" --device "$(DEVICE)"
STAGES  := data complexity train evaluate export tables figures report

unexport PYTHONDONTWRITEBYTECODE # compiled modules start twice as fast
export JUPYTER_PREFER_ENV_PATH = 1
export YOLOPOSE_PROCESSES = $(PROCESSES)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup reproduce ablations runs tune checkpoints estimate validate answer $(STAGES) compare status bench lab test lint lock readme reference clean

## The study
##   reproduce    run whatever is missing, in order, and print what came out
##   ablations    train the whole set of ablations with several seeds (a night on two cores), then redraw
##   status       what is done, running, missing or stale, and the time left
##   runs         train and score every run beside the others: make -j4 runs LAUNCH="srun --gres=gpu:1"
##   estimate     hours, memory and disk of PROFILE before it starts (RATE=400 images a second; MARKDOWN=1)
##   compare      compare two sets of results: A=<folder> B=<folder>; default: A=<RESULTS as below> B=paper
##   validate     check FILE=<zip> as COCO's evaluation server takes it (image ids from DATA or IMAGES=<json>)
##   answer       put the COCO server's ANSWER=<file> into RUN=results/paper-coco/s6/seed0
##   clean        delete the results of PROFILE (never committed ones) and the tools' caches
##
## Its stages, each one notebook
##   data         01  make, fetch (PROFILE=paper) or check the data set; statistics and the mean-pose baseline
##   complexity   02  parameters and GMACs of every model at the paper's sizes
##   train        03  train the runs that are missing; a killed run goes on where it was
##   evaluate     04  score val and test-dev
##   export       05  ONNX and quantized models, checked and timed
##   tables       06  the paper's tables, printed and measured side by side
##   figures      07  the paper's figures
##   report       08  comparison, claims and report.html
##
## Working on it
##   setup        make .venv from the locked requirements (every other target does so when needed)
##   lab          open the notebooks in JupyterLab
##   bench        measure this machine: results/bench/<machine>.csv
##   checkpoints  fetch and import the released weights (NAMES="s6_960 ti_lite" for some of them)
##   tune         find the keypoint gains of the losses of Table 3 on held-out training images
##   test         lint and run the tests (TESTS=tests/test_run.py for some of them)
##   lint         ruff, and import-linter: the layers of the library
##   readme       refresh the table of claims in results/reference/mini/README.md
##   reference    bring results/<profile> into the form that is committed under results/reference
##   lock         compile env/*.in to env/*.txt again
##
## Variables
##   PROFILE      smoke (minutes), mini (an hour on two cores), gpu, paper; default: mini, or what RESULTS holds
##   DATA         a folder in COCO layout that replaces the profile's data set; with PROFILE=paper also a new one
##   RESULTS      where results go; default: results/<profile> or results/<profile>-<name of DATA>
##   SEEDS        for example SEEDS="0 1 2"; default: the profile's
##   DEVICE       auto, cpu, cuda or cuda:1; default: auto
##   PARAMS       further notebook parameters, for example PARAMS="PHOTO=me.jpg"
##   LAUNCH       prefix of each heavy command, for example "srun --gres=gpu:1"
##   PROCESSES    processes that share each batch of a training; default: one a visible GPU
##   PYTHON       the interpreter that makes .venv; default: python3.11, else python3

help:
	@echo "usage: make TARGET [VARIABLE=value ...]"
	@echo
	@sed -n 's/^## \{0,1\}//p' Makefile

$(STAMP): env/requirements.txt env/uv.txt pyproject.toml
	@if [ -z "$(PYTHON)" ]; then \
	  echo "make: no python3 found; install Python 3.11 or newer, or name one: make setup PYTHON=/path/to/python3.11" >&2; exit 1; fi
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: $(PYTHON) is $$("$(PYTHON)" -V 2>&1), but 3.11 or newer is needed;" \
	    "name one: make setup PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "setup: $(VENV) with $$("$(PYTHON)" -V 2>&1) (first time: about 2.5 GB to download, 5.2 GB on disk)"
	@"$(PYTHON)" -m venv $(VENV) || { \
	  echo "make: $(PYTHON) cannot make a virtual environment (see above);" \
	    "on Debian and Ubuntu install the package python3-venv" >&2; exit 1; }
	@"$(PY)" -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r env/uv.txt || { \
	  echo "make: pip could not install uv (see above); is there a network? PIP_INDEX_URL names a mirror" >&2; exit 1; }
	@if [ -t 2 ]; then quiet=; else quiet=--quiet; fi; \
	  "$(VENV)/bin/uv" pip sync $$quiet --python "$(PY)" --require-hashes env/requirements.txt || { \
	  echo "make: uv could not install env/requirements.txt (see above); is there a network and room on the disk?" \
	    "UV_DEFAULT_INDEX names a mirror. Repeat the command: what was downloaded is kept" >&2; exit 1; }
	@"$(VENV)/bin/uv" pip install --quiet --python "$(PY)" --no-deps --no-build-isolation --editable . || { \
	  echo "make: this package could not be installed (see above)" >&2; exit 1; }
	@touch $@

setup: $(STAMP)
	@echo "setup: $(VENV) is up to date"

reproduce ablations $(STAGES): $(STAMP)
	@$(LAUNCH) "$(PY)" -m yolopose.workflow.run $@ $(OPTIONS) $(foreach p,$(PARAMS),--set '$(p)')

status: $(STAMP)
	@"$(PY)" -m yolopose.workflow.status $(OPTIONS)

compare: $(STAMP)
	@"$(PY)" -m yolopose.report.sets "$(A)" "$(B)"

estimate: $(STAMP)
	@"$(PY)" -m yolopose.analysis.cost $(OPTIONS) $(if $(RATE),--images-per-second "$(RATE)") $(if $(MARKDOWN),--markdown)

validate: $(STAMP)
	@"$(PY)" -m yolopose.evaluation.coco_server.results_file "$(FILE)" $(if $(IMAGES),--images "$(IMAGES)")

answer: $(STAMP)
	@"$(PY)" -m yolopose.evaluation.coco_server.answer "$(RUN)" "$(ANSWER)" $(if $(DATE),--date "$(DATE)") $(if $(REPLACE),--replace)

checkpoints: $(STAMP)
	@"$(PY)" -m yolopose.released.catalogue $(NAMES)

runs: $(STAMP)
	@$(MAKE) --no-print-directory -f fanout.mk PY="$(PY)" OPTIONS='$(OPTIONS)' LAUNCH='$(LAUNCH)'

tune: $(STAMP)
	@$(LAUNCH) "$(PY)" -m yolopose.training.tune $(OPTIONS)

bench: $(STAMP)
	@"$(PY)" -m benchmarks.bench $(if $(SUBJECTS),--subjects $(SUBJECTS))

lab: $(STAMP)
	@"$(PY)" -m jupyterlab notebooks

lint: $(STAMP)
	@"$(PY)" -m ruff check .
	@said="$$("$(VENV)/bin/lint-imports" --no-logo 2>&1)" || { echo "$$said" >&2; \
	  echo "make: an import above breaks a contract of pyproject.toml: the layers of the library point downwards only" >&2; \
	  exit 1; }

# One process a core and one thread each; a file's tests stay together, for they share what they trained.
test: lint
	@OMP_NUM_THREADS=1 "$(PY)" -m pytest -q --durations=10 -n logical --dist loadfile --no-loadscope-reorder $(TESTS)

readme: $(STAMP)
	@"$(PY)" -m yolopose.report.page --readme results/reference/mini/README.md results/reference/mini

reference: $(STAMP)
	@"$(PY)" -m yolopose.analysis.reference $(OPTIONS)

lock: $(STAMP)
	@cd env && ../$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-deps uv.in -o uv.txt
	@cd env && ../$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url requirements.in -o requirements.txt
	@echo "lock: env/uv.txt and env/requirements.txt are up to date"

clean:
	@"$(if $(wildcard $(PY)),$(PY),$(PYTHON))" -m yolopose.workflow.clean --profile "$(PROFILE)" --data "$(DATA)" --results "$(RESULTS)"
