#!/usr/bin/env bash
# Thread sanitizer on the tests of what crosses threads.
set -eu
cd "$(dirname "$0")/.."
cmake --preset tsan
cmake --build --preset tsan -- --quiet
ctest --preset tsan -R 'hv_loop|mailbox|stream|readers|link|door|front|api' -j 2
