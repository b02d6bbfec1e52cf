#!/bin/sh
# Runs on a board: installs the package files of the tar /dev/disk1 on the Debian of /dev/disk0 (machine.py).
set -eu
root=/mnt
mount -t ext4 /dev/disk0 $root
mount -t tmpfs tmp $root/tmp
tar -xf /dev/disk1 -C $root/tmp
mount -t proc proc $root/proc
mount -t devtmpfs dev $root/dev
chroot $root /usr/bin/env -i PATH=/usr/bin:/usr/sbin HOME=/root LC_ALL=C DEBIAN_FRONTEND=noninteractive \
	sh -c 'dpkg -i /tmp/*.deb'
umount $root/dev $root/proc $root/tmp $root
