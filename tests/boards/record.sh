#!/bin/sh
# On a board of recorder.py: record.sh VM... writes the census of VMs' processes to one port, for ever, and the lines of these VMs'
# consoles, each with the VM's name before it, to another.
lab=$(dirname "$0")
exec 3>/dev/virtio-ports/org.tiebreak.lines
for vm; do
	while :; do
		# Again now and then: a console that is shown by way of a board that is gone may never end.
		timeout 60 witnessctl vm logs "$vm" --follow 2>/dev/null | sed -un "s/^TICK/$vm TICK/p" >&3
		sleep 3
	done &
done
exec "$lab/guest" census <>/dev/virtio-ports/org.tiebreak.census >&0
