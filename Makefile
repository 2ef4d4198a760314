# The words that people, CI and GitHub Actions use. `make help` lists them.
PYTHON ?= python3.11
BIN := .venv/bin
# A step starts `python`: this environment's, whoever calls. Bytecode is compiled when it is installed.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export GIT_PYTHON_REFRESH := quiet
export MLFLOW_DISABLE_TELEMETRY := true
# MLflow's own lines (which command runs where) appear with `make run MLFLOW_LOGGING_LEVEL=INFO`.
export MLFLOW_LOGGING_LEVEL ?= WARNING
# The default store, relative: MLflow mistakes the address of a folder with a blank or a % for another folder.
STORE := MLFLOW_TRACKING_URI=$${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}

RUN := mlflow run . --env-manager local --experiment-name diabetes-risk
# make run ARGS="-P data=my.csv -P max_evals=80"
ARGS ?=

.PHONY: help run plan approve changes schema test real soak lint lint-workflows ui serve bench lock clean components release page image pack image-test deploy \
        rollback stack stack-test digests propose-digests simulate pictures data-check retrain publish-plan publish store-restore store-save

help:  ## This list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed 's/:.*## /\t/' | expand -t 14

.venv/installed: requirements.lock
	@echo "Installing the runtime into .venv (about a minute on a cold cache)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^uv==' requirements-dev.lock)"
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.lock
	@touch $@

.venv/installed-dev: .venv/installed requirements-dev.lock
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements-dev.lock
	@touch $@

# What only the soak needs: Spark, and promtool of Prometheus 3 where there is Go to build it.
.venv/installed-soak: .venv/installed-dev requirements-spark.txt
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements-spark.txt
	@if command -v go >/dev/null; then \
	   GOBIN=$(CURDIR)/.venv/go go install github.com/prometheus/prometheus/cmd/promtool@v0.316.0 && \
	   mv .venv/go/promtool $(BIN)/promtool3; else echo "no Go: what needs promtool of Prometheus 3 is skipped"; fi
	@touch $@

run: .venv/installed  ## The whole chain on the bundled cohort (ARGS="-P data=..." for other data)
	@$(STORE) python -m steps.ops.init_store
	@$(STORE) $(RUN) $(ARGS)

approve: .venv/installed  ## Promote one undecided candidate on a person's word (CANDIDATE=run-id WHY="...")
	@$(RUN) -e promote -P approve="$$CANDIDATE" -P why="$$WHY"

changes: .venv/installed  ## Every attempt to replace a champion: what changed, what came of it, who approved
	@python -m steps.ops.changes $(ARGS)

plan: .venv/installed  ## What `make run` would run, and why, without running it
	@python -m steps.ops.plan $(ARGS)

schema: .venv/installed  ## Draft a schema for a table: make schema DATA=my.csv
	@python -m steps.ops.draft_schema "$(DATA)" $(ARGS)

ui: .venv/installed  ## The MLflow pages on http://127.0.0.1:5000
	@mlflow ui --host 127.0.0.1 --port $${PORT:-5000}

simulate: .venv/installed  ## A scenario as live traffic or as a past (ARGS="live --scenario broken-sensor --rate 20 --seconds 300")
	@python -m monitoring.simulation $(ARGS)

pictures: .venv/installed-dev  ## The README's pictures of MLflow's pages and the report, after `make run` (Chromium)
	@python -m docs.tools.page_pictures

test: .venv/installed-dev  ## The tests that need nothing but Python, two at a time (8 minutes at most)
	@python -m pytest -n 2 --dist loadfile $(ARGS)

lint: .venv/installed-dev  ## Style and types
	@ruff check .
	@ruff format --check .
	@mypy
	@python -m monitoring.prometheus --check
	@python -m monitoring.grafana --check
	@python -m monitoring.grafana.lint

soak: .venv/installed-soak  ## The large counts; results go to benchmarks/results
	@python -m benchmarks.soak $(ARGS)

real: .venv/installed-dev  ## The tests of real components (promtool, Chromium, Docker); one that is missing is a failure
	@REQUIRE_REAL=1 python -m pytest -n 2 --dist loadgroup -m "real and not soak and not stack" $(ARGS)

bench: .venv/installed-dev  ## Speed and quality, as ratios on this machine; results go to benchmarks/results
	@test -f build/release/reference.json || python -m steps.ops.release
	@python -m benchmarks $(ARGS)

serve: .venv/installed  ## The champion behind its sidecar on loopback, without Docker
	@python -m steps.ops.release $(ARGS)
	@python -m monitoring.deploy.local

release: .venv/installed  ## Export the champion into build/release (ARGS="--version 3" for another)
	@python -m steps.ops.release $(ARGS)

page: .venv/installed  ## One person's page of the champion, opened in a browser
	@python -m steps.ops.release --open $(ARGS)

image: release pack  ## Images of the champion and of its sidecar, from mlflow models build-docker

pack: .venv/installed  ## The same of what is in build/release already
	@python -m monitoring.deploy.build

image-test: .venv/installed  ## Start both images as they are meant to run, and compare with the registered model
	@python -m monitoring.deploy.check_images

stack: .venv/installed  ## The whole stack in Docker: model, sidecar, Prometheus, Grafana
	@python -m monitoring.deploy.rollout stack $(VERSION)

stack-test: .venv/installed-dev  ## The whole stack up from its real images, watched, looked into, and down again
	@REQUIRE_REAL=1 python -m pytest -m real tests/deploy/test_whole_stack.py $(ARGS)

digests: .venv/installed  ## Write the digest of each image's tag into compose.yaml (asks the registries)
	@python -m monitoring.deploy.digests write

propose-digests: .venv/installed  ## Propose them as a pull request; what Actions runs
	@python -m monitoring.deploy.digests propose

deploy: .venv/installed  ## Move the running model and its sidecar to VERSION=, together
	@python -m monitoring.deploy.rollout deploy $(VERSION)

rollback: .venv/installed  ## @champion of the running model back to @previous, and the containers with it
	@name=$$(python -m monitoring.deploy.rollout name) && $(STORE) $(RUN) -e promote -P rollback=$$name $(ARGS)
	@python -m monitoring.deploy.rollout champion

data-check: .venv/installed  ## Validate and prepare the labelled data (DATA_URI=...); report in build/data
	@python -m steps.ops.init_store
	@python -m steps.ops.check_data $(ARGS)

retrain: .venv/installed  ## Train if the data or the code changed, and summarise; what Actions runs
	@python -m steps.ops.init_store
	@python -m steps.ops.retrain $(ARGS)

publish-plan: .venv/installed  ## What `make publish` would push where
	@python -m steps.ops.publish plan

publish: .venv/installed  ## Push the tested images and attach the release; what Actions runs
	@python -m steps.ops.publish publish

store-restore: .venv/installed  ## The store that the last run on Actions kept
	@python -m steps.ops.keep_store restore

store-save: .venv/installed  ## Keep the store for the next run on Actions
	@python -m steps.ops.keep_store save

lint-workflows: .venv/installed-dev  ## The workflows: actionlint (needs Go) and zizmor
	@go run github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
	@uv tool run --quiet zizmor@1.32.0 --quiet --offline .github

components:  ## Install the real components that tests need, on Debian or Ubuntu
	@.ci/components

lock: .venv/installed-dev  ## Renew requirements.lock, requirements-dev.lock and conda.yaml from its pins
	@.ci/lock

clean:  ## Remove the environment and the caches, never the store
	@rm -rf .venv .cache/datasets .cache/downloads .pytest_cache .mypy_cache .ruff_cache .hypothesis
