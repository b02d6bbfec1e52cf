#!/usr/bin/env bash
# Runs every check on emulated boards: tests/boards/run.sh [BIN], BIN having our arm64 programs.
set -u
here=$(dirname "$0")
failed=0
for script in "$here"/test_*.py; do
	python3 "$script" "$@" || failed=1
done
exit $failed
