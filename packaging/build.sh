#!/usr/bin/env bash
# Builds the Debian packages of this tree into a directory, with debhelper, for each architecture named:
#   packaging/build.sh DIRECTORY amd64 arm64
# and has lintian look at them.
# Another architecture than this machine's is compiled against a directory with that one's libraries
# (packaging/arm64-sysroot.sh). The same tree gives the same bytes, wherever and whenever it is built.
set -eu
cd "$(dirname "$0")/.."
mkdir -p "$1"
out=$(cd "$1" && pwd)
shift
version=$(dpkg-parsechangelog -l packaging/debian/changelog -S Version)
native=$(dpkg --print-architecture)
grep -q "^project(tiebreak VERSION $version " CMakeLists.txt || {
	echo "packaging/build.sh: packaging/debian/changelog says $version, CMakeLists.txt another version: make them one" >&2
	exit 1
}

# The files of the tree, with what is changed in them; a source archive has no git and no more than its files.
files() {
	git ls-files -z --cached --others --exclude-standard 2>/dev/null ||
		find . -path ./build -prune -o -type f -print0
}

# build ARCHITECTURE
build() {
	local arch=$1 work=$out/work-$1 source options=(--build=binary --no-sign)
	source=$work/tiebreak-$version
	rm -rf "$work"
	mkdir -p "$source"
	files | tar -c --null -T - --ignore-failed-read 2>/dev/null | tar -x -C "$source"
	mv "$source/packaging/debian" "$source/debian"
	if [ "$arch" != "$native" ]; then
		packaging/arm64-sysroot.sh build/arm64-sysroot
		export TIEBREAK_SYSROOT=$PWD/build/arm64-sysroot TIEBREAK_ADMINDIR=$work/dpkg
		mkdir "$source/build"
		ln -s "$TIEBREAK_SYSROOT" "$source/build/arm64-sysroot"
		cp -r "$TIEBREAK_SYSROOT/var/lib/dpkg" "$TIEBREAK_ADMINDIR"
		sed -i "s|^\.|$TIEBREAK_SYSROOT|" "$TIEBREAK_ADMINDIR"/info/*.list
		# The libraries that it needs are in no database of this machine.
		options+=(--host-arch "$arch" --no-check-builddeps)
	fi
	(cd "$source" && dpkg-buildpackage "${options[@]}") >"$out/build-$arch.log" 2>&1 || {
		tail -40 "$out/build-$arch.log" >&2
		echo "packaging/build.sh: building for $arch failed; $out/build-$arch.log has it all" >&2
		exit 1
	}
	rm -f "$out"/*_"$arch".deb
	mv "$work"/*.deb "$out"
	rm -rf "$work"
}

for arch in "$@"; do
	build "$arch"
	lintian --allow-root --fail-on error,warning,info --display-info "$out"/*_"$arch".deb
done
