"""The board's watchdog, on machines that have one: QEMU's i6300esb, which resets the machine from outside, and
Linux's softdog. And what witnessd says of the board it is on."""

import tempfile
import time

from lab import DAEMON_PACKAGES, Lab, Result, board, expect

# The cloud kernel has no driver for it.
OPTIONS = ("--kernel", "full", "--module", "i6300esb", "--module", "softdog", "--qemu=-device i6300esb,id=dog")

LIBRARY = r"""
begin() {  # begin SETTING...: witnessd with these settings; its log is /log
	: >/log
	words=
	for setting; do words="$words --set $setting"; done
	witnessd --data-dir /data --run-dir /run/tiebreak --listen 127.0.0.1:7443 $words >/log 2>&1 3>&- &
	daemon=$!
}
saw() {  # saw WORDS SECONDS: waits for a line of the log
	for i in $(seq $((5 * $2))); do grep -q "$1" /log && return; sleep 0.2; done
	echo "SAW NO $1"; cat /log; exit 1
}
alive() { sleep "$1"; echo "ALIVE $2"; }
wctl() { witnessctl --socket /run/tiebreak/witnessd.sock "$@"; }
"""

lab = Lab("watchdog", packages=DAEMON_PACKAGES, options=OPTIONS, programs=("witnessd", "witnessctl"))


def script(text):
    return LIBRARY + text


# The first to name it is /dev/watchdog0: the machine's.
@lab.check("a fed watchdog lets the board live, and a clean stop disarms it", script(r"""
    begin node.watchdog=/dev/watchdog node.watchdog-timeout=25s
    saw watchdog-armed 60
    wctl cluster init --name boards
    alive 40 fed
    wctl node show board
    kill $daemon
    wait $daemon
    cat /log
    alive 35 disarmed
    cat /sys/class/watchdog/watchdog0/state
"""), limit=240)
def _(result):
    result.expect_status(0)
    result.expect_order("ALIVE fed", r"Board: +linux,dummy-virt", r"Processor: +2 x Cortex-A72 r0p3",
                        r"Hosting: +this board can host virtual machines \(GICv2\)", r"Watchdog: +armed, 25 s \(i6300ESB",
                        r"watchdog-armed: /dev/watchdog \(i6300ESB", "watchdog-disarmed", "ALIVE disarmed", "inactive")


@lab.check("killed and started again in time, nothing is reset", script(r"""
    begin node.watchdog=/dev/watchdog node.watchdog-timeout=30s
    saw watchdog-armed 60
    kill -9 $daemon
    wait $daemon
    cat /sys/class/watchdog/watchdog0/state
    begin node.watchdog=/dev/watchdog node.watchdog-timeout=30s
    saw watchdog-armed 15
    alive 40 again
    kill $daemon
    wait $daemon
"""), limit=240)
def _(result):
    result.expect_status(0)
    result.expect_order("^active", "ALIVE again")


@lab.check("one that is busy, or is none, is told and gone without", script(r"""
    exec 3>/dev/watchdog1
    begin node.watchdog=/dev/watchdog1
    saw watchdog-off 60
    saw started 60
    kill -0 $daemon && echo RUNS
    cat /log
    printf V >&3
    exec 3>&-
    saw watchdog-armed 30
    kill $daemon
    wait $daemon
    begin node.watchdog=/dev/null
    saw watchdog-off 60
    cat /log
    kill $daemon
    wait $daemon
"""), limit=240)
def _(result):
    result.expect_status(0)
    result.expect_order("another process feeds it already", "/dev/null: this is no watchdog")
    result.expect_line("RUNS")


# noboot: it says so in the kernel's log instead.
@lab.check("what cannot be disarmed is told, when it is armed and when it is left", script(r"""
    rmmod softdog && modprobe softdog nowayout=1 soft_noboot=1
    begin node.watchdog=/dev/watchdog1 node.watchdog-timeout=30s
    saw watchdog-armed 60
    kill $daemon
    wait $daemon
    cat /log /sys/class/watchdog/watchdog1/state
"""), limit=240)
def _(result):
    result.expect_status(0)
    result.expect_order("watchdog-armed.*has nowayout", r"watchdog-stays: .* is reset in 30 s", "^active")


def reset(setting, end):
    """What a board says whose witnessd ends like this, until the board goes down; and QEMU's status."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/script"
        with open(path, "w") as file:
            file.write(script(f"""
                begin node.watchdog=/dev/watchdog node.watchdog-timeout=20s {setting}
                saw watchdog-armed 60
                alive 30 fed
                {end}
                alive 90 too-long
            """))
        words = [word for name in ("witnessd", "witnessctl") for word in ("--file", f"{lab.bin}/{name}:/bin/")]
        machine = board(*lab.options, *words, "--file", f"{path}:/script", "--limit", 280, command=["sh", "/script"])
        output = machine.communicate()[0].decode(errors="replace")
        return Result(output, machine.returncode, 0, False)


@lab.here("witnessd frozen by SIGSTOP: the board is reset")
def _():
    result = reset("", "kill -STOP $daemon; echo FROZEN")
    result.expect_order("ALIVE fed", "FROZEN", "board: went down before the command ended")
    result.expect_no_line("ALIVE too-long")
    expect(result.status == 125, f"status {result.status}, not 125 (the board went down)")


@lab.here("witnessd stopped, and the watchdog was to stay armed: the board is reset")
def _():
    result = reset("node.watchdog-keep=on", "kill $daemon; wait $daemon; cat /log")
    result.expect_order("ALIVE fed", "watchdog-stays", "board: went down before the command ended")
    result.expect_no_line("ALIVE too-long")


@lab.here("a Raspberry Pi 3 is told that it can be a witness, not a host")
def _():
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/script"
        with open(path, "w") as file:
            # It has no clock that runs without power.
            file.write(script(f"""
                date -s @{int(time.time())} >/dev/null
                begin node.log-level=info
                saw started 60
                wctl cluster init --name boards >/dev/null
                sleep 5
                wctl node show board
            """))
        packages = [word for name in DAEMON_PACKAGES for word in ("--package", name)]
        words = [word for name in ("witnessd", "witnessctl") for word in ("--file", f"{lab.bin}/{name}:/bin/")]
        machine = board("--machine", "pi3", *packages, *words, "--file", f"{path}:/script", "--limit", 200,
                        command=["sh", "/script"])
        result = Result(machine.communicate()[0].decode(errors="replace"), machine.returncode, 0, False)
    expect(result.status == 0, f"status {result.status}, not 0:\n{result.output}")
    result.expect_order("Board: +Raspberry Pi 3 Model B", "Processor: +Broadcom BCM2837: 4 x Cortex-A53",
                        r"Hosting: +this board can witness but not host virtual machines: its processor \(BCM2836/BCM2837")


if __name__ == "__main__":
    lab.main()
