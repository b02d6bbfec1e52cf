#!/bin/sh
# On a machine (machine.py): runs each command that comes through the port, "MARK COMMAND-IN-BASE64" a line, and
# says what it said between "MARK begin" and "MARK STATUS".
port=/dev/virtio-ports/org.tiebreak.command
until [ -e $port ]; do sleep 0.2; done
exec 3<>$port
export HOME=/root
cd /root || exit
while :; do
	if ! read -r mark command <&3; then
		sleep 0.2 # nobody is connected
		continue
	fi
	printf '%s' "$command" | base64 -d >/run/board-command
	printf '%s begin\n' "$mark" >&3
	sh /run/board-command </dev/null >&3 2>&1 3>&-
	printf '\n%s %s\n' "$mark" $? >&3
done
