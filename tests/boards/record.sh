#!/bin/sh
# On a board of recorder.py: record.sh VM:VM:... writes the lines of these VMs' consoles to one port, and the census of
# VMs' processes to another, for ever.
lab=$(dirname "$0")
"$lab/guest" "lines=,$1" >/dev/virtio-ports/org.tiebreak.lines &
exec "$lab/guest" census <>/dev/virtio-ports/org.tiebreak.census >&0
