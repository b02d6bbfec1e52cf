#!/bin/bash
# The certificates of witnessd/pki.c in the hands of Debian's own tools: two nodes of a site are
# set up by corosync-qdevice-net-certutil, the first with a request that we sign, the second with
# a PKCS#12 file of ours. Needs root (a private /etc/corosync), corosync-qdevice, libnss3-tools.
#   certutil.sh PKI_TOOL
set -euo pipefail

tool=$(realpath "$1")
nssdb=/etc/corosync/qdevice/net/nssdb

if [ "$(id -u)" != 0 ]; then
	echo "skipped: only root can have a private /etc/corosync"
	exit 77
fi
if [ -z "${IN_NAMESPACE:-}" ]; then
	IN_NAMESPACE=1 exec unshare --mount "$0" "$tool"
fi

work=$(mktemp -d)
log=$work/log
trap 'umount /etc/corosync 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"

step() {
	if "$@" >"$log" 2>&1; then
		return
	fi
	echo "failed: $*"
	cat "$log"
	exit 1
}

# $1: folder that stands for the /etc/corosync of one node
node() {
	umount /etc/corosync 2>/dev/null || true
	mkdir "$1"
	mount --bind "$1" /etc/corosync
	step corosync-qdevice-net-certutil -i -c ca.crt
}

# The node has a key and a certificate that NSS takes for a TLS client of the site.
check_node() {
	step certutil -V -n "Cluster Cert" -u C -d $nssdb
	step certutil -K -d $nssdb -f $nssdb/pwdfile.txt
	grep -q "Cluster Cert" "$log"
	step certutil -L -n "Cluster Cert" -d $nssdb
	grep -q 'Subject: "CN=office-1"' "$log"
	step certutil -A -n server -t ,, -i server.crt -d $nssdb
	step certutil -V -n server -u V -d $nssdb
	echo "ok - $1"
}

step "$tool" ca

node first
step corosync-qdevice-net-certutil -r -n office-1
step "$tool" sign $nssdb/qdevice-net-node.crq office-1
step corosync-qdevice-net-certutil -M -c cluster-office-1.crt
check_node "a request of the node, signed by us"
cp $nssdb/qdevice-net-node.p12 .

node second
step "$tool" pkcs12 office-1
step corosync-qdevice-net-certutil -m -c office-1.p12
check_node "a PKCS#12 file of ours"

node third
step corosync-qdevice-net-certutil -m -c qdevice-net-node.p12
check_node "the PKCS#12 file that the first node exported"
