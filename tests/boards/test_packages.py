"""Our Debian packages on a clean emulated board: installed, in use, upgraded, removed and purged.

The packages are those of build/packages (make packages), or of the folder named. The ones of "before" are built from
an older tree (tests/previous.sh) and given a lower version; in a copy of the repository that does not have it they are
the same ones with a lower version, and this says so."""

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile
import textwrap
import time

import guests
import machine
from lab import ROOT, Failure, command_line, expect, spec, tried

BEFORE = "0.0.1~before"
NODE, ALL = ("tiebreak-node", "tiebreak-cli"), ("tiebreak-node", "tiebreak-cli", "tiebreak-agent")
# What purge must leave as it was before the first installation. Logs and caches are the system's, and dpkg's own
# records are asked for by name; systemd's state changes by itself.
STATE = r"""
find / -xdev \( -path /proc -o -path /sys -o -path /run -o -path /tmp -o -path /dev -o -path /var/log \
	-o -path /var/cache -o -path /root -o -path /var/lib/lab -o -path /var/lib/dpkg -o -path /var/lib/systemd/random-seed \
	-o -path /var/lib/systemd/timers -o -path /var/tmp -o -path /etc/ld.so.cache \) -prune -o -print | sort
find /run -path /run/udev -prune -o \( -name '*tiebreak*' -o -name '*witness*' \) -print
getent passwd; getent group
"""
# The unit of the daemon, with a virtual machine in place of it: what the unit forbids is forbidden to the daemon's
# machines too.
VM_UNIT = r"""
sed -e '/^\(Type\|Restart\|RestartSec\|ExecStartPre\|StateDirectory.*\|RuntimeDirectory.*\)=/d' \
	-e 's|^ExecStart=.*|ExecStart=/usr/bin/witness-vm run /var/lib/lab/spec.json\nType=exec\nReadWritePaths=/var/lib/lab\nStandardInput=null\n\
StandardOutput=truncate:/var/lib/lab/said\nStandardError=append:/var/lib/lab/said|' \
	/lib/systemd/system/witnessd.service >/run/systemd/system/vm-check.service
grep -c '^\(Protect\|Restrict\|SystemCall\|Device\|Capab\)' /run/systemd/system/vm-check.service
truncate -s 4M /var/lib/lab/disk.img
ip tuntap add dev tap0 mode tap user 60001 && ip link set tap0 master br0 up
systemctl daemon-reload && systemctl start vm-check.service
for i in $(seq 1200); do systemctl is-active -q vm-check.service || break; sleep 1; done
systemctl show -p Result,ExecMainStatus vm-check.service
systemctl stop vm-check.service
ip link del tap0
cat /var/lib/lab/said
"""


def named(folder):
    """Our package files in `folder`, None for each that is missing."""
    return [next(iter(sorted(pathlib.Path(folder).glob(f"{name}_*_arm64.deb"))), None) for name in ALL]


def before(debs):
    """The package files to upgrade from; `debs` themselves where the older tree cannot be had."""
    done = subprocess.run([ROOT / "tests/previous.sh", "packages", "arm64"], text=True, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode == 77:
        print(f"note: {done.stderr.strip()}: upgrading from the same packages with a lower version", flush=True)
        return debs
    if done.returncode != 0:
        sys.exit(f"the packages of before do not build:\n{done.stderr}")
    return named(done.stdout.strip())


def renamed(deb, folder):
    """The package file `deb` with the version BEFORE; returns its path in `folder`."""
    tree = folder / "tree"
    subprocess.run(["dpkg-deb", "-R", deb, tree], check=True)
    control = tree / "DEBIAN/control"
    version = re.search(r"^Version: (.*)$", control.read_text(), re.M).group(1)
    control.write_text(control.read_text().replace(f"Version: {version}", f"Version: {BEFORE}")
                       .replace(f"(= {version})", f"(= {BEFORE})"))
    out = folder / pathlib.Path(deb).name.replace(version, BEFORE)
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, out], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["rm", "-r", tree], check=True)
    return out


class Story:
    """The steps, in order, on one board. Each is a check."""

    def __init__(self, board, verbose):
        self.board, self.verbose = board, verbose

    def shell(self, command, timeout=900, status=0):
        got, said = self.board.run(command, timeout)
        if self.verbose:
            print(textwrap.indent(f"$ {command.strip()}\n{said}", "    "), flush=True)
        expect(status is None or got == status, f"status {got} of: {command}\n{said}")
        return said

    def until(self, command, pattern, seconds=400):
        end = time.monotonic() + seconds
        while True:
            said = self.shell(command, status=None)
            if re.search(pattern, said, re.M):
                return said
            expect(time.monotonic() < end, f"after {seconds} s no {pattern!r} from {command}:\n{said}")
            time.sleep(2)

    def installed(self):
        """A clean board gets the packages of before; the daemon is up, the agent waits to be enrolled"""
        self.shell("mkdir -p /var/lib/lab && tar -xf /dev/disk/by-id/virtio-packages -C /var/lib/lab")
        self.clean = self.shell(STATE)
        expect("witnessd" not in self.clean, "the board is not clean")
        self.shell(f"cd /var/lib/lab && dpkg -i *_{BEFORE}_arm64.deb")
        expect(self.shell("dpkg-query -W -f '${Version}\\n' 'tiebreak-*'").split() == [BEFORE] * len(ALL),
               "these are not the packages of before")
        self.shell("systemctl is-active witnessd && systemctl is-enabled witnessd witness-agent")
        self.shell("systemctl is-active witness-agent", status=3)
        self.shell("systemctl is-failed witnessd witness-agent", status=1)
        self.shell("dpkg --verify tiebreak-node tiebreak-cli tiebreak-agent")

    def settings(self):
        """The settings file of the package is what holds without it"""
        # The board's own has the operator's words. Names and addresses in it are examples.
        self.shell("cd /var/lib/lab && dpkg-deb --fsys-tarfile $(ls tiebreak-node*_arm64.deb | grep -v before) | "
                   "tar -xO ./etc/tiebreak/witnessd.conf >witnessd.conf && "
                   "sed -i '/name =/d; /advertise =/d; s/^#\\([a-z]\\)/\\1/' witnessd.conf")
        given = self.shell("witnessd --config /var/lib/lab/witnessd.conf --check-config")
        kept = self.shell("witnessd --check-config --config /dev/null")
        expect(given == kept, f"{given}\nis not\n{kept}")
        expect(self.shell("grep -c '=' /var/lib/lab/witnessd.conf").strip() ==
               str(sum(" = " in line and "advertise" not in line and "name =" not in line
                       for line in kept.splitlines())), "settings are missing in the file")

    def used(self):
        """The cluster of one board is made, has a site, and serves what existing runbooks call"""
        self.shell("witnessctl cluster init --name packages")
        self.shell("witnessctl site create london-1")
        self.shell("corosync-qnetd-certutil -i && corosync-qnetd-tool -s")
        self.shell("test -s /etc/corosync/qnetd/nssdb/qnetd-cacert.crt")
        self.shell("echo '# kept' >>/etc/tiebreak/witnessd.conf")
        mode = self.shell("stat -c '%a %U' /var/lib/tiebreak; find /var/lib/tiebreak /run/tiebreak -perm /o+w ! -type l")
        expect(mode.splitlines()[0] == "700 root" and len(mode.splitlines()) == 1, mode)

    def upgraded(self):
        """An upgrade restarts the daemon with all that it knew, and keeps the settings"""
        old = self.shell("systemctl show -P MainPID witnessd").strip()
        # Of a settings file that both have changed, the operator's stays: as unattended upgrades do it.
        self.shell("cd /var/lib/lab && dpkg --force-confold -i $(ls *_arm64.deb | grep -v before)")
        expect(BEFORE not in self.shell("dpkg-query -W -f '${Version}\\n' 'tiebreak-*'"), "the versions are the old ones")
        expect(self.shell("systemctl show -P MainPID witnessd").strip() != old, "witnessd was not restarted")
        self.until("witnessctl site list", "^london-1")
        self.until("witnessctl status", "State: *ok")
        self.shell("grep -q '^# kept$' /etc/tiebreak/witnessd.conf")

    def machines(self):
        """What the unit forbids to the daemon lets a virtual machine with disk, card and vsock run"""
        said = self.shell(VM_UNIT, timeout=1500)
        for line in ("^GUEST-INIT", "^RESULT blk.write ok", "^RESULT net ok", "^Result=success"):
            expect(re.search(line, said, re.M), f"no {line}:\n{said}")

    def forbidden(self):
        """A process of the unit cannot write outside, load modules, open other devices or set the clock"""
        attempts = ("touch /etc/x", "touch /usr/x", "ls /root/.", "head -c 1 /dev/vda", "date -s 2030-01-01",
                    "modprobe loop", "echo 1 >/proc/sys/kernel/panic", "hostname x", "unshare -n true",
                    "mknod /dev/x b 254 0")
        script = "".join(f"if {attempt} >/dev/null 2>&1; then echo 'DONE {attempt}'; else echo NOT; fi\n"
                         for attempt in attempts)
        self.shell("sed -e '/^\\(Restart\\|RestartSec\\|ExecStartPre\\|StateDirectory.*\\|RuntimeDirectory.*\\)=/d' "
                   "-e 's|^Type=.*|Type=oneshot\\nStandardOutput=truncate:/var/lib/lab/tried|' "
                   "-e 's|^ExecStart=.*|ExecStart=/bin/sh /run/attempts|' "
                   "/lib/systemd/system/witnessd.service >/run/systemd/system/attempts.service\n"
                   f"cat >/run/attempts <<'END'\n{script}END\n"
                   "systemctl daemon-reload; systemctl start attempts.service")
        said = self.shell("cat /var/lib/lab/tried")
        expect("DONE" not in said and said.count("NOT") == len(attempts), said)

    def removed(self):
        """Removed, a board keeps who it is; installed again it goes on"""
        self.shell("dpkg -r tiebreak-node")
        self.shell("test ! -e /usr/sbin/witnessd && test -d /var/lib/tiebreak/raft && "
                   "test -e /etc/tiebreak/witnessd.conf && ! systemctl is-active -q witnessd")
        self.shell("cd /var/lib/lab && dpkg -i $(ls tiebreak-node*_arm64.deb | grep -v before)")
        self.until("witnessctl site list", "^london-1")

    def pulled(self):
        """After a pulled plug the board comes back with what it acknowledged"""
        self.shell("witnessctl site create paris-1")
        self.board.kill()
        self.board.start(self.disks)
        self.board.wait(1200)
        self.until("witnessctl site list", "^paris-1")

    def purged(self):
        """Purge leaves nothing: no file, user, group or unit that was not there before"""
        # As if the agent had been enrolled here.
        self.shell("cd /etc/tiebreak && touch witness-agent.conf agent.key agent.crt ca.crt && "
                   "mkdir -p /var/lib/witness-agent && touch /var/lib/witness-agent/state")
        self.shell(f"dpkg -P {' '.join(ALL)}")
        self.shell("rm -f /run/systemd/system/vm-check.service /run/systemd/system/attempts.service /run/attempts; "
                   "systemctl daemon-reload; systemctl reset-failed")
        left = set(self.shell(STATE).splitlines()) - set(self.clean.splitlines())
        gone = set(self.clean.splitlines()) - set(self.shell(STATE).splitlines())
        expect(not left and not gone, f"left: {sorted(left)}\ngone: {sorted(gone)}")
        expect("tiebreak" not in self.shell("dpkg-query -W -f '${Package}\\n'"), "dpkg still knows the packages")

    STEPS = (installed, used, upgraded, settings, machines, forbidden, removed, pulled, purged)

    def main(self, disks):
        self.disks = disks
        failed = 0
        for step in self.STEPS:
            try:
                failure = tried(step, self)
            except machine.Down as down:
                failure = str(down)
            print(f"{'FAILED' if failure else 'ok    '}  packages: {step.__doc__}", flush=True)
            if failure:
                print(textwrap.indent(failure, "        "))
                failed += 1
                break  # each step builds on those before
        return len(self.STEPS[:self.STEPS.index(step)]) + (not failed), failed


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bin", nargs="?", help="not used; tests/boards/run.sh gives it to all")
    parser.add_argument("--packages", default=str(ROOT / "build/packages"), help="the folder with the .debs")
    parser.add_argument("-v", "--verbose", action="store_true", help="show what is done on the board")
    options = parser.parse_args()
    debs = named(options.packages)
    if None in debs:
        sys.exit(f"no packages for arm64 in {options.packages}: build them first (make packages)")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="packages-") as folder:
        folder = pathlib.Path(folder)
        (folder / "spec.json").write_text(spec(
            "blk.write=/dev/vda,8,0,7", "net=eth0,10.77.0.200/24", "poweroff", name="check", kernel="/var/lib/lab/kernel",
            initrd="/var/lib/lab/initrd", disks=[{"path": "/var/lib/lab/disk.img"}], nics=[{"tap": "tap0"}], vsockCid=7))
        (folder / "kernel").symlink_to(guests.kernel())
        (folder / "initrd").symlink_to(guests.tiny())
        files = [*debs, *(renamed(deb, folder) for deb in before(debs))]
        with open(folder / "packages", "wb") as packed:
            machine.pack([*files, folder / "spec.json", (folder / "kernel"), folder / "initrd"], packed)
        board = machine.Machine(folder, 1)
        disks = [("packages", folder / "packages")]
        board.create(machine.clean_image(debs))
        board.start(disks)
        try:
            up = board.wait(1200)
            passed, failed = Story(board, options.verbose).main(disks)
        except machine.Down as down:
            sys.exit(f"FAILED  packages: {down}\n0 passed, 1 failed")
        finally:
            board.kill()
    print(f"{passed} passed, {failed} failed ({time.monotonic() - began:.0f} s, {up:.0f} of them the board's first start)")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
