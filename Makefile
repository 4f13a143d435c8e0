# What a person does with this repository. `make help` lists it.

SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
FUZZ_SECONDS ?= 60
SOAK ?= 10
MINUTES ?= 10
BENCH ?= quick
REPEAT ?= 3
TEST_JOBS ?= 2
export PYTHON
# Ansible insists on UTF-8; compilers and the loader should speak English in logs.
export LC_ALL := C.UTF-8

C_SOURCES := $(wildcard odb/runtime/*.def odb/runtime/*.cmake odb/runtime/*/*.c odb/runtime/*/*.h odb/runtime/*/*.def)
C_FORMATTED := $(wildcard odb/runtime/*/*.c odb/runtime/*/*.h tests/native/*.c tests/native/*.h tests/native/support/*.[ch] tests/preload/*.c tests/preload/*/*.c)
SCRIPTS := .ci/run .ci/install-packages

.DEFAULT_GOAL := help
.PHONY: help setup packages demo bench profile test native lint format fuzz soak endure reference peers docs lock clean

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name what; do printf '  make %-9s %s\n' "$$name" "$$what"; done

setup: packages $(STAMPS)/project ## install what is missing, build the library, make .venv (nothing to do: one second)

packages:
	@.ci/install-packages

# Packages come first: the interpreter may only now be able to make an environment.
$(STAMPS)/venv: | packages
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; this is " + sys.version.split()[0] + ". Name another one: make PYTHON=/path/to/python3 setup")'
	$(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/lock: requirements.lock $(STAMPS)/venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	@touch $@

# Editable: an edit of Python needs nothing, an edit of C rebuilds just what it touches.
$(STAMPS)/project: pyproject.toml CMakeLists.txt $(C_SOURCES) $(STAMPS)/lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup ## compare nginx without and with ODB on three local hosts (needs root)
	@[ "$$(id -u)" -eq 0 ] || { echo "make demo makes network namespaces and needs root: run it as root, or with sudo." >&2; exit 4; }
	$(BIN)/odb-testbed compare vanilla odb --quick

bench: setup ## measure ODB and its mechanisms against nginx, X-Accel and HAProxy: BENCH=quick (10 minutes), touch or full (RESUME=1 goes on)
	@case "$(BENCH)" in quick|touch|full) ;; *) echo "BENCH is $(BENCH): it must be quick, touch or full." >&2; exit 2;; esac
	@[ "$$(id -u)" -eq 0 ] || { echo "make bench makes network namespaces and needs root: run it as root, or with sudo." >&2; exit 4; }
	@.ci/install-packages strace
	$(BIN)/odb-testbed run $(if $(filter full,$(BENCH)),bench,bench-$(BENCH)) --ratios --destroy $(if $(RESUME),--resume) $(ARGS)

profile: setup ## profile every tier under load, a flame graph each: VARIANT=odb PAYLOAD=64k ARGS='--buffer-size 4k'
	@[ "$$(id -u)" -eq 0 ] || { echo "make profile makes network namespaces and needs root: run it as root, or with sudo." >&2; exit 4; }
	@.ci/install-packages linux-perf
	$(BIN)/odb-testbed profile $(or $(VARIANT),odb) --payload $(or $(PAYLOAD),64k) --destroy $(ARGS)

native: setup ## build library, native tests (plain, and under ASan and UBSan), fuzzer
	@cmake --preset dev >/dev/null
	@cmake --build --preset dev
	@if command -v clang >/dev/null; then cmake --build --preset dev --target fuzz_wire; fi
	@cmake --preset asan >/dev/null
	@cmake --build --preset asan

test: native ## run every test; what needs root is skipped, and says so, without it
	$(BIN)/python -m pytest --numprocesses=$(TEST_JOBS) --dist=loadfile --no-loadscope-reorder

lint: setup ## check form and types of Python, C, playbooks and scripts; change nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict -p odb -p testbed
	@$(if $(C_FORMATTED),clang-format --dry-run -Werror $(C_FORMATTED))
	@cmake --preset dev >/dev/null
	@$(if $(wildcard odb/runtime/*/*.c),run-clang-tidy -quiet -p build/dev '$(CURDIR)/odb/runtime/.*' >build/clang-tidy.log 2>&1 || { grep -E 'error|warning' -A 3 build/clang-tidy.log; exit 1; })
	$(if $(wildcard playbooks/*.yml),PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/ansible-lint --offline playbooks)
	shellcheck $(SCRIPTS)

format: setup ## bring Python and C into the project's form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	@$(if $(C_FORMATTED),clang-format -i $(C_FORMATTED))

fuzz: setup ## fuzz the C decoder for FUZZ_SECONDS (default 60)
	@cmake --preset dev >/dev/null
	@cmake --build --preset dev --target fuzz_wire
	@mkdir -p build/corpus
	build/dev/fuzz/fuzz_wire -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 build/corpus

soak: setup ## test transparency with drawn chains of servers for SOAK minutes (default 10); exit code 1 if it is broken
	@cmake --preset dev >/dev/null
	@cmake --build --preset dev --target odb
	$(BIN)/python -m tests.property.soak $(SOAK)

endure: setup ## run fast, aborting and slow clients against two FEs for MINUTES (default 10); exit code 1 if something grows, stalls or is wrong
	@cmake --preset dev >/dev/null
	@cmake --build --preset dev --target odb
	$(BIN)/python -m tests.endure $(MINUTES)

reference: setup ## measure the original's matrix REPEAT times (default 3, over an hour) into results/reference; goes on with what was interrupted, a higher REPEAT adds to it
	@[ "$$(id -u)" -eq 0 ] || { echo "make reference makes network namespaces and needs root: run it as root, or with sudo." >&2; exit 4; }
	@mkdir -p build
	@# Requests that failed are a result; a run that could not go on prints none.
	$(BIN)/odb-testbed run seed --repeat $(REPEAT) --results build/reference --resume --destroy >build/reference.txt || { [ $$? -eq 1 ] && [ -s build/reference.txt ]; }
	rm -rf results/reference
	mkdir -p results/reference
	cd "$$(ls -d build/reference/runs/2* | tail -n 1)" && cp -r run.json cells $(CURDIR)/results/reference/
	cp build/reference.txt results/reference/comparison.txt
	$(BIN)/odb-testbed report results/reference

peers: setup ## compare CPython's own network tests without and with ODB (5 minutes); exit code 1 if a result differs
	@cmake --preset dev >/dev/null
	@cmake --build --preset dev --target odb
	$(BIN)/python -m tests.peers.compare

docs: setup ## write docs/CONFIG.md and docs/INTERPOSITION.md from the tables in odb/runtime
	$(BIN)/odb options --markdown > docs/CONFIG.md.new
	@mv docs/CONFIG.md.new docs/CONFIG.md
	$(BIN)/python -m odb.interposition > docs/INTERPOSITION.md.new
	@mv docs/INTERPOSITION.md.new docs/INTERPOSITION.md

lock: ## write requirements.lock anew from pyproject.toml
	rm -rf build/lock-venv
	$(PYTHON) -m venv build/lock-venv
	build/lock-venv/bin/python -m pip install --quiet --disable-pip-version-check \
		$$($(PYTHON) -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; print(*p["dependencies"], *p["optional-dependencies"]["dev"])')
	{ head -n 1 requirements.lock; build/lock-venv/bin/python -m pip freeze --all --exclude pip | LC_ALL=C sort -f; } > requirements.lock.new
	@mv requirements.lock.new requirements.lock
	@rm -rf build/lock-venv

clean: ## remove what was built and the virtual environment (records under results/ stay)
	rm -rf build $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
