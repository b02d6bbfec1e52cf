"""machine.py: an emulated board with a Debian of its own: systemd, a disk that it keeps, a network, /dev/kvm.

    image = machine.image(debs)                     # with these .debs installed
    board = machine.Machine(folder, 1)              # its files are in folder/board-1
    board.create(image); board.start(); board.wait()
    status, said = board.run("witnessctl status")

`board` is for a command in a clean room; this is for what lives on a board: services, reboots, pulled plugs. Boards
of one folder are on one network (hub.py): board N is board-N, 10.77.0.N/24 on its bridge
br0, whose port lan0 is the cable. A machine outlives whoever started it."""

import base64
import contextlib
import hashlib
import json
import os
import pathlib
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time

import cache
import cpio
import debian
import guests
import rootfs

HERE = pathlib.Path(__file__).resolve().parent
SUBNET = "10.77.0"
MOST = 9
MIB = 900
PACKAGES = (*rootfs.PACKAGES, "curl")
MODULES = ("virtio_mmio", "virtio_blk", "virtio_net", "virtio_rng", "virtio_console", "tun", "bridge", "vhost_net",
           "vhost_vsock", "loop", "overlay", "nf_tables")
# /dev/virtio-ports/org.tiebreak.NAME of a board is folder/board-N/NAME.sock here: the command service, and what
# recorder.py listens to.
PORTS = ("command", "census", "lines")
INSTALL = HERE / "install.sh"


class Down(Exception):
    """The board does not answer; the text says how its console ended."""


def _units():
    system = "etc/systemd/system"
    return {
        "usr/local/sbin/board-command": (HERE / "command.sh").read_bytes(),
        f"{system}/board-command.service": (HERE / "board-command.service").read_bytes(),
        f"{system}/multi-user.target.wants/board-command.service": "../board-command.service",
        f"{system}/multi-user.target.wants/systemd-networkd.service": "/lib/systemd/system/systemd-networkd.service",
        f"{system}/network-online.target.wants/systemd-networkd-wait-online.service":
            "/lib/systemd/system/systemd-networkd-wait-online.service",
        # Emulated, and beside others on a busy machine, everything takes its time.
        f"{system}/systemd-networkd-wait-online.service.d/patience.conf":
            b"[Service]\nExecStart=\nExecStart=/lib/systemd/systemd-networkd-wait-online --timeout=0 -i br0\n",
        "etc/systemd/system.conf.d/patience.conf": b"[Manager]\nDefaultTimeoutStartSec=900s\n"}


def _network():
    folder = "etc/systemd/network"
    files = {f"{folder}/10-lan.link": b"[Match]\nDriver=virtio_net\n[Link]\nName=lan0\n",
             f"{folder}/10-lan0.network": b"[Match]\nName=lan0\n[Network]\nBridge=br0\n",
             f"{folder}/10-br0.netdev": b"[NetDev]\nName=br0\nKind=bridge\n[Bridge]\nSTP=no\nForwardDelaySec=0\n",
             "etc/hosts": "127.0.0.1 localhost\n".encode()}
    for number in range(1, MOST + 1):
        files[f"{folder}/20-br0-{number}.network"] = (
            f"[Match]\nName=br0\nHost=board-{number}\n[Network]\nAddress={SUBNET}.{number}/24\n"
            "LinkLocalAddressing=no\nIPv6AcceptRA=no\n").encode()
        files["etc/hosts"] += f"{SUBNET}.{number} board-{number}\n".encode()
    return files


def _modules():
    """The modules a board may need, with the indexes of modprobe."""
    kernel = debian.Kernel("cloud-arm64")
    files = {}
    with tempfile.TemporaryDirectory(prefix="board-modules-") as tree:
        kernel.module_tree(MODULES, pathlib.Path(tree))
        for path in sorted(pathlib.Path(tree).rglob("*")):
            if path.is_file():
                files["usr/" + str(path.relative_to(tree))] = path.read_bytes()
    return files


def needs(debs):
    """The names of Debian's packages that the package files `debs` depend on."""
    names = set()
    for deb in debs:
        depends = subprocess.run(["dpkg-deb", "-f", deb, "Depends"], check=True, text=True,
                                 stdout=subprocess.PIPE).stdout
        names.update(re.findall(r"(?:^|,)\s*([a-z0-9][a-z0-9+.-]*)", depends))
    return sorted(names - {pathlib.Path(deb).name.partition("_")[0] for deb in debs})


def clean_image(debs):
    """A disk with Debian and what `debs` depend on, but not with them."""
    files = {**_units(), **_network(), **_modules(), "etc/machine-id": b""}
    return rootfs.image((*PACKAGES, *needs(debs)), MIB, files)


def image(debs, folder):
    """A disk with `debs` installed, made in `folder` (a path) unless it is there."""
    base = clean_image(debs)
    final = folder / f"image-{cache.digest(str(base), INSTALL, *map(pathlib.Path, debs))}"
    if final.exists():
        return final
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("image-*"):
        old.unlink()
    fresh = folder / "image.new"
    sparse_copy(base, fresh)
    with tempfile.NamedTemporaryFile(prefix="board-debs-") as packed:
        pack(debs, packed)
        done = subprocess.run([sys.executable, HERE / "board", "-b", fresh, "-b", packed.name, "-f", f"{INSTALL}:/",
                               "-t", "900", "--", "sh", "/install.sh"],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise debian.Missing(f"installing {' '.join(map(str, debs))}: status {done.returncode}:\n{done.stdout}")
    fresh.rename(final)
    return final


def pack(paths, out):
    """Writes the files `paths` as a tar that a board can read from a disk."""
    with tarfile.open(fileobj=out, mode="w", dereference=True) as tar:
        for path in paths:
            tar.add(path, os.path.basename(path))
    out.truncate(-(-out.tell() // 4096) * 4096)


def sparse_copy(source, target):
    subprocess.run(["cp", "--reflink=auto", "--sparse=always", source, target], check=True)


def _slow():
    source = HERE / "slow/slow.c"
    return cache.made(f"programs/slow-{cache.digest(source)}", lambda directory: subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O2", "-o", directory / "slow.so", source], check=True)) / "slow.so"


class Machine:
    """Board `number` with its files in folder/board-N: disk, sockets, console.log, pid. Nothing of its state is here, so
    any process can take hold of a machine that another one started. What it is made of the next time that it is
    switched on is whose who does that."""

    cpu, cores, memory_mib = "cortex-a72", 2, 1024
    slow = 1  # so many times slower than this machine's are its clocks, see slow/slow.c

    def __init__(self, folder, number):
        self.number, self.name, self.address = number, f"board-{number}", f"{SUBNET}.{number}"
        self.directory = pathlib.Path(folder).resolve() / self.name
        self.pid_file = self.directory / "pid"

    def create(self, image_):
        self.directory.mkdir(parents=True)
        sparse_copy(image_, self.directory / "disk")

    def words(self, disks):
        log = "systemd.show_status=no quiet loglevel=3"
        words = ["qemu-system-aarch64", "-M", "virt,virtualization=on,gic-version=2", "-cpu", self.cpu,
                 "-smp", self.cores, "-m", self.memory_mib, "-nodefaults", "-no-user-config", "-display", "none",
                 "-kernel", debian.Kernel("cloud-arm64").image, "-initrd", guests.tiny(),
                 "-append", f"console=ttyAMA0,115200 cryptomgr.notests=1 systemd.hostname={self.name} "
                            f"systemd.machine_id={self.machine_id()} {log} -- root=/dev/vda",
                 "-chardev", f"socket,id=serial,path={self.name}/serial.sock,server=on,wait=off,"
                            f"logfile={self.name}/console.log,logappend=on",
                 "-serial", "chardev:serial",
                 "-qmp", f"unix:{self.name}/qmp.sock,server=on,wait=off",
                 "-device", "virtio-serial-device", "-device", "virtio-rng-device",
                 "-netdev", f"dgram,id=lan,local.type=unix,local.path={self.name}/lan.sock,"
                            "remote.type=unix,remote.path=hub.sock",
                 "-device", f"virtio-net-device,netdev=lan,id=lan0,mac=52:54:00:1b:00:{self.number:02x}"]
        for port in PORTS:
            words += ["-chardev", f"socket,id={port},path={self.name}/{port}.sock,server=on,wait=off",
                      "-device", f"virtserialport,chardev={port},name=org.tiebreak.{port}"]
        # The last device of this kind is the first that the kernel finds. Writes need not wait for this machine's own
        # disk: what the board has written is in the page cache, and outlives the emulator there.
        for name, path, mode in [*[(name, path, ",readonly=on") for name, path in disks], ("disk", f"{self.name}/disk", "")]:
            words += ["-drive", f"if=none,id={name},format=raw,discard=unmap,cache=unsafe,file={path}{mode}",
                      "-device", f"virtio-blk-device,drive={name},serial={name}"]
        return [str(word) for word in words]

    def machine_id(self):
        """Of this board alone: the bridge's MAC address comes from it, and all disks begin as copies of one."""
        return hashlib.sha256(f"{self.directory}".encode()).hexdigest()[:32]

    def start(self, disks=()):
        """Switches it on. `disks`: (name, file), to read, at /dev/disk/by-id/virtio-NAME."""
        if self.alive():
            raise Down(f"{self.name} is running already")
        for left in self.directory.glob("*.sock"):
            left.unlink()
        more = {"LD_PRELOAD": str(_slow()), "BOARD_SLOW": str(self.slow)} if self.slow > 1 else {}
        with open(self.directory / "errors", "w") as errors:
            process = subprocess.Popen(self.words(disks), cwd=self.directory.parent, stdin=subprocess.DEVNULL, stdout=errors,
                                       stderr=errors, start_new_session=True, env={**os.environ, **more})
        self.pid_file.write_text(f"{process.pid}\n")
        # A process that has just become another program has no words yet.
        while process.poll() is None and not self.alive():
            time.sleep(0.01)

    def pid(self):
        """Of its emulator, or None; a number that meanwhile belongs to another program does not count."""
        try:
            pid = int(self.pid_file.read_text())
            ours = os.readlink(f"/proc/{pid}/cwd") == str(self.directory.parent)
            words = pathlib.Path(f"/proc/{pid}/cmdline").read_text()
            return pid if ours and f"unix:{self.name}/qmp.sock" in words else None
        except (OSError, ValueError):
            return None

    def alive(self):
        return self.pid() is not None

    def kill(self):
        """As if the plug was pulled: what the board has not written to its disk is gone."""
        pid = self.pid()
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
            while self.alive():
                time.sleep(0.05)

    def connect(self, name, timeout):
        """Its socket `name`. By way of the directory's descriptor: a socket's path has little room."""
        folder = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.settimeout(timeout)
            connection.connect(f"/proc/self/fd/{folder}/{name}")
            return connection
        except OSError:
            connection.close()
            raise Down(f"{self.name} is not running") from None
        finally:
            os.close(folder)

    def serial(self):
        return self.connect("serial.sock", None)

    def qmp(self, command, **arguments):
        """One command of QEMU's machine protocol."""
        with self.connect("qmp.sock", 30) as connection, connection.makefile("rw") as stream:
            stream.readline()
            for message in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
                stream.write(json.dumps(message) + "\n")
                stream.flush()
                answer = {}
                while "return" not in answer and "error" not in answer:
                    answer = json.loads(stream.readline())
            if "error" in answer:
                raise Down(f"{self.name}: {command}: {answer['error']['desc']}")
            return answer["return"]

    def freeze(self):
        """Stops processors, devices and clock: what no real board does."""
        self.qmp("stop")

    def thaw(self):
        self.qmp("cont")

    def stall(self):
        """Processors and devices stand still until `resume`; its clock has gone on then, as on a board of metal."""
        os.kill(self.pid(), signal.SIGSTOP)

    def resume(self):
        os.kill(self.pid(), signal.SIGCONT)

    def cable(self, plugged):
        self.qmp("set_link", name="lan0", up=plugged)

    def run(self, command, timeout=120):
        """(status, output) of a shell command; Down if there is no answer within `timeout` s."""
        mark = secrets.token_hex(8)
        # systemctl's own patience is for machines that are not emulated.
        command = f"export SYSTEMD_BUS_TIMEOUT={timeout}s\n{command}"
        with self.connect("command.sock", timeout) as connection:
            connection.sendall(f"{mark} {base64.b64encode(command.encode()).decode()}\n".encode())
            said, until = b"", time.monotonic() + timeout
            end = re.compile(rb"(?:\A|\n)" + mark.encode() + rb" begin\n(.*)\n" + mark.encode() + rb" (\d+)\n", re.S)
            while not (found := end.search(said)):
                connection.settimeout(max(0.01, until - time.monotonic()))
                try:
                    more = connection.recv(65536)
                except TimeoutError:
                    raise Down(f"{self.name}: no answer within {timeout} s to: {command}\n"
                               f"{said.decode(errors='replace')}") from None
                if not more:
                    raise Down(f"{self.name} went down")
                said += more
        return int(found.group(2)), found.group(1).decode(errors="replace")

    def wait(self, timeout=600):
        """Until it is up: it answers, and systemd has started what it is to start. Seconds from now."""
        began = time.monotonic()
        while True:
            left = began + timeout - time.monotonic()
            if not self.alive():
                raise Down(f"{self.name} went down:\n{(self.directory / 'errors').read_text()}{self.tail()}")
            try:
                # "degraded": something has failed, and all is started that will be.
                if self.run("systemctl is-system-running --wait", min(left, 60))[1].strip() in ("running", "degraded"):
                    return time.monotonic() - began
                raise Down("not yet")
            except Down:
                if time.monotonic() > began + timeout:
                    raise Down(f"{self.name} is not up after {timeout} s:\n{self.tail()}") from None
                time.sleep(0.5)

    def tail(self):
        with contextlib.suppress(OSError):
            return (self.directory / "console.log").read_text(errors="replace")[-2000:]
        return ""

    def remove(self):
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)
