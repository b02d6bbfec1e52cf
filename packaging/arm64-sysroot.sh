#!/usr/bin/env bash
# Makes a directory with Debian's arm64 libraries and headers to compile and link against, without
# touching this machine's own packages: apt on a private state fetches, dpkg-deb unpacks.
#   packaging/arm64-sysroot.sh DIRECTORY
# Made again only when the list below changes.
set -eu
packages="libc6-dev libgcc-12-dev linux-libc-dev libuv1-dev libssl-dev libsqlite3-dev libraft-dev liblz4-dev \
libprotobuf-c-dev libjansson-dev libmnl-dev libcurl4-openssl-dev libsmartcols-dev libmbedtls-dev libcmocka-dev \
libfdt-dev zlib1g-dev liburing-dev libseccomp-dev"
root=$1
stamp=$(echo "$packages" | sha256sum | cut -c1-16)
if [ -e "$root/.made-$stamp" ]; then
	exit 0
fi
mkdir -p "$(dirname "$root")"
state=$(mktemp -d)
trap 'rm -rf "$state"' EXIT
mkdir -p "$state/lists/partial" "$state/debs/partial"
: >"$state/status"
apt_() {
	apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User=root \
		-o APT::Install-Recommends=0 -o Acquire::Languages=none -o Acquire::Retries=3 \
		-o Dir::State::status="$state/status" -o Dir::State::lists="$state/lists" \
		-o Dir::Cache::archives="$state/debs" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= \
		-o Debug::NoLocking=1 "$@"
}
apt_ update
# shellcheck disable=SC2086 # the list is words
apt_ -y --download-only install $packages
rm -rf "$root"
mkdir -p "$root"
for deb in "$state"/debs/*.deb; do
	dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$root" --no-same-owner \
		--wildcards './usr/include/*' './usr/lib/*' './lib/*' './usr/share/pkgconfig/*' 2>/dev/null || true
done
# Absolute links of the packages point into the root they were made for.
find "$root" -type l -lname '/*' | while read -r link; do
	ln -sfn "$root$(readlink "$link")" "$link"
done
touch "$root/.made-$stamp"
