#!/usr/bin/env bash
# Makes a directory with Debian's arm64 libraries and headers to compile and link against, without
# touching this machine's own packages: apt on a private state fetches, dpkg-deb unpacks.
#   packaging/arm64-sysroot.sh DIRECTORY
# Made again only when this file changes. DIRECTORY/var/lib/dpkg says which package each library is from, for
# dpkg-shlibdeps (packaging/build.sh); its paths begin with "." for the directory.
set -eu
packages="libc6-dev libgcc-12-dev linux-libc-dev libuv1-dev libssl-dev libsqlite3-dev libraft-dev liblz4-dev \
libprotobuf-c-dev libjansson-dev libmnl-dev libcurl4-openssl-dev libsmartcols-dev libmbedtls-dev libcmocka-dev \
libfdt-dev zlib1g-dev liburing-dev libseccomp-dev"
root=$1
stamp=$(sha256sum <"$0" | cut -c1-16)
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
database=$root/var/lib/dpkg
mkdir -p "$database/info" "$database/updates"
printf 'arm64\n' >"$database/arch"
echo 1 >"$database/info/format"
for deb in "$state"/debs/*.deb; do
	dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$root" --no-same-owner \
		--wildcards './usr/include/*' './usr/lib/*' './lib/*' './usr/share/pkgconfig/*' 2>/dev/null || true
	name=$(dpkg-deb -f "$deb" Package)
	if [ "$(dpkg-deb -f "$deb" Multi-Arch)" = same ]; then
		name=$name:arm64
	fi
	for part in symbols shlibs; do
		dpkg-deb --ctrl-tarfile "$deb" | tar -xO "./$part" >"$database/info/$name.$part" 2>/dev/null ||
			rm "$database/info/$name.$part"
	done
	dpkg-deb --fsys-tarfile "$deb" | tar -t | sed 's|/$||' >"$database/info/$name.list"
	dpkg-deb -f "$deb" | sed '/^Package:/a Status: install ok installed' >>"$database/status"
	echo >>"$database/status"
done
# Absolute links of the packages point into the root they were made for.
find "$root" -type l -lname '/*' | while read -r link; do
	ln -sfn "$root$(readlink "$link")" "$link"
done
touch "$root/.made-$stamp"
