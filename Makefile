# make demo: index the sample recordings and search them.   make test: the tests.   make clean: remove what both made.
# Each makes .venv/ when it is not there, and needs nothing but Python 3.11+ and make. .ci/run runs everything.

PIP := .venv/bin/python -m pip --disable-pip-version-check install --quiet
DEMO := EARSHOT_LIBRARY=build/demo .venv/bin/earshot

.PHONY: demo test clean

demo: .venv/base.stamp
	@rm -rf build/demo
	@echo '$$ earshot index samples/'
	@$(DEMO) index samples/
	@echo; echo '$$ earshot find gradient'
	@$(DEMO) find gradient --table
	@echo; echo '$$ earshot find --like samples/lecture.opus@6.65-7.29    # the word as somebody said it'
	@$(DEMO) find --like samples/lecture.opus@6.65-7.29 --table
	@echo; echo '$$ earshot ask "who paid for the telescope?" --top 2    # words as the machine hears them: rough'
	@$(DEMO) ask "who paid for the telescope?" --top 2 --table
	@echo
	@echo 'These again: .venv/bin/earshot --library build/demo find telescope.   Now your own recordings:'
	@echo '    .venv/bin/earshot index ~/your/recordings'
	@echo '    .venv/bin/earshot find "a word or a phrase"'
	@echo '    .venv/bin/earshot find --like clip.wav'
	@echo '    .venv/bin/earshot ask "a question"'

test: .venv/test.stamp
	.venv/bin/python -m pytest

.venv/bin/python:
	@for python in python3 python3.11 python3.12 python3.13 python3.14; do \
	    if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then exec $$python -m venv .venv; fi; \
	done; echo 'make: Python 3.11 or newer is needed, and none was found on the PATH' >&2; exit 1

.venv/base.stamp: pyproject.toml | .venv/bin/python
	$(PIP) --editable .
	@touch $@

.venv/test.stamp: pyproject.toml requirements-test.txt | .venv/bin/python
	$(PIP) --requirement requirements-test.txt
	$(PIP) --no-deps funasr==1.4.16 # what its modules of Paraformer import is in the file; the rest of it is large
	@touch $@ .venv/base.stamp

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find src tests recipes benchmarks samples -name __pycache__ -prune -exec rm -rf {} +
