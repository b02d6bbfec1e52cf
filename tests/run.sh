#!/usr/bin/env bash
# All tests that CI runs, step by step. A step's output is shown when it fails, else only its
# result. Ends with "N passed, M failed" and a non-zero status if any failed.
# With arguments: only the steps named (tests/run.sh unit e2e).
set -u
cd "$(dirname "$0")/.."
mkdir -p build
steps=("$@")
passed=0
failed=0

wanted() {
	[ ${#steps[@]} -eq 0 ] && return 0
	local step
	for step in "${steps[@]}"; do
		[ "$step" = "$1" ] && return 0
	done
	return 1
}

# run STEP WHAT COMMAND...
run() {
	local step=$1 what=$2 log began
	shift 2
	wanted "$step" || return 0
	log=build/test-$step-${what//[^a-z0-9]/-}.log
	began=$SECONDS
	if "$@" >"$log" 2>&1; then
		passed=$((passed + 1))
		echo "ok      $step: $what ($((SECONDS - began)) s)"
	else
		failed=$((failed + 1))
		echo "FAILED  $step: $what ($((SECONDS - began)) s); the end of $log:"
		tail -60 "$log"
	fi
}

configured() {
	cmake --preset "$1" && cmake --build --preset "$1" -- --quiet
}

tested() {
	configured "$1" && ctest --preset "$1" -j 2
}

run format "sources are as .clang-format says" tests/format.sh
run unit "gcc build, unit tests and simulator" tested dev
run asan "clang build with address and undefined sanitizers" tested asan
run tsan "thread sanitizer: what crosses threads" tests/tsan.sh
run fuzz "fuzzers, briefly" tests/fuzz/run.sh 5
for script in tests/e2e/test_*.py; do
	run e2e "$(basename "$script" .py)" python3 "$script" build/dev/bin
done
run demo "make demo" python3 tests/e2e/demo.py build/dev/bin
run arm64 "arm64 build, run by user-mode emulation" tests/arm64.sh
# The Debian with systemd and the snapshots take minutes each, and test_guest is about QEMU: `make boards` runs them too.
for name in lab boot process blk net; do
	run boards "test_$name" python3 "tests/boards/test_$name.py" build/arm64/bin
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
