"""hub.py: the network of the machines of one folder (machine.py): a switch for Ethernet frames, one a datagram.

    python3 hub.py FOLDER        # FOLDER/hub.sock; machines are FOLDER/*/lan.sock

Needs no rights. It learns behind which machine an address is, as a switch does. A frame for a machine that is not
there, or whose queue is full, is lost, as on a cable."""

import contextlib
import os
import socket
import sys

FRAME_MAX = 65536


def main():
    os.chdir(sys.argv[1])  # a socket's path has little room
    with contextlib.suppress(FileNotFoundError):
        os.unlink("hub.sock")
    hub = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    hub.bind("hub.sock")
    where, ports = {}, set()
    while True:
        frame, sender = hub.recvfrom(FRAME_MAX)
        if not sender or len(frame) < 14:
            continue
        ports.add(sender)
        target, source = frame[:6], frame[6:12]
        where[source] = sender
        known = where.get(target)
        for port in [known] if known else ports - {sender}:
            if port != sender:
                with contextlib.suppress(OSError):
                    hub.sendto(frame, socket.MSG_DONTWAIT, port)


if __name__ == "__main__":
    main()
