#!/usr/bin/env python3
"""demo_vm.py: virtual machines that outlive their board, on three emulated boards.

    demo_vm.py [--packages DIR]

Boots three boards with our packages, makes a cluster of them, gives it a kernel and two virtual machines, and pulls
the plug of the board that one of them runs on. Ends with how long it took until that machine's init ran on another
board, and its address answered, and of what that time was made."""

import argparse
import json
import pathlib
import sys
import tempfile
import time

import cluster
import debian
import guests
import machine
from lab import ROOT, command_line

LAB = "/root/lab"
VMS = {"web": "10.77.0.101", "db": "10.77.0.102"}
RESTART_S = 1200  # on a busy machine an emulated board is slow; what is promised is said, not waited for
LEASE_AND_DECISION_S = 10


def tell(text):
    print(text, flush=True)


def typed(boards, board, command, timeout=600):
    tell(f"{board.name}# {command}")
    said = boards.shell(board, command, timeout)
    if said.strip():
        tell("    " + said.strip().replace("\n", "\n    "))
    return said


def home(boards, name):
    """The board that the VM `name` runs on."""
    names = "|".join(board.name for board in boards.boards)
    _, match, _ = boards.awaited("witnessctl vm list", rf"^{name} +running .*\b({names})\b", RESTART_S)
    return next(board for board in boards.boards if board.name == match.group(1))


def answers(boards, name):
    """(seconds, text): until the VM's address answers one of the boards by HTTP."""
    _, match, seconds = boards.awaited(f"curl -s -m 5 http://{VMS[name]}/", r"^answer .*", RESTART_S)
    return seconds, match.group(0)


def clock_of(board):
    """How far its clock is before this machine's, in seconds: boards take the time from a chip that knows seconds."""
    before = time.time()
    said = float(board.run("date +%s.%N")[1])
    return said - (before + time.time()) / 2


def moved_at(boards, name):
    """When the leader decided that the VM moves, on this machine's clock."""
    leader, _ = boards.leader()
    events = json.loads(boards.shell(leader, "witnessctl event list -o json"))
    times = [int(event["timeMs"]) / 1000 for event in events["items"]
             if event["type"] == "vm.moved" and event.get("vm") == name]
    return max(times) - clock_of(leader)


def runs_at(boards, board, name):
    """When `board` said that the VM's process runs, on this machine's clock."""
    lines = boards.shell(board, f"journalctl -u witnessd -b -o short-unix | grep 'vm-runs: {name} runs'").splitlines()
    return float(lines[-1].split()[0]) - clock_of(board)


def prepare(boards, packages, folder):
    pack = folder / "guest"
    (folder / "kernel").symlink_to(guests.kernel())
    (folder / "initrd").symlink_to(guests.tiny())
    with open(pack, "wb") as packed:
        machine.pack([folder / "kernel", folder / "initrd"], packed)
    boards.create(machine.image(cluster.packages(packages), ROOT / "build/boards"))
    boards.boot(tell, [("guest", pack)])
    boards.form(tell=tell)
    boards.whole()


def create(boards):
    first = boards.boards[0]
    boards.shell(first, f"mkdir -p {LAB} && tar -xf /dev/disk/by-id/virtio-guest -C {LAB}")
    boards.awaited("witnessctl node list -o json", r'"hosts":\s*true', RESTART_S)
    # --wait: a board that is lost with the only copy of an image takes the VM's restart with it.
    for name, kind in (("kernel", "kernel"), ("initrd", "initrd")):
        typed(boards, first, f"witnessctl image push {LAB}/{name} --name {name} --kind {kind} --wait", RESTART_S)
    for name, address in VMS.items():
        line = command_line(f"net=eth0,{address}/24", "&http=80", "&tick=0,1000")
        typed(boards, first, f"witnessctl vm create {name} --kernel kernel --initrd initrd --memory 128M --nic br0 "
                             f"--restart always --command-line '{line}' --start")
    for name in VMS:
        seconds, text = answers(boards, name)
        tell(f"http://{VMS[name]}/ says: {text} (waited {seconds:.0f} s)")
    typed(boards, first, "witnessctl vm list")


def pull(boards):
    """The board of "web" loses its power."""
    host = home(boards, "web")
    tell(f"\n{host.name}, where web runs, loses its power: its emulator is killed with -9")
    killed = time.time()
    host.kill()
    _, text = answers(boards, "web")
    answered = time.time()
    new = home(boards, "web")
    moved, runs = moved_at(boards, "web"), runs_at(boards, new, "web")
    boards.awaited("witnessctl vm logs web", "GUEST-INIT", RESTART_S)
    tell(f"http://{VMS['web']}/ says: {text}; web runs on {new.name}")
    typed(boards, new, "witnessctl vm list")
    kept = "within" if moved - killed <= LEASE_AND_DECISION_S else "MORE than"
    tell(f"\nfrom the pulled plug to the answer: {answered - killed:.1f} s, of them\n"
         f"  lease and decision        {moved - killed:.1f} s ({kept} the {LEASE_AND_DECISION_S} s that are promised on real boards)\n"
         f"  files and process         {runs - moved:.1f} s\n"
         f"  the guest's boot, emulated in an emulated board, to its web server: {answered - runs:.1f} s")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--packages", default=str(ROOT / "build/packages"), help="the folder with our .debs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="demo-vm-") as folder:
        boards = cluster.Cluster(folder)
        boards.end_with_me()
        try:
            prepare(boards, options.packages, pathlib.Path(folder))
            create(boards)
            pull(boards)
        except (cluster.Failure, machine.Down, debian.Missing) as failure:
            sys.exit(f"demo_vm.py: {failure}")
        finally:
            boards.down()


if __name__ == "__main__":
    main()
