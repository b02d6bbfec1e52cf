#!/bin/sh
# Runs on a board: /dev/disk1 is a tar of unpacked packages (rootfs.py), /dev/disk0 becomes the system.
set -eu
root=/mnt
/usr/sbin/mke2fs -q -t ext4 -L debian /dev/disk0
mount -t ext4 /dev/disk0 $root
tar -xf /dev/disk1 -C $root
mkdir -p $root/proc $root/sys $root/dev $root/run $root/tmp $root/root
chmod 1777 $root/tmp
mount -t proc proc $root/proc
mount -t sysfs sysfs $root/sys
mount -t devtmpfs dev $root/dev

# What the packages' preinst scripts would have made.
cp $root/usr/share/base-passwd/passwd.master $root/etc/passwd
cp $root/usr/share/base-passwd/group.master $root/etc/group
echo debian >$root/etc/hostname
printf '#!/bin/sh\nexit 101\n' >$root/usr/sbin/policy-rc.d
chmod 755 $root/usr/sbin/policy-rc.d
in_root() {
	chroot $root /usr/bin/env -i PATH=/usr/bin:/usr/sbin HOME=/root LC_ALL=C \
		DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true "$@"
}
in_root dpkg --configure -a
in_root passwd -d root
rm $root/usr/sbin/policy-rc.d

# A disk of a test: nothing wakes up by itself, the log is in memory.
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
	fstrim.timer systemd-tmpfiles-clean.timer; do
	ln -sf /dev/null $root/etc/systemd/system/$unit
done
mkdir -p $root/etc/systemd/journald.conf.d
printf '[Journal]\nStorage=volatile\n' >$root/etc/systemd/journald.conf.d/volatile.conf
echo "/dev/root / ext4 defaults 0 0" >$root/etc/fstab
rm -rf $root/var/cache/debconf/*-old $root/var/lib/dpkg/*-old
df $root
umount $root/dev $root/sys $root/proc $root
