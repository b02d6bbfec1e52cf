"""cpio.py: writes the archives a kernel unpacks as its first file system.

Format: "newc" of the kernel's Documentation/driver-api/early-userspace/buffer-format.rst. Archives
put one after the other are unpacked one over the other, so a board's is glued from parts that are
kept. Everything belongs to root there, whoever ran this."""

import os
import stat

MERGED = ("bin", "sbin", "lib")


class Archive:
    """An archive being written to the binary file `out`. Names are paths without a leading slash."""

    def __init__(self, out):
        self.out = out
        self.inode = 0
        self.made = set()

    def _entry(self, name, mode, data=b"", device=(0, 0)):
        self.inode += 1
        name = name.encode() + b"\0"
        fields = (self.inode, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name), 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields)
        self.out.write(header + name + bytes(-(len(header) + len(name)) % 4))
        self.out.write(data)
        self.out.write(bytes(-len(data) % 4))

    def _place(self, name):
        """`name` below /usr where /bin, /sbin and /lib are links to there; its directories are made."""
        name = os.path.normpath(name.lstrip("/"))
        first, slash, _ = name.partition("/")
        if slash and first in MERGED:
            name = "usr/" + name
        self.directory(os.path.dirname(name))
        return name

    def directory(self, name, mode=0o755):
        if name in ("", ".") or name in self.made:
            return
        name = self._place(name)
        if name not in self.made and name not in MERGED:
            self.made.add(name)
            self._entry(name, stat.S_IFDIR | mode)

    def file(self, name, data, mode=0o644):
        self._entry(self._place(name), stat.S_IFREG | mode, data)

    def link(self, name, target):
        self._entry(self._place(name), stat.S_IFLNK | 0o777, target.encode())

    def device(self, name, major, minor, mode=0o600):
        self._entry(self._place(name), stat.S_IFCHR | mode, device=(major, minor))

    def copy(self, path, name):
        """The file, link or directory at `path`, a directory with all that is in it."""
        mode = os.lstat(path).st_mode
        if stat.S_ISLNK(mode):
            self.link(name, os.readlink(path))
        elif stat.S_ISDIR(mode):
            self.directory(name, stat.S_IMODE(mode))
            for child in sorted(os.listdir(path)):
                self.copy(os.path.join(path, child), os.path.join(name, child))
        elif stat.S_ISREG(mode):
            with open(path, "rb") as file:
                self.file(name, file.read(), stat.S_IMODE(mode))

    def end(self):
        self._entry("TRAILER!!!", 0)
