"""Boards of a witness cluster as processes on this machine, for the scripts of this folder.

Each board is a real witnessd with an address of its own in 127.0.0.0/8 (or in a network name space,
see lab.py) and is spoken to by the real witnessctl. Everything lives below one directory that is
removed at the end, or kept and named after a failure. Processes are ended by their own pid, and
die with this one (PR_SET_PDEATHSIG)."""

import atexit
import ctypes
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Failure(Exception):
    """A claim of the test is not so."""


def die_with_parent():
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def wait_for(seconds, what, check, every=0.1):
    """Polls until check() is true; its value is returned."""
    end = time.monotonic() + seconds
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > end:
            raise Failure(f"{what} (waited {seconds} s)")
        time.sleep(every)


class Board:
    """One board. `prefix` is put before the command, to start it inside a name space."""

    def __init__(self, cluster, number, host, prefix=()):
        self.cluster = cluster
        self.number = number
        self.name = f"board{number}"
        self.host = host
        self.prefix = list(prefix)
        self.dir = os.path.join(cluster.dir, self.name)
        self.data = os.path.join(self.dir, "data")
        self.run = os.path.join(self.dir, "run")
        self.log = os.path.join(self.dir, "witnessd.log")
        self.socket = os.path.join(self.run, "witnessd.sock")
        self.address = f"{host}:7443"
        self.sites_address = f"{host}:5403"
        self.bin = cluster.bin
        self.options = []
        self.process = None
        os.makedirs(self.dir)

    def start(self, wait=True):
        command = self.prefix + [
            os.path.join(self.bin, "witnessd"), "--name", self.name,
            "--data-dir", self.data, "--run-dir", self.run, "--listen", self.address,
            "--sites-listen", self.sites_address] + self.options
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            preexec_fn=die_with_parent)
        if wait:
            wait_for(20, f"{self.name} does not open its socket",
                     lambda: self.process.poll() is not None or self.local() is not None)
            if self.process.poll() is not None:
                raise Failure(f"{self.name} ended with {self.process.returncode}: {self.last_log()}")
        return self

    def last_log(self):
        with open(self.log, errors="replace") as log:
            return "".join(log.readlines()[-5:]).strip()

    def pid(self):
        return self.process.pid

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        """A pulled plug, as far as a process can feel one."""
        self.process.kill()
        self.process.wait()

    def stop(self):
        """In order, as systemd does it; returns the exit code."""
        self.process.terminate()
        return self.process.wait(30)

    def running(self):
        return self.process is not None and self.process.poll() is None

    def ctl(self, *arguments, check=True, stdin=None, timeout=90):
        """witnessctl on this board: the finished process."""
        done = subprocess.run([os.path.join(self.cluster.bin, "witnessctl"), "--socket", self.socket,
                               *arguments], input=stdin, capture_output=True, text=True, timeout=timeout)
        if check and done.returncode != 0:
            raise Failure(f"witnessctl {' '.join(arguments)} on {self.name} ended with "
                          f"{done.returncode}: {done.stderr.strip()}")
        return done

    def json(self, *arguments, **how):
        return json.loads(self.ctl(*arguments, "-o", "json", **how).stdout)

    def get(self, path):
        """GET by the Unix socket, with curl: status and text."""
        done = subprocess.run(["curl", "-s", "-m", "10", "-w", "\n%{http_code}", "--unix-socket", self.socket,
                               f"http://board{path}"], capture_output=True, text=True)
        text, _, code = done.stdout.rpartition("\n")
        return int(code or 0), text

    def send(self, method, path, data):
        """The same with a body of bytes."""
        done = subprocess.run(["curl", "-s", "-m", "60", "-w", "\n%{http_code}", "-X", method, "--data-binary",
                               "@-", "-H", "Content-Type: application/octet-stream", "--unix-socket",
                               self.socket, f"http://board{path}"], input=data, capture_output=True)
        text, _, code = done.stdout.decode(errors="replace").rpartition("\n")
        return int(code or 0), text

    def local(self):
        if not os.path.exists(self.socket):
            return None
        code, text = self.get("/v1/local")
        return json.loads(text) if code == 200 else None

    def status(self):
        """The cluster as this board sees it, or None while it has no leader."""
        done = self.ctl("cluster", "status", "-o", "json", check=False)
        if done.returncode != 0:
            return None
        return json.loads(done.stdout).get("status")


class Cluster:
    """Boards of one test. Use as a context manager."""

    def __init__(self, binaries, keep=False):
        self.bin = os.path.realpath(binaries)
        self.dir = tempfile.mkdtemp(prefix="tiebreak.")
        self.net = f"127.{80 + os.getpid() % 100}.{random.randrange(1, 250)}"
        self.boards = {}
        self.keep = keep
        self.cleanups = []
        atexit.register(self.close)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is not None and issubclass(kind, Exception):  # else it was only told to end
            self.keep = True
            print(f"\nFAILED: {error}", file=sys.stderr)
            for board in self.boards.values():
                if os.path.exists(board.log):
                    print(f"--- {board.log}\n{board.last_log()}", file=sys.stderr)
        self.close()
        return False

    def close(self):
        if self.dir is None:
            return
        for board in self.boards.values():
            if board.running():
                board.signal(signal.SIGCONT)
                board.kill()
        for cleanup in reversed(self.cleanups):
            cleanup()
        if self.keep:
            print(f"logs are kept in {self.dir}", file=sys.stderr)
        else:
            shutil.rmtree(self.dir, ignore_errors=True)
        self.dir = None

    def board(self, number, host=None, prefix=()):
        if number not in self.boards:
            self.boards[number] = Board(self, number, host or f"{self.net}.{number}", prefix)
        return self.boards[number]

    def token(self, through=None):
        through = through or self.any()
        return through.json("token", "create", "--role", "node", "--ttl", "1h")["secret"]

    def any(self):
        return next(board for board in self.boards.values() if board.running())

    def make(self, count):
        """Boards 1..count in one cluster, by the commands that a person would type."""
        self.board(1).start().ctl("cluster", "init", "--name", "lab")
        for number in range(2, count + 1):
            self.join(number)
        return self

    def join(self, number, through=1):
        board = self.board(number)
        if not board.running():
            board.start()
        board.ctl("cluster", "join", self.boards[through].address, "--token", self.token(self.boards[through]))
        return board

    def leader(self, through=None, seconds=20):
        """The board that leads, as a running board sees it."""
        def look():
            for board in [through] if through else self.boards.values():
                if board.running():
                    status = board.status()
                    if status and status.get("leaderName"):
                        leader = self.boards[int(status["leaderName"].removeprefix("board"))]
                        if leader.running():
                            return leader
            return None
        return wait_for(seconds, "the cluster has no leader", look)


def main(tests, long=()):
    """Runs the functions of a script in order: `script.py BIN [--long] [NAME...]`. Those in `long` take too much
    time for CI: they run with --long, or if they are named."""
    wanted = sys.argv[2:]
    everything = "--long" in wanted
    wanted = [name for name in wanted if name != "--long"]
    unknown = set(wanted) - {test.__name__ for test in tests}
    if unknown:
        sys.exit(f"there is no test {' '.join(sorted(unknown))} in {sys.argv[0]}")
    failed = 0
    for test in tests:
        if wanted and test.__name__ not in wanted:
            continue
        if test in long and not everything and not wanted:
            print(f"left out {test.__name__}, which runs with --long", flush=True)
            continue
        began = time.monotonic()
        try:
            with Cluster(sys.argv[1]) as cluster:
                test(cluster)
            print(f"ok      {test.__name__} ({time.monotonic() - began:.0f} s)", flush=True)
        except Exception as error:  # the next test still runs
            failed += 1
            print(f"FAILED  {test.__name__}: {error}", flush=True)
    sys.exit(1 if failed else 0)
