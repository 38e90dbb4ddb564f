#!/bin/sh
# Installs prefect-stagegate, with exactly what the lock names and hashes, into a folder of its own:
#
#   deployments/install.sh dependencies /opt/stagegate
#   deployments/install.sh package /opt/stagegate
#
# It is two steps, so that images keep the long one while only the package changes.
set -eu

step=$1
venv=$(realpath --canonicalize-missing "$2")
cd "$(dirname "$0")/.."

case $step in
dependencies)
    "${PYTHON:-python3}" -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: \
        --require-hashes --requirement requirements-runtime.lock
    # A tenth of the whole: the libraries' own tests, and headers for compilers.
    for library in numpy pandas pyarrow scipy; do
        find "$venv"/lib/python*/site-packages/$library -type d \( -name tests -o -name include \) -prune -exec rm -rf {} +
    done
    ;;
package)
    # The lock has setuptools and its plugin for this step; nothing needs them later.
    "$venv/bin/pip" install --quiet --disable-pip-version-check --no-index --no-deps --no-build-isolation .
    "$venv/bin/pip" uninstall --quiet --yes setuptools setuptools-scm vcs-versioning
    ;;
*)
    echo "usage: $0 dependencies|package FOLDER" >&2
    exit 2
    ;;
esac
