"""recorder.py: writes down what VMs print on emulated boards and which processes of VMs are there, for instances.py.

    with recorder.Recorder(boards, "record") as record:       # boards: cluster.Cluster
        record.install(board, ("web", "db"))                  # once, on each board that is up
        record.on(board); board.start()                       # whenever one is switched on: before
        board.kill(); record.off(board)                       # or ends: after

On the board a service (record.sh) writes to two ports of its own, past the network: the list of VMs' processes five
times a second, and the lines of the guests' consoles as this board's witnessd has them. A line counts where the guest
says that it runs, so that a console which is shown through another board counts once. Consoles are followed from as
far back as witnessd keeps them, so nothing is lost while one is opened again.

The record is a file of JSON objects, one a line: `kind` on, off (of a board, `life` by life), census (`vms`: those that
may run something; `ends`: those that the kernel still takes down), line and note."""

import contextlib
import json
import pathlib
import re
import selectors
import threading
import time

import machine

HERE = pathlib.Path(__file__).resolve().parent
FOLDER = "/root/lab"
TELL_S = 0.1
CENSUS = re.compile(rb"^CENSUS token=(\d+) hz=(\d+) from=(\d+) to=(\d+)((?: [^ ]+:\d+(?::ends)?)*)\s*$")
LINE = re.compile(rb"^(\S+) TICK (\d+) (\d+) (\d+) (\d+)\s*$")
UNIT = f"""[Unit]
Description=What virtual machines print, for the laboratory
[Service]
ExecStart=/bin/sh {FOLDER}/record.sh %s
Restart=always
RestartSec=1
[Install]
WantedBy=multi-user.target
"""


class Recorder(threading.Thread):
    """`slow`: of the boards. All times are of this machine's clock, made as many times slower."""

    def __init__(self, boards, path, slow=1):
        super().__init__(daemon=True)
        self.slow = slow
        self.boards, self.file = boards, open(path, "w")
        self.lock, self.over = threading.Lock(), threading.Event()
        self.lives, self.seen = {}, set()
        self.newest = {}  # VM: its newest line
        self.processes = {}  # board: its newest census
        self.trouble = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()
        self.file.close()

    def now_ns(self):
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // self.slow

    def now(self):
        return self.now_ns() / 1e9

    # --- what the others say ---

    @staticmethod
    def install(board, vms):
        """`vms`: whose lines are recorded; the program and record.sh are in FOLDER. Goes on at each boot."""
        command = (f"cat >/etc/systemd/system/lab-record.service <<'END'\n{UNIT % ':'.join(vms)}END\n"
                   "systemctl daemon-reload && systemctl enable --now lab-record && sync")  # its plug may be pulled next
        status, said = board.run(command, 300)
        if status != 0:
            raise machine.Down(f"{board.name}: the recorder is not installed: {said}")

    def on(self, board):
        self.lives[board.number] = self.lives.get(board.number, 0) + 1
        self._write(kind="on", board=board.number, life=self.lives[board.number], at=self.now())

    def off(self, board):
        self._write(kind="off", board=board.number, life=self.lives[board.number], at=self.now())

    def note(self, text):
        at = self.now()
        self._write(kind="note", at=at, text=text)
        return at

    def line(self, vm):
        """The newest line of a VM by its counter's time on this machine, as a record; None: none yet."""
        with self.lock:
            return self.newest.get(vm)

    def census(self, board):
        """{VM: [pid]} as the board last said, if that is no older than a second; else None."""
        with self.lock:
            record = self.processes.get(board.number)
        fresh = record and record["life"] == self.lives[board.number] and record["got"] > self.now() - 1
        return record["vms"] if fresh else None

    # --- the thread ---

    def _write(self, **record):
        with self.lock:
            self.file.write(json.dumps(record) + "\n")
            if record["kind"] in ("on", "off", "note"):
                self.file.flush()
            if record["kind"] == "census":
                self.processes[record["board"]] = record
            if record["kind"] == "line":
                newest = self.newest.get(record["vm"])
                key = (record["life"], record["at"])
                if not newest or newest["board"] != record["board"] or (newest["life"], newest["at"]) < key:
                    self.newest[record["vm"]] = record

    def _census(self, board, life, got, line):
        match = CENSUS.match(line)
        if not match:
            return
        vms, ends = {}, {}
        for word in match.group(5).decode().split():
            name, pid, *gone = word.split(":")
            (ends if gone else vms).setdefault(name, []).append(int(pid))
        numbers = [int(match.group(index)) for index in range(1, 5)]
        self._write(kind="census", board=board, life=life, sent=numbers[0] / 1e9, got=got, hz=numbers[1],
                    **{"from": numbers[2], "to": numbers[3]}, vms=vms, ends=ends)

    def _line(self, board, life, got, line):
        match = LINE.match(line)
        key = (life, line)
        if match and int(match.group(3)) == board and key not in self.seen:
            self.seen.add(key)
            self._write(kind="line", board=board, life=life, got=got, vm=match.group(1).decode(), n=int(match.group(2)),
                        begun=int(match.group(4)), at=int(match.group(5)))

    def _connect(self, links, selector):
        for board in self.boards.boards:
            for port, take in (("census", self._census), ("lines", self._line)):
                if (board.number, port) in links or board.number not in self.lives:
                    continue
                with contextlib.suppress(machine.Down, OSError):
                    connection = board.connect(f"{port}.sock", 1)
                    connection.setblocking(False)
                    links[board.number, port] = connection
                    # A line that was cut when the connection began is none.
                    selector.register(connection, selectors.EVENT_READ,
                                      [board.number, port, self.lives[board.number], take, b""])

    def _read(self, key, links, selector):
        number, port, life, take, before = key.data
        got_bytes = b""
        with contextlib.suppress(OSError):
            got_bytes = key.fileobj.recv(1 << 16)
        got = self.now()
        if not got_bytes:
            selector.unregister(key.fileobj)
            key.fileobj.close()
            del links[number, port]
            return
        *lines, key.data[4] = (before + got_bytes).split(b"\n")
        for line in lines:
            take(number, life, got, line)

    def run(self):
        links, told = {}, 0
        try:
            with selectors.DefaultSelector() as selector:
                while not self.over.is_set():
                    if self.now() - told >= TELL_S:
                        self._connect(links, selector)
                        told = self.now()
                        for (_, port), connection in links.items():
                            if port == "census":
                                with contextlib.suppress(OSError):
                                    connection.send(b"%d\n" % self.now_ns())
                    for key, _ in selector.select(TELL_S / 2):
                        self._read(key, links, selector)
        except Exception as error:  # pylint: disable=broad-except
            self.trouble = error
