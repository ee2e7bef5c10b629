# One command for everything. Needs make and Python 3.11 or newer; all else goes into .venv.
# Lines that begin with two number signs are the help text.

# What may be given as NAME=value, here or in the environment. Values reach Python through the environment, as they are:
# neither make nor the shell reads a `$`, a quote or a blank in them. LAUNCH and TESTS are words of the shell.
VALUES  := PROFILE DATA RESULTS SEEDS DEVICE PARAMS PROCESSES A B FILE IMAGES RUN ANSWER DATE REPLACE RATE MARKDOWN \
           PHOTO NAMES SUBJECTS PYTHON
KNOWN   := $(VALUES) LAUNCH TESTS VENV PY
STAGES  := data complexity train evaluate export tables figures report
TARGETS := help setup reproduce ablations runs tune checkpoints estimate validate answer predict $(STAGES) compare \
           status bench lab test lint lock readme reference clean

ifeq ($(origin PYTHON),undefined)
PYTHON  := $(shell command -v python3.11 || command -v python3)
endif
DEVICE  ?= auto
TESTS   ?= tests
VENV    := .venv
PY      := $(VENV)/bin/python
STAMP   := $(VENV)/.installed

# A misspelt name would start the study that nobody asked for: it is an error, with the nearest name that there is.
quoted   = '$(subst ','\'',$1)'
NEAREST := import difflib, sys; names = {name.lower(): name for name in sys.argv[2:]}; \
           print(*(f"did you mean {names[name]}?" for name in difflib.get_close_matches(sys.argv[1].lower(), names, 1)))
unknown  = $(error $1: no such $2; $(shell $(call quoted,$(value PYTHON)) -c '$(NEAREST)' \
             $(call quoted,$1) $3 2>/dev/null) known: $3)
given   := $(foreach v,$(.VARIABLES),$(if $(filter command,$(origin $v)),$v))
$(foreach v,$(filter-out $(KNOWN) SHELL MAKE% PIP_% UV_%,$(given)),$(call unknown,$v,variable,$(KNOWN)))
$(foreach t,$(filter-out $(TARGETS) $(STAMP),$(MAKECMDGOALS)),$(call unknown,$t,target,$(TARGETS)))
needs    = $(if $(filter $1,$(MAKECMDGOALS)),$(foreach v,$2,$(if $(value $v),,$(error $v is missing: make $1 $3))))
$(call needs,validate,FILE,FILE=<zip for COCO's server>)
$(call needs,answer,RUN ANSWER,RUN=results/paper-coco/s6/seed0 ANSWER=<scores from COCO's server>)
$(call needs,predict,PHOTO,PHOTO=me.jpg)

unexport $(KNOWN)
MAKEOVERRIDES =
$(foreach v,$(VALUES),$(eval export YOLOPOSE_$v = $$(value $v)))
OPTIONS  = --profile="$$YOLOPOSE_PROFILE" --data="$$YOLOPOSE_DATA" --results="$$YOLOPOSE_RESULTS" \
           --seeds="$$YOLOPOSE_SEEDS" --device="$$YOLOPOSE_DEVICE"
# Python takes the shell's place: a signal to make reaches it.
RUN_PY   = exec "$(PY)"
HEAVY    = exec $(if $(value LAUNCH),env $(value LAUNCH)) "$(PY)"

unexport PYTHONDONTWRITEBYTECODE # compiled modules start twice as fast
export JUPYTER_PREFER_ENV_PATH = 1
# Whatever the locale of the user, and whether there is a HOME, as in a container there may be none.
export PYTHONUTF8 = 1
ifndef HOME
export HOME := $(CURDIR)/.venv
endif

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: $(TARGETS)

## The study
##   reproduce    run whatever is missing, in order, and print what came out
##   ablations    train the whole set of ablations with several seeds (a night on two cores), then redraw
##   status       what is done, running, missing or stale, and the time left
##   runs         train and score every run beside the others: make -j4 runs LAUNCH="srun --gres=gpu:1"
##   estimate     hours, memory and disk of PROFILE before it starts (RATE=400 images a second; MARKDOWN=1)
##   compare      compare two sets of results: A=<folder> B=<folder>; default: A=<RESULTS as below> B=paper
##   predict      draw the people of PHOTO=<file or folder>, by the model of RUN=results/mini/s6/seed0
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
##   PROFILE      smoke (minutes), mini (an hour on two cores), gpu, photos, paper, checkpoints
##                default: mini, or what RESULTS holds
##   DATA         a folder in COCO layout that replaces the profile's data set; with PROFILE=paper also a new one
##   RESULTS      where results go; default: results/<profile> or results/<profile>-<name of DATA>
##   SEEDS        for example SEEDS="0 1 2"; default: the profile's
##   DEVICE       auto, cpu, cuda or cuda:1; default: auto
##   PARAMS       notebook parameters: PARAMS="PHOTO=me.jpg", PARAMS="PHOTO='my photo.jpg' CONFIDENCE=0.3"
##   LAUNCH       prefix of each heavy command, for example "srun --gres=gpu:1"
##   PROCESSES    processes that share each batch of a training; default: one a visible GPU
##   PYTHON       the interpreter that makes .venv; default: python3.11, else python3

help:
	@echo "usage: make TARGET [VARIABLE=value ...]"
	@echo
	@sed -n 's/^## \{0,1\}//p' Makefile

$(STAMP): env/requirements.txt env/uv.txt pyproject.toml
	@if [ -z "$$YOLOPOSE_PYTHON" ]; then \
	  echo "make: no python3 found; install Python 3.11 or newer, or name one: make setup PYTHON=/path/to/python3.11" >&2; exit 1; fi
	@"$$YOLOPOSE_PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: $$YOLOPOSE_PYTHON is $$("$$YOLOPOSE_PYTHON" -V 2>&1), but 3.11 or newer is needed;" \
	    "name one: make setup PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "setup: $(VENV) with $$("$$YOLOPOSE_PYTHON" -V 2>&1) (first time: about 2.5 GB to download, 5.2 GB on disk)"
	@"$$YOLOPOSE_PYTHON" -m venv $(VENV) || { \
	  echo "make: $$YOLOPOSE_PYTHON cannot make a virtual environment (see above);" \
	    "on Debian and Ubuntu install the package python3-venv; where a path has a colon, move this folder" >&2; exit 1; }
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
	@$(HEAVY) -m yolopose.workflow.run $@ $(OPTIONS) --params="$$YOLOPOSE_PARAMS"

status: $(STAMP)
	@$(RUN_PY) -m yolopose.workflow.status $(OPTIONS)

compare: $(STAMP)
	@$(RUN_PY) -m yolopose.report.sets $(OPTIONS) -- "$$YOLOPOSE_A" "$$YOLOPOSE_B"

estimate: $(STAMP)
	@$(RUN_PY) -m yolopose.analysis.cost $(OPTIONS) --images-per-second="$$YOLOPOSE_RATE" $(if $(value MARKDOWN),--markdown)

predict: $(STAMP)
	@$(HEAVY) -m yolopose.display.photo --photo="$$YOLOPOSE_PHOTO" --run="$$YOLOPOSE_RUN" $(OPTIONS)

validate: $(STAMP)
	@$(RUN_PY) -m yolopose.evaluation.coco_server.results_file $(if $(value IMAGES),--images="$$YOLOPOSE_IMAGES") \
	  $(if $(value DATA),--data="$$YOLOPOSE_DATA") -- "$$YOLOPOSE_FILE"

answer: $(STAMP)
	@$(RUN_PY) -m yolopose.evaluation.coco_server.answer $(if $(value DATE),--date="$$YOLOPOSE_DATE") \
	  $(if $(value REPLACE),--replace) -- "$$YOLOPOSE_RUN" "$$YOLOPOSE_ANSWER"

checkpoints: $(STAMP)
	@$(RUN_PY) -m yolopose.released.catalogue -- $$YOLOPOSE_NAMES

runs: $(STAMP)
	@exec $(MAKE) --no-print-directory -f fanout.mk PY="$(PY)" OPTIONS='$(value OPTIONS)' \
	  LAUNCH=$(call quoted,$(value LAUNCH))

tune: $(STAMP)
	@$(HEAVY) -m yolopose.training.tune $(OPTIONS)

bench: $(STAMP)
	@$(RUN_PY) -m benchmarks.bench $(if $(value SUBJECTS),--subjects $$YOLOPOSE_SUBJECTS)

# Jupyter refuses root unless told otherwise, and a browser of the terminal would hide its address. It listens on this
# machine alone and asks for the token that it prints.
lab: $(STAMP)
	@[ "$$(id -u)" != 0 ] || set -- --allow-root; \
	  [ "$$(uname)" = Darwin ] || [ -n "$$DISPLAY$$WAYLAND_DISPLAY$$BROWSER" ] || set -- "$$@" --no-browser; \
	  $(RUN_PY) -m jupyterlab "$$@" notebooks

lint: $(STAMP)
	@"$(PY)" -m ruff check .
	@said="$$("$(VENV)/bin/lint-imports" --no-logo 2>&1)" || { echo "$$said" >&2; \
	  echo "make: an import above breaks a contract of pyproject.toml: the layers of the library point downwards only" >&2; \
	  exit 1; }

# One process a core and one thread each; a file's tests stay together, for they share what they trained.
test: lint
	@exec env OMP_NUM_THREADS=1 "$(PY)" -m pytest -q --durations=10 -n logical --dist loadfile --no-loadscope-reorder \
	  $(value TESTS)

readme: $(STAMP)
	@$(RUN_PY) -m yolopose.report.page --readme results/reference/mini/README.md results/reference/mini

reference: $(STAMP)
	@$(RUN_PY) -m yolopose.analysis.reference $(OPTIONS)

lock: $(STAMP)
	@cd env && ../$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-deps uv.in -o uv.txt
	@cd env && ../$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url requirements.in -o requirements.txt
	@echo "lock: env/uv.txt and env/requirements.txt are up to date"

clean:
	@python="$(PY)"; [ -x "$$python" ] || python="$$YOLOPOSE_PYTHON"; exec "$$python" -m yolopose.workflow.clean $(OPTIONS)
