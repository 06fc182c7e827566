# make quickstart   sets everything up, converts, trains, evaluates (about five minutes, offline)
# make test         sets everything up, lints, runs the tests that are not slow
# make test-slow    the other tests
# make lint         ruff alone
# make clean        removes what the quickstart wrote; make distclean also the virtual environment

PYTHON ?= python3
PY := .venv/bin/python
READY := .venv/requirements.installed
QUICKSTART := checkpoints/quickstart

export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false
# The models here are tiny: on a busy machine several threads wait for each other.
export OMP_NUM_THREADS ?= 1

.PHONY: quickstart test test-slow lint clean distclean
.DELETE_ON_ERROR:

# The environment is made again when the requirements differ from those it was made from, not only
# because a fresh checkout has newer files.
$(READY): requirements.txt requirements-judge.txt requirements-dask.txt requirements-dev.txt
	@if cat $^ | cmp -s - $@ && $(PY) -c "" 2>/dev/null; then touch $@; else \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; name another: make PYTHON=python3.12")' && \
	  echo "setting up .venv (once; torch is large)" && \
	  $(PYTHON) -m venv --clear .venv && \
	  $(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt && \
	  cat $^ > $@; fi

quickstart: $(READY)
	$(PY) -m quickstart.build_model $(QUICKSTART)/model
	$(PY) -m data_tools.convert data/raw.csv -o $(QUICKSTART)/data --test-size 0.1
	$(PY) -m dpo_wrap.train configs/quickstart.yaml
	$(PY) -m dpo_wrap.eval configs/quickstart.yaml --samples 256 --max-new-tokens 48

lint: $(READY)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

test: lint
	$(PY) -m pytest -q -n 2 --dist loadfile -m "not slow"

test-slow: $(READY)
	$(PY) -m pytest -q -m slow

.PHONY: fuzz
fuzz: $(READY)
	$(PY) -c "import atheris" 2>/dev/null || $(PY) -m pip -q install -r requirements-fuzz.txt
	for reader in csv tsv json jsonl parquet xlsx csv.gz jsonl.zst; do \
	  $(PY) tests/fuzz_readers.py $$reader --minutes $(or $(MINUTES),10) || exit 1; done

clean:
	rm -rf $(QUICKSTART)

distclean: clean
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis
