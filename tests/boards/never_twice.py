#!/usr/bin/env python3
"""never_twice.py: what befalls a board, a daemon or a process: never two of one virtual machine.

    never_twice.py [--packages DIR] [--only CASE...] [--record FILE] [--slow N]

Three emulated boards with our packages and two virtual machines whose guest does nothing but print what time it is,
four times a second, from its first instruction on (tests/boards/guest/bare). recorder.py writes down all that is
printed and which processes are there; instances.py, which knows nothing of the cases, judges it after each of them.

Boards are unplugged, daemons and processes stopped, emulators stopped and killed. An emulator that is stopped with
SIGSTOP is a board whose processors stand still while its clock goes on: when it is let go its clock has jumped, and
with it the leases are over, as on a board of metal. One that is paused by its monitor is not: its own clock stands
still too, and no lease that is counted by a clock can notice that (S2 allows clocks to be 1 % off, not to stop). That
is the last case: there the checker must find two of one."""

import argparse
import pathlib
import sys
import tempfile
import textwrap
import time

import cluster
import debian
import instances
import machine
import recorder
from lab import ROOT
from watched import WAIT_S, Lab, tell

VMS = ("web", "db")
LEASE_S = 3


def settle(lab):
    """All is whole again, and the VMs print; what was to happen has."""
    lab.settle(VMS)
    lab.sleep(2 * LEASE_S)


# --- the cases; each ends with boards that are whole, the VMs running ---

def cut_off(lab):
    """A board is cut off from its peers but alive"""
    leader, _ = lab.boards.leader()
    host = next(board for board in lab.boards.boards if board is not leader)
    lab.place("web", host)
    lab.record.note("cut")
    host.cable(False)
    lab.elsewhere("web", host)
    lab.sleep(4 * LEASE_S)
    host.cable(True)


def daemon_stopped(lab):
    """witnessd is stopped with SIGSTOP, and continued when its VM has been elsewhere for a while"""
    host = lab.where("web")
    lab.record.note("stop")
    lab.boards.shell(host, "kill -STOP $(systemctl show -P MainPID witnessd)")
    lab.elsewhere("web", host)
    lab.sleep(2 * LEASE_S)
    lab.boards.shell(host, "kill -CONT $(systemctl show -P MainPID witnessd)")


def process_stopped(lab):
    """witness-vm is stopped with SIGSTOP and continued later: it dies of its deadline, and does not run on"""
    host = lab.where("web")
    pid = lab.until("its process is not listed", lambda: (lab.record.census(host) or {}).get("web"))[0]
    lab.record.note("stop")
    lab.boards.shell(host, f"kill -STOP {pid}")
    lab.until(f"process {pid} outlives its deadline",
              lambda: (lab.record.census(host) or {"web": [pid]}).get("web", [0])[0] != pid, 60)
    status, _ = host.run(f"kill -CONT {pid}")
    if status == 0:
        raise cluster.Failure(f"process {pid} is still there")


def stalled(lab):
    """A board stands still for 30 seconds (its emulator is stopped): its clock has gone on, its VM does not go on"""
    host = lab.where("web")
    lab.record.note("stall")
    began = lab.record.now()
    host.stall()
    try:
        lab.elsewhere("web", host)
        lab.sleep(max(0, began + 30 - lab.record.now()))
    finally:
        host.resume()


def leader_dies(lab):
    """The leader, which is the VM's host, loses its power"""
    leader, _ = lab.boards.leader()
    lab.place("web", leader)
    lab.record.note("kill")
    lab.off(leader)
    lab.elsewhere("web", leader)
    lab.on(leader)


def majority_dies(lab):
    """Two of three boards lose their power: the third ends its VMs, nothing starts; they come back"""
    host = lab.where("web")
    lab.record.note("kill")
    others = [board for board in lab.boards.boards if board is not host]
    lab.off(*others)
    lab.until(f"{host.name} alone still runs VMs", lambda: lab.record.census(host) == {}, 60)
    for _ in range(12):
        lab.sleep(1)
        if lab.record.census(host):
            raise cluster.Failure(f"{host.name} alone has started {lab.record.census(host)}")
    for board in others:
        lab.on(board)


CASES = (cut_off, daemon_stopped, process_stopped, stalled, leader_dies, majority_dies)


def clock_stands_still(lab):
    """The checker can fail: a board whose clock stood still for 30 seconds as well runs its VM on"""
    host = lab.where("web")
    lab.record.note("pause")
    began = lab.record.now()
    host.freeze()
    try:
        lab.elsewhere("web", host)
        lab.sleep(max(0, began + 30 - lab.record.now()))
    finally:
        host.thaw()


# --- the verdict ---

def judged(lab, began):
    """(Report of all so far, what became of the VMs since `began`)."""
    with lab.record.lock:
        lab.record.file.flush()
    records = instances.read(lab.path)
    report = instances.Report(records)
    zero = max((record["at"] for record in records if record["kind"] == "note"), default=began)
    told = []
    for vm in VMS:
        lives = report.lines.get(vm, [])
        old = max((life for life in lives if life.begin[1] < zero), key=lambda life: life.begin, default=None)
        new = min((life for life in lives if life.begin[0] > zero), key=lambda life: life.begin, default=None)
        if old and new:
            verdict, gap = instances.judge(old, new)
            told.append(f"{vm}: board {old.board[0]}, last line {instances.told(old.end, zero)} s; board {new.board[0]}, "
                        f"first line {instances.told(new.begin, zero)} s; {verdict}"
                        + (f" by {gap:.2f} s" if verdict == instances.APART else ""))
    return report, told


def run(lab, case, known):
    """`known`: the problems that were told, and are."""
    began = lab.record.now()
    case(lab)
    settle(lab)
    report, lines = judged(lab, began)
    problems = [problem for problem in report.problems if problem not in known]
    known.update(problems)
    tell(f"{'FAILED' if problems else 'ok    '}  never twice: {case.__doc__} ({lab.record.now() - began:.0f} s)")
    for line in [*lines, *problems]:
        tell(f"        {line}")


def teeth(lab, known):
    """The last case, for which the checker must find two."""
    began = lab.record.now()
    clock_stands_still(lab)
    settle(lab)
    report, lines = judged(lab, began)
    problems = [problem for problem in report.problems if problem not in known]
    found = any(problem.startswith(instances.OVERLAP) for problem in problems)
    tell(f"{'ok    ' if found else 'FAILED'}  never twice: {clock_stands_still.__doc__} ({lab.record.now() - began:.0f} s)")
    for line in [*lines, *problems]:
        tell(f"        {line}")
    if not found:
        raise cluster.Failure("two ran at once and the checker has not found them, or the board knew better")


def start(lab):
    lab.create()
    lab.form(VMS)
    first = lab.boards.boards[0]
    lab.boards.shell(first, f"witnessctl image push {recorder.FOLDER}/bare --name bare --kind kernel --wait", WAIT_S)
    for vm in VMS:
        lab.boards.shell(first, f"witnessctl vm create {vm} --kernel bare --memory 16M --command-line tick --restart always "
                                "--restart-attempts 100 --start", WAIT_S)
    settle(lab)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--packages", default=str(ROOT / "build/packages"), help="the folder with our .debs")
    parser.add_argument("--only", nargs="+", metavar="CASE", choices=[case.__name__ for case in (*CASES, clock_stands_still)],
                        help="only these: %(choices)s")
    parser.add_argument("--record", default=str(ROOT / "build/never-twice.json"), help="where the record is kept")
    parser.add_argument("--slow", type=int, default=1, metavar="N",
                        help="for a busy machine: the boards' clocks go so many times slower than this one's")
    options = parser.parse_args()
    began, status = time.monotonic(), 1
    with tempfile.TemporaryDirectory(prefix="never-twice-") as folder:
        lab = Lab(folder, options.packages, options.record, options.slow)
        try:
            with lab.record:
                start(lab)
                known = set()
                for case in CASES:
                    if options.only is None or case.__name__ in options.only:
                        run(lab, case, known)
                status = 1 if known else 0
                if options.only is None or clock_stands_still.__name__ in options.only:
                    teeth(lab, known)
        except (cluster.Failure, machine.Down, debian.Missing) as failure:
            status = 1
            tell(textwrap.indent(str(failure), "        "))
        finally:
            lab.boards.down()
    tell(f"{'ended well' if status == 0 else 'FAILED'} after {time.monotonic() - began:.0f} s; the record: {options.record} "
         f"(tests/boards/instances.py reads it)")
    sys.exit(status)


if __name__ == "__main__":
    main()
