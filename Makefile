# Every target works on a fresh clone: Python >= 3.11 with venv, git and make are enough.
#   make train DATA=customers.csv TARGET=Churn ID=customerID      make test ARGS="-k settings"
# Another interpreter: make test PYTHON=python3.13

PYTHON ?= python3
MODEL  ?= models/churn-model.safetensors
VENV   := .venv
BIN    := $(VENV)/bin
BENCH  := .venv-bench
AUDIT  := .venv-audit
INSTALL := -m pip install --quiet --disable-pip-version-check -c constraints.txt
PIP    := $(BIN)/python $(INSTALL)

# What another environment leaves behind must not reach this one.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV JUPYTER_PATH

# The Telco customers, where their file lies beside the clone; a tutorial and some tests use them.
export CHURN_TELCO_CSV ?= $(abspath $(wildcard ../shared/data/telco.csv))

.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help train test proof browser docs docs-serve fresh readme lab serve bench audit export build clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

train: $(VENV)/.with-base  ## train on sample data, or on DATA=file.csv TARGET=column ID=column
	@$(BIN)/churn-train $(if $(DATA),"$(DATA)") $(if $(TARGET),--target "$(TARGET)") $(if $(ID),--id-column "$(ID)") $(ARGS)
	@echo '  with make    make serve; ". $(BIN)/activate" puts the commands on your PATH'

test: $(VENV)/.with-dev  ## run everything: notebooks, tests, ruff, mypy, layers, hygiene, packaging, site
	@$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

proof: $(VENV)/.with-dev  ## run what takes minutes: 5,000 altered model files
	@$(BIN)/python -m pytest -m proof $(ARGS)

browser: $(VENV)/.with-dev  ## use the site, the server and JupyterLab in a browser, all chapters included
	@CHAPTERS=all $(BIN)/python -m pytest tests/browser $(ARGS)

docs: $(VENV)/.with-docs  ## build the site into _docs/
	@if command -v quarto >/dev/null; then QUARTO_PYTHON="$(CURDIR)/$(BIN)/python" $(BIN)/nbdev-docs; \
		else $(BIN)/python tools/docs.py $(ARGS); fi

docs-serve: docs  ## build the site and show it on http://127.0.0.1:8001
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory _docs 8001

fresh: $(VENV)/.with-docs  ## execute the notebooks (or ARGS=one.ipynb), write the outputs that are stale
	@$(BIN)/churn-notebooks $(ARGS)

readme: $(VENV)/.with-docs  ## write README.md from nbs/index.ipynb
	@$(BIN)/python tools/readme.py

lab: $(VENV)/.with-docs  ## open JupyterLab; a save cleans the notebook and writes its module
	@$(BIN)/churn-lab nbs/start_here.ipynb $(ARGS)

serve: $(VENV)/.with-api  ## answer over HTTP with MODEL=models/churn-model.safetensors
	@$(BIN)/churn-serve "$(MODEL)" $(ARGS)

bench: $(BENCH)/.made  ## compare accuracy and speed with other models: ARGS="file.csv --target column"
	@$(BENCH)/bin/python benchmarks/accuracy.py $(or $(ARGS),--json benchmarks/results/accuracy.json)
	@$(BENCH)/bin/python benchmarks/prediction.py $(or $(ARGS),--json benchmarks/results/prediction.json)
	@$(BENCH)/bin/python benchmarks/servers.py $(or $(ARGS),--json benchmarks/results/servers.json)
	@$(BENCH)/bin/python benchmarks/start.py $(or $(ARGS),--json benchmarks/results/start.json)
	@$(if $(ARGS),,$(BENCH)/bin/python benchmarks/wide.py --json benchmarks/results/wide.json)

audit: $(AUDIT)/.made  ## look the pinned releases up among known vulnerabilities (asks pypi.org)
	@$(AUDIT)/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt $(ARGS)

export: $(VENV)/.with-docs  ## write churn_mlops/ from the notebooks, and clean them
	@$(BIN)/nbdev-export && JUPYTER_DATA_DIR=$(CURDIR)/$(VENV)/jupyter/data $(BIN)/nbdev-clean

build: $(VENV)/.with-dev  ## build and check the sdist and the wheel in dist/
	@rm -rf build dist
	@$(BIN)/python -m build
	@$(BIN)/twine check --strict dist/*

clean:  ## remove everything that a target of this file made, except models
	@rm -rf $(VENV) $(BENCH) $(AUDIT) build dist _docs _proc *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -prune -exec rm -rf {} +

define CHECK_PYTHON
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python " + sys.version.split()[0] + \
		" is too old: name one from 3.11 on, for instance: make PYTHON=python3.13 $(MAKECMDGOALS)")'
endef

$(VENV)/.made:
	$(CHECK_PYTHON)
	@echo "Making $(VENV) ..."
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

# The libraries to compare with stay out of the environment that the package is developed and tested in.
$(BENCH)/.made: pyproject.toml constraints.txt benchmarks/requirements.txt
	$(CHECK_PYTHON)
	@echo "Installing churn_mlops and the libraries to compare with into $(BENCH) ..."
	@$(PYTHON) -m venv --clear $(BENCH)
	@$(BENCH)/bin/python $(INSTALL) -e ".[api,fast,report]"
	@$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
	@touch $@

# What looks for vulnerabilities stays out too, and is the newest there is.
$(AUDIT)/.made:
	$(CHECK_PYTHON)
	@echo "Installing pip-audit into $(AUDIT) ..."
	@$(PYTHON) -m venv --clear $(AUDIT)
	@$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	@touch $@

# One stamp for each set of extras, so that a second call installs nothing; dev holds all the others.
$(VENV)/.with-%: $(VENV)/.made pyproject.toml constraints.txt
	@echo "Installing churn_mlops ($*) into $(VENV) ..."
	@$(PIP) -e "$(if $(filter base,$*),.,.[$*])"
	@touch $(if $(filter dev,$*),$(addprefix $(VENV)/.with-,base api docs)) $@
