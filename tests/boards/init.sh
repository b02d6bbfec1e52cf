#!/bin/busybox sh
# What a board does after its kernel: makes a usual Linux of itself, runs /board/command, hands back
# what it left under /out, says its status on the console, and waits to be switched off.
# /board/settings says: mark, modules, links ("lan0=52:54:..."), addresses ("lan0=10.0.0.1/24"), out.
b=/bin/busybox
$b mkdir -p /proc /sys /dev /tmp /run /out /root /mnt /opt/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs dev /dev
$b stty -opost -echo </dev/console
$b --install -s /opt/busybox
export PATH=/usr/bin:/usr/sbin:/opt/busybox HOME=/root TERM=dumb
. /board/settings

mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t debugfs debug /sys/kernel/debug
for module in $modules; do modprobe "$module" 2>/dev/null; done
hostname board
ip link set lo up
for link in $links; do
	for card in /sys/class/net/*; do
		[ "$(cat "$card/address")" != "${link#*=}" ] || ip link set "${card##*/}" name "${link%%=*}"
	done
	ip link set "${link%%=*}" up
done
for address in $addresses; do ip address add "${address#*=}" dev "${address%%=*}"; done
for disk in /sys/block/vd*; do
	[ ! -e "$disk" ] || ln -s "${disk##*/}" "/dev/$(cat "$disk/serial")"
done

cd /root || exit
if [ -n "$shell" ]; then
	stty sane </dev/console
	setsid -c sh -l </dev/console >/dev/console 2>&1
	exec poweroff -f
fi
sh /board/command </dev/null
status=$?
case $out in
disk) tar -cf /dev/board-out -C /out . ;;
console) echo "$mark out" && tar -czf - -C /out . | base64 && echo "$mark end" ;;
esac
sync
echo "$mark $status"
while :; do sleep 1000; done
