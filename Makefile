# `make` lists the targets. The first call installs into .venv; later calls find the stamp and skip that.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := cli,combinatorial,rl,label,plot,convex,examples,dev
INSTALLED := $(VENV)/.installed

# The demo's run; `make demo STEPS=20000 SEED=1` changes it.
TASK = Pendulum-v1
METHOD = sobirl
STEPS = 8000
LABELS = 200
SEED = 0
OUT = runs/demo
RLHF = $(BIN)/bigrad rlhf --env $(TASK) --method $(METHOD) --steps $(STEPS) --labels $(LABELS)

# One thread a process: on few cores, torch's threads get in each other's way.
export OMP_NUM_THREADS := 1
export MKL_NUM_THREADS := 1

.DEFAULT_GOAL := help
.PHONY: help demo test bench reproduce lint types devices docs-check clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "needs Python 3.11: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e ".[$(EXTRAS)]"
	touch $@

demo: $(INSTALLED) ## learn a reward model and a policy from preferences, five minutes
	@out=$(OUT); n=2; while [ -e "$$out" ]; do out=$(OUT)-$$n; n=$$((n + 1)); done; set -x; \
	$(RLHF) --seed $(SEED) --out "$$out"

test: lint ## every check: lint, types, house rules, tests, doctests, README, wheel, devices
	$(MAKE) -j 2 types devices
	$(BIN)/pytest -n 2 --dist worksteal --doctest-modules bigrad tests

devices: $(INSTALLED) ## every layer on a pretend device, in a process of its own
	$(BIN)/pytest tests/device

bench: $(INSTALLED) ## measure beside the peers: all tables, or TABLE=qp; FULL=1 adds what takes hours
	$(BIN)/python benchmarks/run.py $(TABLE) $(if $(FULL),--full)

reproduce: $(INSTALLED) ## run the demo's five seeds again into benchmarks/results/demo
	mkdir -p benchmarks/results/demo
	for seed in 0 1 2 3 4; do rm -rf runs/reproduce/seed$$seed; \
	$(RLHF) --seed $$seed --out runs/reproduce/seed$$seed && \
	cp runs/reproduce/seed$$seed/result.json benchmarks/results/demo/seed$$seed.json || exit 1; done
	cp runs/reproduce/seed0/curves.png runs/reproduce/seed0/policy.webp benchmarks/results/demo

lint: $(INSTALLED) ## ruff: rules and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED) ## mypy --strict on the package
	$(BIN)/mypy

docs-check: $(INSTALLED) ## run the README's code and the doctests
	$(BIN)/pytest --doctest-modules bigrad tests/test_readme.py

clean: ## remove caches and build products; .venv and runs stay
	rm -rf build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -path ./$(VENV) -prune -o -name __pycache__ -prune -exec rm -rf {} +
