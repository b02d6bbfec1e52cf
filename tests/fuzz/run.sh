#!/usr/bin/env bash
# Runs every fuzzer for SECONDS (default 5) from its committed corpus, with a fixed seed, as many at a time as there
# are processors. New findings stay in build/fuzz/new; only tests/fuzz/corpus is committed.
set -eu
self=$(realpath "$0")
cd "$(dirname "$0")/../.."

# one FUZZER SECONDS
if [ "${1:-}" = one ]; then
	name=$(basename "$2" | sed 's/^fuzz_//')
	new=build/fuzz/new/$name
	mkdir -p "$new" "tests/fuzz/corpus/$name"
	if "$2" -seed=1 -max_total_time="$3" -timeout=10 -rss_limit_mb=2048 -verbosity=0 \
		-print_final_stats=1 -artifact_prefix="build/fuzz/new/$name-" "$new" \
		"tests/fuzz/corpus/$name" >"$new.log" 2>&1; then
		echo "fuzz_$name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$new.log") runs, none failing"
		exit 0
	fi
	echo "fuzz_$name: FAILED; the end of $new.log:"
	tail -40 "$new.log"
	exit 1
fi

seconds=${1:-5}
cmake --preset fuzz >/dev/null
cmake --build --preset fuzz -- --quiet
fuzzers=$(find build/fuzz/tests/fuzz -maxdepth 1 -name 'fuzz_*' -type f -executable | sort)
status=0
# shellcheck disable=SC2086 # the list is words
printf '%s\n' $fuzzers | xargs -P "$(nproc)" -I "{}" "$self" one '{}' "$seconds" || status=1
echo "$(echo "$fuzzers" | wc -l) fuzzers"
exit $status
