# anmf-lab: each target does all its own set-up. You need Python 3.10+ and make; Node only to check formulas.
#
#   make demo     a first run on real data: a table here, figures and report.html in anmf-lab-demo/
#   make test     every check: notebooks in step with the library, lint, types, docs, wheel, tests
#   make docs     the site, in _docs/
#   make page NB=02_align   one page: export, run, clean, its own tests, and a picture of it
#   make test-portable   pages and tests under other arithmetic and other versions (hours; by hand)
#   make mutants         one broken formula after the other: which test notices? (hours; by hand)
#   make newcomer a fresh environment, the wheel, and what the front page says (minutes; by hand)
#   make pictures the whole site on four sheets: wide and narrow, light and dark (needs a Chromium)
#   make bench    speed against other libraries (slow; run by hand)
#   make clean    remove what was built        make distclean   ... and the environment
#
# ANMF_VENV=path    use another environment than .venv
# PYTHON=python3.12 the interpreter that makes it
# JOBS=2            processes that share the tests        SEED=0   their order, and hypothesis' draws
# TORCH=...         what to install for torch. It goes in before everything else and by exact version:
#                   torch==2.13.0 is the CPU build where your package index carries it, while a bare
#                   "torch" resolves to a CUDA build of several GB. For another build give pip's words,
#                   e.g. TORCH="torch --index-url <the address PyTorch's install page shows for it>".

PYTHON ?= python3
TORCH  ?= torch==2.13.0
JOBS   ?= 2
SEED   ?= 0
VENV   := $(or $(ANMF_VENV),.venv)
BIN    := $(abspath $(VENV))/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check

# Nothing is written outside the checkout, and one thread each: the checks are many small problems.
CACHE := $(CURDIR)/.cache
export PATH := $(BIN):$(PATH)
export IPYTHONDIR := $(CACHE)/ipython
export MPLCONFIGDIR := $(CACHE)/matplotlib
export JUPYTER_DATA_DIR := $(CACHE)/jupyter
export npm_config_cache := $(CACHE)/npm
export MPLBACKEND := agg
export OMP_NUM_THREADS ?= 1
unexport PYTHONPATH

.PHONY: help setup demo test page test-portable mutants newcomer pictures sync lint docs wheel unit bench clean distclean
.NOTPARALLEL:
.DELETE_ON_ERROR:

help:
	@sed -n '3,16p' Makefile | sed 's/^# \{0,1\}//'

setup: .stamp-install

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit("anmf-lab needs Python 3.10 or newer, and this is %d.%d: try make PYTHON=python3.12" % sys.version_info[:2] if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv $(VENV)

# Again only when the settings change or the environment is a new one.
.stamp-install: settings.ini setup.py $(VENV)/pyvenv.cfg
	@echo "== install (once, some minutes)"
	$(PIP) install -q $(TORCH)
	$(PIP) install -q -e '.[dev,docs]'
	@touch $@

demo: .stamp-install
	anmf-lab demo $(ARGS)

test: sync lint docs wheel unit

sync: .stamp-install
	@echo "== the library is what the notebooks export"
	python tools/sync.py

lint: .stamp-install
	@echo "== lint and types"
	ruff check .
	mypy

docs: .stamp-install
	@echo "== docs"
	@[ -d node_modules/katex ] || ! command -v npm >/dev/null || npm ci --silent --no-audit --no-fund || echo "npm could not install KaTeX"
	python tools/docs.py
	python tools/readme.py --check

page: .stamp-install
	@[ -n "$(NB)" ] || { echo "which page? make page NB=02_align"; exit 1; }
	python tools/page.py $(NB)

wheel: .stamp-install
	@echo "== wheel"
	python tools/wheel.py

unit: .stamp-install
	@echo "== tests"
	pytest -n $(JOBS) --dist worksteal --randomly-seed=$(SEED) --hypothesis-seed=$(SEED) --durations=10 $(ARGS)

test-portable: .stamp-install
	python tools/portable.py $(ARGS)

mutants: .stamp-install
	python tools/mutants.py $(ARGS)

newcomer: .stamp-install
	python tools/newcomer.py

pictures: docs
	python tools/contact_sheets.py --out results/site

bench: .stamp-install
	@ls benchmarks/bench_*.py >/dev/null 2>&1 || { echo "no benchmarks/bench_*.py here"; exit 1; }
	for b in benchmarks/bench_*.py; do python $$b $(ARGS) || exit 1; done

clean:
	rm -rf _docs _proc build dist *.egg-info .cache .ruff_cache .mypy_cache .pytest_cache .hypothesis anmf-lab-demo
	find anmf_lab nbs tests tools -name __pycache__ -prune -exec rm -rf {} +

distclean: clean
	rm -rf .stamp-install node_modules .venv
