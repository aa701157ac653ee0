# Plain entry points for a fresh clone: `make setup`, `make test`, `make demo`. Variables can be given on the command
# line, e.g. `make setup TORCH='torch torchvision'` for the newest release instead of the one the tests were run with.

PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.14.1 torchvision==0.29.1
TROJAI ?= trojai==0.2.23
DEMO_ROUND ?= --models 4 --classes 5 --size 32 --architecture squeezenetv1_1 --lookalikes 1 --lookalike-share 0.5
EXAMPLE_SETTINGS ?= --set distance.images_per_class=10 --set bounds.images_per_class=10 --set bounds.steps=100 \
	--set bounds.patterns=2
BENCH_MODELS ?= demo/bench-models
# Tests run in a process per core. What a file's tests share is made once while they stay together; a process that is
# done takes over what others still have. `make test SPREAD=` runs them one after the other.
SPREAD ?= --numprocesses logical --maxprocesses 8 --dist worksteal

BIN := $(VENV)/bin
STAMP := $(VENV)/.trojai-moth-setup
TYPED := build/typed

.PHONY: help setup test lint types demo examples bench clean

help:
	@echo 'make setup   create $(VENV) and install everything needed; done once, and again when setup.cfg changes'
	@echo 'make test    style, types and tests'
	@echo 'make lint    style only'
	@echo 'make types   types only'
	@echo 'make demo    make a small round in demo/round and rescan it into demo/run'
	@echo 'make examples cards, heat maps and report of the demo, with screenshots, in docs/example (needs Chromium)'
	@echo 'make bench   short benchmarks, at most 15 minutes, ending in one line of figures'
	@echo 'make clean   remove what builds and tests leave behind (keeps $(VENV) and demo)'

setup: $(STAMP)

# torch goes first, so that the pinned build is the one the package finds; trojai goes last and alone, because its own
# pins are older than what it runs with. setuptools lets the tests build a wheel without a network.
$(STAMP): setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet 'setuptools>=70.1' -e '.[dev,datagen]'
	$(BIN)/python -m pip install --quiet --no-deps '$(TROJAI)'
	touch $@

# Types are checked while the tests run, and told of after them.
test: lint
	@mkdir -p build
	@$(MAKE) --no-print-directory types >build/types.txt 2>&1 & types=$$!; \
	$(BIN)/python -m pytest $(SPREAD); tests=$$?; \
	wait $$types; typed=$$?; cat build/types.txt; test $$tests -eq 0 && test $$typed -eq 0

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# scanners/ and eval/ only become trojai_moth.scanners and trojai_moth.eval when installed, which mypy cannot follow;
# so it reads a copy that is laid out like the installed package.
types: setup
	rm -rf $(TYPED)
	mkdir -p $(TYPED)
	cp -R trojai_moth $(TYPED)/trojai_moth
	cp -R scanners eval $(TYPED)/trojai_moth/
	$(BIN)/mypy $(TYPED)/trojai_moth

demo: setup
	$(BIN)/trojai-moth make-round demo/round $(DEMO_ROUND)
	$(BIN)/trojai-moth rescan demo/round --out demo/run --data composed || test $$? -eq 1

examples: setup
	test -e demo/run/results.csv || $(MAKE) demo
	$(BIN)/python benchmarks/examples.py demo/round demo/run --into docs/example --data composed $(EXAMPLE_SETTINGS)

bench: setup
	$(BIN)/python benchmarks/quick.py --models $(BENCH_MODELS) --out build/bench.json

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache trojai_moth.egg-info
	find . -path './$(VENV)' -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
