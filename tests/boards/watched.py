"""watched.py: three emulated boards with our packages, the VMs of which are watched by recorder.py."""

import pathlib
import time

import cluster
import guests
import machine
import recorder
from lab import ROOT

WAIT_S = 900  # a busy machine's emulated boards are slow; what is promised is told, not waited for
PROCESSOR = 0x410FD080  # MIDR of a Cortex-A72, revision 0


def tell(text):
    print(text, flush=True)


class Lab:
    fresh_s = 3  # so old may the newest line of a VM be that prints
    cores = 1  # of a board; more would wait for each other's locks where three boards share two processors

    def __init__(self, folder, packages, record, slow):
        self.folder, self.packages, self.path = pathlib.Path(folder), packages, record
        self.boards = cluster.Cluster(folder)
        self.boards.end_with_me()
        self.record = recorder.Recorder(self.boards, record, slow)

    # --- life ---

    def create(self, files=None):
        """`files`: what each board finds in recorder.FOLDER too, name to path."""
        self.boards.create(machine.image(cluster.packages(self.packages), ROOT / "build/boards"))
        files = {"bare": guests.bare(), "guest": guests.program(), "record.sh": recorder.HERE / "record.sh",
                 **(files or {})}
        pack = self.folder / "lab.tar"
        for name, path in files.items():
            (self.folder / name).symlink_to(path)
        with open(pack, "wb") as packed:
            machine.pack([self.folder / name for name in files], packed)
        self.boards.hub_start()
        for board in self.boards.boards:
            board.slow = self.record.slow
            board.cores = self.cores
            board.cpu = f"cortex-a72,midr={PROCESSOR + board.number:#x}"  # so the guest knows which one it is on
            self.on(board, [("lab", pack)])
            self.boards.shell(board, f"mkdir -p {recorder.FOLDER} && "
                                     f"tar -xf /dev/disk/by-id/virtio-lab -C {recorder.FOLDER}")

    def form(self, vms):
        self.boards.form(tell=tell)
        self.boards.whole()
        for board in self.boards.boards:
            self.record.install(board, vms)
        self.boards.awaited("witnessctl node list -o json", r'(?s)("hosts":\s*true.*){3}', WAIT_S)

    def on(self, board, disks=()):
        self.record.on(board)
        board.start(disks)
        tell(f"{board.name} is up after {board.wait(cluster.BOOT_S):.0f} s")

    def off(self, *boards):
        """Their plugs are pulled."""
        for board in boards:
            board.kill()
            self.record.off(board)

    def sleep(self, seconds):
        """Of the boards' clocks."""
        time.sleep(seconds * self.record.slow)

    # --- what is seen ---

    def until(self, what, condition, timeout=WAIT_S):
        end = time.monotonic() + timeout
        while True:
            if self.record.trouble:
                raise cluster.Failure(f"the recorder: {self.record.trouble!r}")
            value = condition()
            if value:
                return value
            if time.monotonic() > end:
                raise cluster.Failure(f"after {timeout} s: {what}: newest lines {self.record.newest}")
            time.sleep(0.1)

    def host(self, vm, but=None):
        """The board on which the VM prints, now; None: none, or `but`."""
        line = self.record.line(vm)
        if line and line["got"] > self.record.now() - self.fresh_s and line["n"] >= 4:
            board = self.boards.board(line["board"])
            return board if board is not but else None
        return None

    def where(self, vm):
        return self.until(f"{vm} prints nowhere", lambda: self.host(vm))

    def elsewhere(self, vm, old):
        return self.until(f"{vm} prints on no board but {old.name}", lambda: self.host(vm, old))

    def settle(self, vms):
        """All is whole: the boards are there, and these VMs print."""
        self.boards.whole(WAIT_S)
        self.until("not all boards tell what runs there",
                   lambda: all(self.record.census(board) is not None for board in self.boards.boards))
        for vm in vms:
            self.where(vm)

    def place(self, vm, board):
        """Moves it there, unless it is."""
        for _ in range(5):
            if self.host(vm) is board:
                return
            board.run(f"witnessctl vm move {vm} {board.name} --yes --wait", 300)
            time.sleep(1)
        raise cluster.Failure(f"{vm} cannot be moved to {board.name}")
