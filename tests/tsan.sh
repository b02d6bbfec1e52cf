#!/usr/bin/env bash
# Thread sanitizer on the tests of what crosses threads; only they are built.
set -eu
cd "$(dirname "$0")/.."
which='hv_loop|mailbox|stream|readers|link|door|front|api|host|vm_process|console'
cmake --preset tsan
# shellcheck disable=SC2046 # the list is words
cmake --build --preset tsan --target \
	$(ctest --preset tsan -N -R "$which" | sed -n 's/^ *Test *#[0-9]*: //p') -- --quiet
ctest --preset tsan -R "$which" -j 2
