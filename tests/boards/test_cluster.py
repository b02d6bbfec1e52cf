"""Three emulated boards with our packages: they form a cluster by the documented commands, and it outlives what
befalls a board: its plug pulled, its cable, its clock standing still."""

import argparse
import contextlib
import pathlib
import sys
import tempfile
import textwrap
import time

import cluster
import debian
import machine
from lab import ROOT


class Story:
    """The steps, in order; each is a check, and builds on those before. What a step returns is told."""

    def __init__(self, boards):
        self.boards = boards

    def formed(self):
        """init, token and join make a cluster of three"""
        self.boards.boot()
        self.boards.form()
        return f"whole after {self.boards.whole()[2]:.0f} s"

    def pulled(self):
        """The leader's plug is pulled: another leads, and what was acknowledged is there"""
        leader, _ = self.boards.leader()
        self.boards.shell(leader, "witnessctl site create london-1")
        leader.kill()
        other, seconds = self.boards.leader(but=leader)
        self.boards.awaited("witnessctl site list", "^london-1", 120)
        self.boards.shell(other, "witnessctl site create paris-1")
        leader.start()
        leader.wait(cluster.BOOT_S)
        self.boards.whole()
        self.boards.awaited("witnessctl site list", "^paris-1", 120, [leader])
        return f"another leads after {seconds:.1f} s; back again, the old leader knows what it missed"

    def unplugged(self):
        """A board without its cable has no lease; plugged in again it is one of them"""
        leader, _ = self.boards.leader()
        leader.cable(False)
        _, seconds = self.boards.leader(but=leader)
        self.boards.awaited("journalctl -u witnessd -b -o cat", "^lease-lost", 120, [leader])
        leader.cable(True)
        self.boards.whole()
        return f"another leads after {seconds:.1f} s"

    def frozen(self):
        """A board that stood still for longer than its lease has lost it, and comes back"""
        leader, _ = self.boards.leader()
        leader.freeze()
        others = [board for board in self.boards.boards if board is not leader]
        names = "|".join(board.name for board in others)
        self.boards.awaited("witnessctl status", rf"^Leader: +({names})$", 120, others)
        leader.thaw()
        self.boards.whole()
        return None

    STEPS = (formed, pulled, unplugged, frozen)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bin", nargs="?", help="not used; tests/boards/run.sh gives it to all")
    parser.add_argument("--packages", default=str(ROOT / "build/packages"), help="the folder with the .debs")
    options = parser.parse_args()
    began = time.monotonic()
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="cluster-") as folder:
        boards = cluster.Cluster(folder)
        try:
            boards.create(machine.image(cluster.packages(options.packages), ROOT / "build/boards"))
            for step in Story.STEPS:
                told = step(Story(boards))
                print(f"ok      cluster: {step.__doc__}" + (f" ({told})" if told else ""), flush=True)
                passed += 1
        except (cluster.Failure, machine.Down, debian.Missing) as failure:
            failed = 1
            print(f"FAILED  cluster: {step.__doc__ if passed or boards.alive() else 'the boards are made'}\n"
                  + textwrap.indent(str(failure), "        "))
        finally:
            with contextlib.suppress(OSError):
                boards.down()
    print(f"{passed} passed, {failed} failed ({time.monotonic() - began:.0f} s)")
    sys.exit(failed)


if __name__ == "__main__":
    main()
