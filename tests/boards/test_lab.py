"""The laboratory itself: checks are kept apart, limits hold, KVM is there, and QEMU runs a guest on it."""

import os
import tempfile

from lab import GICV2, GICV3, Lab, board, command_line, expect, lan_port

lab = Lab("lab", guests=("kernel", "tiny", "bare", "talk"), packages=("qemu-system-arm",), programs=(),
          variants={"GICv2": GICV2, "GICv3": GICV3})

QEMU = "qemu-system-aarch64 -M virt,gic-version=host -accel kvm -cpu host -m 192 -nodefaults -display none " \
       "-serial stdio -no-reboot"


@lab.check("a script's output and status are its own", "echo one; echo two >&2; ls; cat file; exit 3",
           files={"file": "kept\n"})
def _(result):
    expect(result.lines[:2] == ["one", "two"], "both outputs")
    result.expect_order("file.*script", "kept")
    result.expect_status(3)


@lab.check("what a script leaves running is gone", """
    (while :; do sleep 1; done) &
    echo $! >/tmp/left
    setsid sleep 1000 &
""")
def _(result):
    result.expect_status(0)


@lab.check("and is seen to be gone", "! kill -0 $(cat /tmp/left) && ! ps -o args | grep -q '[s]leep 1000'")
def _(result):
    result.expect_status(0)


@lab.check("KVM works: the bare guest says its line and switches off",
           f"ls -l /dev/kvm; {QEMU} -kernel /guest/bare -append off")
def _(result):
    result.expect_line(r"^BARE off counter=\d+ hz=\d+$")
    result.expect_status(0)


@lab.check("Debian's kernel runs nested, and its console works both ways", f"""
    talk {QEMU} -smp 2 -kernel /guest/kernel -initrd /guest/tiny -append '{command_line("cpus", console="ttyAMA0")}' <<END
    < GUEST-READY
    > echo=hello
    < RESULT echo
    > poweroff
    END
""")
def _(result):
    result.expect_order("^GUEST-INIT 6", "^RESULT cpus", "^GUEST-READY", "^GUEST-poweroff")
    expect(result.word("cpus")["online"] == "2", "two vCPUs")
    expect(result.word("echo")["text"] == "hello", "the console's input")
    result.expect_status(0)


@lab.here("two boards on one LAN reach each other")
def _():
    port = lan_port()
    answering = board("--lan", f"{port}:1:10.9.0.1/24", "--limit", 60, command=["sleep", "1000"])
    asking = board("--lan", f"{port}:2:10.9.0.2/24", "--limit", 60,
                   command=["sh", "-c", "until ping -c 1 -W 1 10.9.0.1; do sleep 1; done"])
    said = asking.communicate()[0].decode()
    answering.terminate()
    answering.wait()
    expect(asking.returncode == 0 and "64 bytes from 10.9.0.1" in said, said)


@lab.here("a board's files come back, and its time is limited")
def _():
    with tempfile.TemporaryDirectory() as out:
        done = board("--out", out, command=["sh", "-c", "mkdir /out/a; echo kept >/out/a/b"])
        said = done.communicate()[0].decode()
        expect(done.returncode == 0 and open(os.path.join(out, "a/b")).read() == "kept\n", said)
    late = board("--limit", 8, command=["sleep", "1000"])
    said = late.communicate()[0].decode()
    expect(late.returncode == 124 and "stopped after 8 s" in said, said)
    dead = board(command=["sh", "-c", "echo c >/proc/sysrq-trigger; sleep 100"])
    said = dead.communicate()[0].decode()
    expect(dead.returncode == 125 and "went down" in said, said)


if __name__ == "__main__":
    lab.main()
