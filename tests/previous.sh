#!/usr/bin/env bash
# Builds the daemon of the previous release step from git into build/previous/bin, for the test of a
# rolling upgrade. The commit is the last one of that step: when a level is added to cluster/apply.h,
# it becomes the commit before. Without the history (a source archive) it says so and ends with 77.
set -eu
cd "$(dirname "$0")/.."
commit=e1062fd06397c3f02dc6be1d7bed783d6bf3d630
target=$PWD/build/previous
if [ -x "$target/bin/witnessd" ] && [ "$(cat "$target/commit" 2>/dev/null)" = $commit ]; then
	exit 0
fi
git cat-file -e $commit 2>/dev/null || {
	echo "the previous release ($commit) is not in this copy of the repository" >&2
	exit 77
}
rm -rf "$target"
mkdir -p "$target/source"
git archive $commit | tar -x -C "$target/source"
cmake -S "$target/source" -B "$target" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DTIEBREAK_TESTS=OFF >/dev/null
cmake --build "$target" -j 2 --target witnessd -- --quiet
echo $commit >"$target/commit"
