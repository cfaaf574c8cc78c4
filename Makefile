# Every target sets up what it needs in .venv; choose another interpreter with `make PYTHON=python3.12 test`.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed

# Several workers; each holds what the tests of its files share, up to 2 GB.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4

.PHONY: demo test test-slow test-all test-cuda lint

demo: $(STAMP)
	$(BIN)/python tools/run.py --plugin classification --work-dir runs/demo --resume

test: $(STAMP)
	$(PYTEST)

test-slow: $(STAMP)
	$(PYTEST) -m "slow and not cuda"

test-all: $(STAMP)
	$(PYTEST) -m "not cuda"

test-cuda: $(STAMP)
	$(BIN)/python -m pytest -m cuda

lint: $(STAMP)
	$(BIN)/ruff check .

# Last comes OpenCV: mmcv wants the one that needs a screen's system libraries, this one in the same place does not.
$(STAMP): setup.py pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[classification,detection,segmentation,generation,examples,test]'
	$(BIN)/python -m pip install --quiet --force-reinstall --no-deps opencv-python-headless
	touch $(STAMP)
