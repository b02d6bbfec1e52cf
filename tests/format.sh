#!/usr/bin/env bash
# Every C source is exactly what clang-format makes of it.
set -eu
cd "$(dirname "$0")/.."
git ls-files '*.c' '*.h' | xargs clang-format --dry-run --Werror
