#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# The fast gates, each with an exit code of its own. usage: check.sh BIN
set -u
bin=$1

gate() {
	code=$1
	name=$2
	shift 2
	if "$@"; then
		echo "ok      $name"
	else
		echo "FAILED  $name: $*" >&2
		exit "$code"
	fi
}

scripts() {
	git ls-files -co --exclude-standard '*.sh' .ci/run
}

gate 10 "ruff format" "$bin/ruff" format --quiet --check harness tests
gate 11 "ruff check" "$bin/ruff" check --quiet harness tests
gate 12 "mypy --strict" "$bin/mypy" --no-error-summary
if command -v shellcheck > /dev/null; then
	# shellcheck disable=SC2046
	gate 13 "shellcheck" shellcheck $(scripts)
else
	echo "left out  shellcheck: not installed (apt-get install shellcheck)"
fi
gate 14 "unit tests" "$bin/python" -m pytest -q -m 'not slow' tests/unit
