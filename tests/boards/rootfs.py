"""rootfs.py: a disk with a Debian: systemd, and a login prompt on every console it is booted with.

Made without root and without running arm64 programs here. The packages are put together into one tar,
with the entries of dpkg's database that say "unpacked"; a board writes it to a new ext4 and lets dpkg
configure everything in a chroot, natively. Root has no password."""

import io
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile

import cache
import cpio
import debian

HERE = pathlib.Path(__file__).resolve().parent
PACKAGES = ("?essential", "usr-is-merged", "systemd-sysv", "udev", "dbus", "login", "passwd", "iproute2",
            "iputils-ping", "kmod", "e2fsprogs", "procps")
SCRIPT = HERE / "rootfs.sh"
MIB = 600
LIMIT_S = 1800


class Tree:
    """A tar of packages as if dpkg had unpacked them all."""

    def __init__(self, out):
        self.tar = tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT)
        self.names = set()
        self.status = []
        for name in (*cpio.MERGED, *(f"usr/{name}" for name in cpio.MERGED)):
            link = tarfile.TarInfo(f"./{name}")
            link.type, link.linkname, link.mode = tarfile.SYMTYPE, f"usr/{name}", 0o777
            if name.startswith("usr/"):
                link.type, link.linkname, link.mode = tarfile.DIRTYPE, "", 0o755
            self._add(link)

    def _add(self, member, data=None):
        if member.name not in self.names:
            self.names.add(member.name)
            self.tar.addfile(member, data)

    def text(self, name, text, mode=0o644):
        member = tarfile.TarInfo(f"./{name}")
        member.size, member.mode = len(text), mode
        self._add(member, io.BytesIO(text))

    def link(self, name, target):
        member = tarfile.TarInfo(f"./{name}")
        member.type, member.linkname, member.mode = tarfile.SYMTYPE, target, 0o777
        self._add(member)

    def _files(self, deb):
        """Adds the package's files; returns the text of its .list."""
        listed = []
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as process:
            with tarfile.open(fileobj=process.stdout, mode="r|") as files:
                for member in files:
                    name = member.name.removeprefix("./").strip("/")
                    listed.append("/" + name if name else "/.")
                    if any(name.startswith(unwanted) for unwanted in debian.UNWANTED):
                        continue
                    member.name = _merged(name)
                    if member.islnk():
                        member.linkname = _merged(member.linkname.removeprefix("./"))
                    self._add(member, files.extractfile(member) if member.isreg() else None)
        return "\n".join(listed).encode() + b"\n"

    def package(self, deb):
        with subprocess.Popen(["dpkg-deb", "--ctrl-tarfile", deb], stdout=subprocess.PIPE) as process:
            with tarfile.open(fileobj=process.stdout, mode="r|") as files:
                control = {member.name.removeprefix("./"): (files.extractfile(member).read(), member.mode)
                           for member in files if member.isreg()}
        about = control.pop("control")[0].decode()
        name = re.search(r"^Package: (.*)$", about, re.M).group(1)
        if re.search(r"^Multi-Arch: same$", about, re.M):
            name += ":arm64"
        for part, (text, mode) in control.items():
            self.text(f"var/lib/dpkg/info/{name}.{part}", text, mode)
        self.text(f"var/lib/dpkg/info/{name}.list", self._files(deb))
        self.status.append(about.strip().replace("\n", "\nStatus: install ok unpacked\n", 1) + "\n")

    def end(self):
        self.text("var/lib/dpkg/status", "\n".join(self.status).encode())
        self.text("var/lib/dpkg/available", b"")
        self.tar.close()


def _merged(name):
    first, slash, _ = name.partition("/")
    return f"./usr/{name}" if slash and first in cpio.MERGED else f"./{name}"


def _make(directory, debs, mib, files):
    image_ = directory / "image"
    with tempfile.NamedTemporaryFile(prefix="board-packages-") as packed:
        tree = Tree(packed)
        for deb in debs:
            tree.package(deb)
        for name, content in files.items():
            if isinstance(content, str):
                tree.link(name, content)
            else:
                tree.text(name, content, 0o755 if content.startswith(b"#!") else 0o644)
        tree.end()
        packed.truncate(-(-packed.tell() // 4096) * 4096)
        with open(image_, "wb") as file:
            file.truncate(mib << 20)
        done = subprocess.run([sys.executable, HERE / "board", "-b", image_, "-b", packed.name, "-p", "e2fsprogs",
                               "-f", f"{SCRIPT}:/", "-t", str(LIMIT_S), "--", "sh", "/rootfs.sh"],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise debian.Missing(f"the Debian disk: status {done.returncode}:\n{done.stdout}")
    (directory / "log").write_text(done.stdout)


def image(packages=PACKAGES, mib=MIB, files=None):
    """The disk, a sparse file, never to be written to. `files`: more of its own, name to bytes (executable if they
    begin with "#!") or to the text of a link."""
    files = files or {}
    debs = debian.packages(packages)
    key = cache.digest(*[deb.name for deb in debs], SCRIPT, mib, *[word for pair in files.items() for word in pair])
    return cache.made(f"rootfs/{key}", lambda directory: _make(directory, debs, mib, files)) / "image"
