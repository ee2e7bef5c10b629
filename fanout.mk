# Runs of a study beside each other: `make -j4 runs` calls this file, so that Make decides how many, and LAUNCH where.
FANOUT ?= "$(PY)" -m yolopose.training.launch
ifndef RUNS # with ?= each mention of it would start Python again
RUNS := $(shell $(FANOUT) list $(OPTIONS))
endif

.PHONY: all $(RUNS)
all: $(RUNS)
	@$(if $(RUNS),,$(error there are no runs; see above))true

$(RUNS):
	@exec $(if $(value LAUNCH),env $(value LAUNCH)) $(FANOUT) run $@ $(OPTIONS)
