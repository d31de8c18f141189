# Thin: everything is in start.py, which needs nothing but Python. Pass more with ARGS="-k softmax", another Python with PYTHON=...
PYTHON ?= python3
ARGS ?=

.PHONY: help learn test build bench gpu peers lint format clean

help learn test build bench gpu peers lint format clean:
	@$(PYTHON) start.py $@ $(ARGS)

.DEFAULT_GOAL := help
