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

log_of() {
	echo "build/test-$1-${2//[^a-z0-9]/-}.log"
}

# told STEP WHAT STATUS SECONDS
told() {
	local log
	log=$(log_of "$1" "$2")
	if [ "$3" -eq 0 ]; then
		passed=$((passed + 1))
		echo "ok      $1: $2 ($4 s)"
	else
		failed=$((failed + 1))
		echo "FAILED  $1: $2 ($4 s); the end of $log:"
		tail -60 "$log"
	fi
}

# run STEP WHAT COMMAND...
run() {
	local step=$1 what=$2 began=$SECONDS status=0
	shift 2
	wanted "$step" || return 0
	"$@" >"$(log_of "$step" "$what")" 2>&1 || status=$?
	told "$step" "$what" "$status" $((SECONDS - began))
}

# The same, two at once, until finish.
started=()
start() {
	local step=$1 what=$2 log
	shift 2
	wanted "$step" || return 0
	log=$(log_of "$step" "$what")
	while [ "$(jobs -rp | wc -l)" -ge 2 ]; do sleep 0.5; done
	(
		began=$SECONDS status=0
		"$@" >"$log" 2>&1 || status=$?
		echo "$status $((SECONDS - began))" >"$log.status"
	) &
	started+=("$step" "$what")
}

finish() {
	local status
	wait
	set -- ${started[@]+"${started[@]}"}
	started=()
	while [ $# -gt 0 ]; do
		read -ra status <"$(log_of "$1" "$2").status"
		told "$1" "$2" "${status[@]}"
		shift 2
	done
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
run fuzz "fuzzers, briefly" tests/fuzz/run.sh 3
e2e() {
	"$1" e2e "test_$2" python3 "tests/e2e/test_$2.py" build/dev/bin
}
# The two longest wait for timeouts of real programs most of their time.
together=" agent corosync "
for name in $together; do
	e2e start "$name"
done
finish
for script in tests/e2e/test_*.py; do
	name=$(basename "$script" .py)
	case $together in
	*" ${name#test_} "*) ;;
	*) e2e run "${name#test_}" ;;
	esac
done
run demo "make demo" python3 tests/e2e/demo.py build/dev/bin
run arm64 "arm64 build, run by user-mode emulation" tests/arm64.sh
# The Debian with systemd takes minutes, and test_guest is about QEMU: `make boards` runs them too.
board() {
	"$1" boards "test_$2" python3 "tests/boards/test_$2.py" build/arm64/bin "${@:3}"
}
board run instances
board run lab
board run boot
# A board whose clock counts instructions keeps one processor busy.
board start process
board start snapshot --variant GICv2
board start net
board start blk
finish
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
