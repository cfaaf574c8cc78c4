# Every target sets up what it needs in .venv; choose another interpreter with `make PYTHON=python3.12 test`.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed

.PHONY: demo test test-all lint

demo: $(STAMP)
	$(BIN)/python tools/run.py --plugin classification --work-dir runs/demo --resume

test: $(STAMP)
	$(BIN)/python -m pytest

test-all: $(STAMP)
	$(BIN)/python -m pytest -m ""

lint: $(STAMP)
	$(BIN)/ruff check .

# Last comes OpenCV: mmcv wants the one that needs a screen's system libraries, this one in the same place does not.
$(STAMP): setup.py pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[classification,detection,segmentation,generation,examples,test]'
	$(BIN)/python -m pip install --quiet --force-reinstall --no-deps opencv-python-headless
	touch $(STAMP)
