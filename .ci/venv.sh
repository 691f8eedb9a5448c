#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Makes the virtual environment. usage: venv.sh PYTHON DIRECTORY
set -eu
python=$1
venv=$2

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
	echo "error: $python is older than 3.11" >&2
	echo "hint: make PYTHON=python3.11 ..." >&2
	exit 64
fi

# Debian splits venv off Python; its absence shows as a missing ensurepip.
if ! "$python" -c 'import ensurepip, venv' 2> /dev/null; then
	version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
	install="apt-get install -y --no-install-recommends python$version-venv"
	sudo=
	[ "$(id -u)" = 0 ] || sudo="sudo -n"
	echo "installing a missing system package: $sudo $install"
	wait="-o DPkg::Lock::Timeout=300" # a fresh machine may be updating itself
	# shellcheck disable=SC2086
	if ! { $sudo $install $wait || { $sudo apt-get update && $sudo $install $wait; }; } > /dev/null; then
		echo "error: Python's venv module is missing and could not be installed" >&2
		echo "repeat by hand: sudo $install" >&2
		exit 2
	fi
fi

echo "making $venv with the harness and its Python packages"
"$python" -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check --editable '.[dev]'
