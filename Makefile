# SPDX-License-Identifier: Apache-2.0
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
PY := .venv/bin/python
EXT_IN := $(wildcard setup.py qsafp_embedded/*.pyx qsafp_embedded/*.pxd cext/include/*.h cext/src/*.[ch] board_ports/*/*.[ch])
PYTESTS := tests/python tests/rules

BENCH := $(wildcard tests/bench/run.py)
DEMO := $(wildcard examples/demo.py)
ABSENT := $(if $(BENCH),,bench) $(if $(DEMO),,demo) none

.PHONY: help setup lint test test-c cross fuzz mutants pytest scenarios boards emulate wheels clean

help: ## list the targets
	@awk -F ':.*## ' 'index(" $(ABSENT) ", " " $$1 " ") {next} /^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: build/ext.stamp ## make .venv and build the extension in place

build/venv.stamp: pyproject.toml tools/bootstrap.sh
	@mkdir -p build
	tools/bootstrap.sh setup
	@touch $@

# Compiling only when there is a binding; the list of inputs is an input too, so that a deleted file rebuilds.
build/ext.stamp: build/venv.stamp $(EXT_IN) build/inputs.txt
	QSAFP_WERROR=1 $(PY) setup.py -q build_ext --inplace
	@touch $@

build/inputs.txt: FORCE
	@mkdir -p build
	@printf '%s\n' $(sort $(EXT_IN)) | cmp -s - $@ || printf '%s\n' $(sort $(EXT_IN)) > $@

.PHONY: FORCE
FORCE:

lint: setup ## ruff and mypy
	$(PY) -m ruff check .
	$(PY) -m mypy

test-c: setup ## every tests/c/test_*.c under ASan and UBSan
	$(PY) tools/check_c.py test

cross: setup ## the core on five targets and two compilers; size budget
	tools/bootstrap.sh tests
	$(PY) tools/check_c.py cross

fuzz: setup ## fuzz the core until stopped, or SECONDS= in all
	tools/bootstrap.sh tests
	$(PY) tools/check_c.py fuzz $(if $(SECONDS),--seconds $(SECONDS))

mutants: setup ## change the core in a sample of places (FULL=1: all), or take away what the monitor rests on (MONITOR=1): what does no test notice?
	$(if $(MONITOR),tools/bootstrap.sh tests)
	$(PY) $(if $(MONITOR),tools/monitor_mutants.py,tools/mutants.py $(if $(FULL),--full))

pytest: setup ## tests/python and tests/rules
	$(PY) -m pytest $(PYTESTS)

scenarios: setup ## every scenario: real guard, agent and validators, attacked
	$(PY) -m qsafp_embedded.cli test --scenario all -j 2

boards: setup ## emulated Linux boards, real kernels, checked from outside (BOARD=a,b; SKIP=c)
	tools/bootstrap.sh boards
	$(PY) tests/emulation/run.py $(BOARD) $(if $(SKIP),skip=$(SKIP))

emulate: setup ## emulated bare boards, the monitor below an OS, checked (BOARDS=a,b; SKIP=c); BOARD=a: that one alive here (LEAD=1)
	tools/bootstrap.sh tests
	$(if $(BOARD),$(PY) tests/monitor/live.py $(BOARD) $(if $(LEAD),--lead),$(EMULATE))

# Whatever came of it, docs/conformance.md says what ran.
EMULATE = $(PY) tests/monitor/emulate.py $(BOARDS) $(if $(SKIP),skip=$(SKIP)); ran=$$?; $(PY) tools/conformance.py && exit $$ran

wheels: setup ## the wheel for aarch64, armv7l and riscv64, each imported under emulation
	tools/bootstrap.sh wheels
	$(PY) tests/emulation/try_wheels.py

test: setup ## all of it: lint, C tests, cross checks and budget, emulated boards (Linux: short checks of one), Python tests, rules
	$(PY) tools/tables.py --check
	$(PY) tools/wiring.py --check
	$(MAKE) --no-print-directory lint
	$(MAKE) --no-print-directory test-c
	$(MAKE) --no-print-directory cross
	$(PY) tools/check_c.py fuzz --seconds 60
	$(PY) tests/emulation/run.py quick virt_aarch64_linux
	$(PY) tests/monitor/emulate.py
	$(PY) tools/conformance.py --check
	$(MAKE) --no-print-directory pytest
	@echo "make test: all passed"

ifneq ($(BENCH),)
.PHONY: bench
bench: setup ## measure every figure
	$(PY) $(BENCH)
endif

ifneq ($(DEMO),)
.PHONY: demo
demo: setup ## six validators, a guard, a model: the whole story (SUITE=hybrid too)
	$(PY) $(DEMO) $(if $(SUITE),--suite $(SUITE))
endif

clean: ## remove what was built, not .venv
	rm -rf build dist *.egg-info qsafp_embedded/_core.c qsafp_embedded/*.so
