#!/usr/bin/env bash
# Builds what came before this tree from git, for the tests of upgrades:
#   tests/previous.sh                    the daemon of the previous release step, into build/previous/bin
#   tests/previous.sh packages ARCH...   Debian packages of an older tree; kept in the cache of tests/boards,
#                                        whose folder it prints
# The daemon's commit is the last one of that step: when a level is added to cluster/apply.h, it becomes
# the commit before. The packages' commit is the first that had any, until a release is tagged.
# Without the history (a source archive) it says so and ends with 77.
set -eu
cd "$(dirname "$0")/.."
daemon=e1062fd06397c3f02dc6be1d7bed783d6bf3d630
packages=f7f47a3d336030c86f1e09d809672a6e19de0ff0

# has COMMIT
has() {
	git cat-file -e "$1" 2>/dev/null || {
		echo "the previous release ($1) is not in this copy of the repository" >&2
		exit 77
	}
}

# The daemon, in build/previous.
build_daemon() {
	local target=$PWD/build/previous
	if [ -x "$target/bin/witnessd" ] && [ "$(cat "$target/commit" 2>/dev/null)" = $daemon ]; then
		return
	fi
	has $daemon
	rm -rf "$target"
	mkdir -p "$target/source"
	git archive $daemon | tar -x -C "$target/source"
	cmake -S "$target/source" -B "$target" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DTIEBREAK_TESTS=OFF >/dev/null
	cmake --build "$target" -j 2 --target witnessd -- --quiet
	echo $daemon >"$target/commit"
}

# build_packages ARCH...: in a folder of the cache that is there whole or not at all
build_packages() {
	local target fresh
	target=${TIEBREAK_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tiebreak}/previous/$packages-$(echo "$@" | tr ' ' -)
	if [ ! -d "$target" ]; then
		has $packages
		mkdir -p "$(dirname "$target")"
		fresh=$(mktemp -d "$target.XXXXXX")
		# shellcheck disable=SC2064 # as it is now
		trap "rm -rf '$fresh'" EXIT
		mkdir "$fresh/source"
		git archive $packages | tar -x -C "$fresh/source"
		# Not the git around the cache, if there is one.
		GIT_CEILING_DIRECTORIES=$fresh "$fresh/source/packaging/build.sh" "$fresh" "$@" >"$fresh/log" 2>&1 || {
			tail -40 "$fresh/log" >&2
			exit 1
		}
		rm -rf "$fresh/source"
		chmod 755 "$fresh"
		mv -T "$fresh" "$target"
	fi
	echo "$target"
}

if [ "${1:-}" = packages ]; then
	shift
	build_packages "$@"
else
	build_daemon
fi
