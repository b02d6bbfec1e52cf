#!/usr/bin/env bash
# Runs every fuzzer for SECONDS (default 5) from its committed corpus, with a fixed seed.
# New findings stay in build/fuzz/new; only tests/fuzz/corpus is committed.
set -eu
cd "$(dirname "$0")/../.."
seconds=${1:-5}
cmake --preset fuzz >/dev/null
cmake --build --preset fuzz -- --quiet
failed=0
count=0
for fuzzer in build/fuzz/tests/fuzz/fuzz_*; do
	[ -f "$fuzzer" ] && [ -x "$fuzzer" ] || continue
	name=$(basename "$fuzzer" | sed 's/^fuzz_//')
	new=build/fuzz/new/$name
	mkdir -p "$new" "tests/fuzz/corpus/$name"
	count=$((count + 1))
	if "$fuzzer" -seed=1 -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -verbosity=0 \
		-print_final_stats=1 -artifact_prefix="build/fuzz/new/$name-" "$new" \
		"tests/fuzz/corpus/$name" >"$new.log" 2>&1; then
		echo "fuzz_$name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$new.log") runs, none failing"
	else
		echo "fuzz_$name: FAILED"
		tail -40 "$new.log"
		failed=$((failed + 1))
	fi
done
echo "$((count - failed)) fuzzers passed, $failed failed"
[ "$failed" -eq 0 ]
