#!/usr/bin/env python3
"""cluster.py: three emulated Arm boards on a private network that form a cluster, to try everything on.

    cluster.py up                  makes the disk from Debian's and our own packages (make packages), boots the boards
                                   one after the other, and types the documented commands: init, token, join
    cluster.py status              what runs, and what the witness says
    cluster.py run N COMMAND...    a shell command on board N, as root
    cluster.py shell N             a login on board N (root, no password); Ctrl-] leaves it
    cluster.py console N           what board N's console said
    cluster.py kill N              a pulled plug: its emulator is killed with -9; start N boots it again
    cluster.py freeze N, thaw N    processors, devices and clock stand still, and go on
    cluster.py unplug N, plug N    its network cable
    cluster.py down                ends all and removes their disks

On the boards' network board N is 10.77.0.N, on its bridge br0. No root needed. Times are told:
a board takes a minute of processor time until it is up."""

import argparse
import concurrent.futures
import contextlib
import os
import pathlib
import re
import select
import signal
import subprocess
import sys
import termios
import time
import tty

import debian
import machine

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PACKAGES = ("tiebreak-node", "tiebreak-cli", "tiebreak-agent")
BOOT_S = 1200
LEAVE = b"\x1d"  # Ctrl-]


class Failure(Exception):
    """What was asked for did not come about."""


def packages(folder):
    """The newest of our packages for arm64 in `folder`."""
    found = [max(pathlib.Path(folder).glob(f"{name}_*_arm64.deb"), key=lambda path: path.stat().st_mtime, default=None)
             for name in PACKAGES]
    if None in found:
        raise Failure(f"no packages for arm64 in {folder}: make them first (make packages)")
    return found


class Cluster:
    """The boards of one folder. Like machine.Machine it has no state of its own."""

    def __init__(self, folder, size=3):
        self.folder = pathlib.Path(folder).resolve()
        self.boards = [machine.Machine(self.folder, number) for number in range(1, size + 1)]
        self.hub_pid = self.folder / "hub.pid"

    @staticmethod
    def end_with_me():
        """For a program whose boards end with it: SIGTERM is no other end than Ctrl-C, and `finally` is run."""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))

    def board(self, number):
        if not 1 <= number <= len(self.boards):
            raise Failure(f"there is no board {number}: they are 1 to {len(self.boards)}")
        return self.boards[number - 1]

    def alive(self):
        return [board for board in self.boards if board.alive()]

    # --- the network ---

    def _hub(self):
        with contextlib.suppress(OSError, ValueError):
            pid = int(self.hub_pid.read_text())
            if str(HERE / "hub.py") in pathlib.Path(f"/proc/{pid}/cmdline").read_text():
                return pid
        return None

    def hub_start(self):
        if self._hub() is None:
            process = subprocess.Popen([sys.executable, HERE / "hub.py", self.folder], stdin=subprocess.DEVNULL,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
            self.hub_pid.write_text(f"{process.pid}\n")

    def hub_stop(self):
        pid = self._hub()
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        self.hub_pid.unlink(missing_ok=True)

    # --- life ---

    def create(self, image):
        if self.alive():
            raise Failure("boards are running already: \"down\" ends them")
        self.folder.mkdir(parents=True, exist_ok=True)
        for board in self.boards:
            board.remove()
            board.create(image)

    def boot(self, tell=lambda text: None, disks=()):
        """One after the other: two that boot at once on two cores are no faster. `disks`: of the first board, see
        Machine.start."""
        self.hub_start()
        for board in self.boards:
            board.start(disks if board is self.boards[0] else ())
            tell(f"{board.name} is up after {board.wait(BOOT_S):.0f} s")

    def form(self, name="lab", tell=lambda text: None):
        """The documented commands of a new cluster."""
        first, *others = self.boards

        def typed(board, command, shown=None):
            began = time.monotonic()
            said = self.shell(board, command)
            tell(f"{board.name}# {shown or command}    ({time.monotonic() - began:.0f} s)")
            return said

        typed(first, f"witnessctl cluster init --name {name}")
        for board in others:
            token = re.search(r"tb1\S+", typed(first, "witnessctl token create --role node --ttl 1h")).group(0)
            typed(board, f"witnessctl cluster join {first.address}:7443 --token {token}",
                  f"witnessctl cluster join {first.address}:7443 --token tb1...")

    def down(self):
        for board in self.boards:
            board.remove()
        self.hub_stop()

    # --- talking to them ---

    def shell(self, board, command, timeout=300):
        """What a command says; Failure if it fails."""
        status, said = board.run(command, timeout)
        if status != 0:
            raise Failure(f"{board.name}: status {status} of: {command}\n{said}")
        return said

    def awaited(self, command, pattern, timeout, boards=None):
        """(board, match, seconds): the first of `boards`, else of all that run, where what `command` says has the
        regular expression. All are asked again and again, at the same time."""
        began = time.monotonic()
        last = {}

        def ask(board):
            with contextlib.suppress(machine.Down):
                last[board.name] = board.run(command, 60)[1]
                return re.search(pattern, last[board.name], re.M)
            return None

        while time.monotonic() < began + timeout:
            asked = boards or self.alive()
            with concurrent.futures.ThreadPoolExecutor(max(1, len(asked))) as pool:
                for board, match in zip(asked, pool.map(ask, asked)):
                    if match:
                        return board, match, time.monotonic() - began
            time.sleep(0.2)
        raise Failure(f"after {timeout} s no board's {command!r} says {pattern!r}: {last}")

    def whole(self, timeout=600):
        """As `awaited`: until a board says that all are reachable."""
        return self.awaited("witnessctl status", rf"^Boards: +{len(self.boards)} of {len(self.boards)} reachable", timeout)

    def leader(self, timeout=600, but=None):
        """(board, seconds): the one that leads, as soon as that is another one than `but`."""
        names = "|".join(board.name for board in self.boards if board is not but)
        _, match, seconds = self.awaited("witnessctl status", rf"^Leader: +({names})$", timeout)
        return next(board for board in self.boards if board.name == match.group(1)), seconds


# --- the verbs ---

def up(cluster, options):
    began = time.monotonic()
    image = machine.image(packages(options.packages), cluster.folder)
    print(f"the disk is made after {time.monotonic() - began:.0f} s", flush=True)
    cluster.create(image)
    tell = lambda text: print(text, flush=True)  # noqa: E731
    cluster.boot(tell)
    if not options.plain:
        cluster.form(tell=tell)
        board, _, seconds = cluster.whole()
        print(f"{board.name}# witnessctl status    (all reachable after {seconds:.0f} s)")
        print(cluster.shell(board, "witnessctl status"))
    me = os.path.relpath(__file__)
    print(f"{len(cluster.boards)} boards run, {time.monotonic() - began:.0f} s after the start. Now, say\n"
          f"  {me} shell 1          a login there (root); Ctrl-] leaves it\n"
          f"  {me} kill 1           pulls its plug; {me} status looks how the others take it\n"
          f"  {me} start 1          boots it again\n"
          f"  {me} down             ends all")


def status(cluster, _options):
    for board in cluster.boards:
        if not board.alive():
            state = "off" if board.directory.exists() else "never made"
        else:
            state = {"running": "runs", "paused": "frozen"}.get(board.qmp("query-status")["status"], "?")
        print(f"{board.name:10} {board.address:12} {state}")
    for board in cluster.alive():
        if board.qmp("query-status")["status"] == "running":
            with contextlib.suppress(machine.Down):
                print(f"\n{board.name}# witnessctl status\n{board.run('witnessctl status; witnessctl node list', 60)[1]}")
                return


def run(cluster, options):
    status_, said = cluster.board(options.number).run(" ".join(options.words), options.timeout)
    print(said, end="" if said.endswith("\n") else "\n")
    sys.exit(status_)


def shell(cluster, options):
    """The board's serial console on this terminal."""
    with cluster.board(options.number).serial() as console:
        keep = termios.tcgetattr(0)
        print("Ctrl-] leaves; root has no password\r")
        console.sendall(b"\n")
        tty.setraw(0)
        try:
            while True:
                ready, _, _ = select.select([0, console], [], [])
                if console in ready:
                    said = console.recv(65536)
                    if not said:
                        break
                    os.write(1, said)
                if 0 in ready:
                    typed = os.read(0, 4096)
                    if LEAVE in typed or not typed:
                        break
                    console.sendall(typed)
        finally:
            termios.tcsetattr(0, termios.TCSADRAIN, keep)
    print()


def console(cluster, options):
    print((cluster.board(options.number).directory / "console.log").read_text(errors="replace"))


def start(cluster, options):
    board = cluster.board(options.number)
    cluster.hub_start()
    board.start()
    print(f"{board.name} is up after {board.wait(BOOT_S):.0f} s")


ON_ONE = {"run": run, "shell": shell, "console": console, "start": start,
          "kill": lambda cluster, options: cluster.board(options.number).kill(),
          "freeze": lambda cluster, options: cluster.board(options.number).freeze(),
          "thaw": lambda cluster, options: cluster.board(options.number).thaw(),
          "unplug": lambda cluster, options: cluster.board(options.number).cable(False),
          "plug": lambda cluster, options: cluster.board(options.number).cable(True)}
ON_ALL = {"up": up, "status": status, "down": lambda cluster, _options: cluster.down()}


def arguments():
    parser = argparse.ArgumentParser(prog="cluster.py", description=__doc__.partition("\n\n")[2],
                                     formatter_class=argparse.RawDescriptionHelpFormatter,
                                     usage="cluster.py [--folder DIR] VERB [N] [...]")
    parser.add_argument("--folder", default=str(ROOT / "build/boards"), help="where the boards' disks are")
    parser.add_argument("--size", type=int, default=3, help="how many boards, default 3")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name in ON_ALL:
        verb = verbs.add_parser(name)
        if name == "up":
            verb.add_argument("--packages", default=str(ROOT / "build/packages"), help="the folder with our .debs")
            verb.add_argument("--plain", action="store_true", help="boot only, form no cluster")
    for name in ON_ONE:
        verb = verbs.add_parser(name)
        verb.add_argument("number", type=int, metavar="N")
        if name == "run":
            verb.add_argument("--timeout", type=int, default=300, metavar="SECONDS")
            verb.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND")
    options = parser.parse_args()
    if not 1 <= options.size <= machine.MOST:
        parser.error(f"--size: 1 to {machine.MOST}")
    return options


def main():
    options = arguments()
    try:
        {**ON_ALL, **ON_ONE}[options.verb](Cluster(options.folder, options.size), options)
    except (Failure, machine.Down, debian.Missing, OSError) as error:
        sys.exit(f"cluster.py: {error}")


if __name__ == "__main__":
    main()
