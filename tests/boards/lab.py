"""lab.py: checks that run on emulated boards, many of them in one boot.

    lab = Lab("boot", guests=("kernel", "tiny", "talk"))

    @lab.check("one, two and four vCPUs come up", '''
        for n in 1 2 4; do witness-vm run /lab/spec.json vcpus=$n; done
    ''', files={"spec.json": spec("cpus", "poweroff", initrd="/guest/tiny")})
    def _(result):
        result.expect_status(0)
        for n, said in zip((1, 2, 4), result.words("cpus")):
            expect(said["online"] == str(n), f"{n} vCPUs, the guest sees {said}")

    lab.main()

A check is a shell script for the board (busybox sh; PATH has /bin/witness-vm) and a function that judges
what it printed. The script has a limit of its own; what it leaves running is killed. `variants` runs all
checks on each of several kinds of board. The script's own directory is /lab, where `files` are."""

import argparse
import concurrent.futures
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import textwrap
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
GICV2 = ()
GICV3 = ("--gic", "3", "--cpu", "cortex-a76")
ICOUNT = ("--icount",)
# What witnessd and witnessctl are linked with: CMake's target_link_libraries, as Debian's packages.
DAEMON_PACKAGES = ("libuv1", "libssl3", "libsqlite3-0", "libprotobuf-c1", "libjansson4", "libcurl4", "libsmartcols1",
                   "liblz4-1", "libmnl0")

# Runs one check: everything it starts is in one cgroup, which is killed at the limit and at the end.
DRIVER = r"""
check() {
	group=/sys/fs/cgroup/check$1
	mkdir $group
	echo "LAB-BEGIN $1"
	began=$(cut -d. -f1 /proc/uptime)
	(echo 0 >$group/cgroup.procs; cd /lab/$1; exec sh ./script) </dev/null 2>&1 &
	pid=$!
	(sleep $2; echo "LAB-LATE $1"; echo 1 >$group/cgroup.kill) &
	watch=$!
	wait $pid
	status=$?
	kill $watch 2>/dev/null
	echo 1 >$group/cgroup.kill
	while grep -q "populated 1" $group/cgroup.events; do sleep 0.1; done
	rmdir $group
	echo
	echo "LAB-END $1 $status $(($(cut -d. -f1 /proc/uptime) - began))"
}
"""
COMPLAINTS = "BUG:|WARNING:|Oops|Call trace|kvm.*(unhandled|error)"


class Failure(Exception):
    """A claim of a check is not so."""


def expect(claim, text):
    if not claim:
        raise Failure(text)


def command_line(*words, console="hvc0", more=""):
    """The command line of a guest kernel whose init is our guest program, doing `words`."""
    return " ".join(part for part in (f"console={console} quiet cryptomgr.notests=1", more, "--", *words) if part)


def spec(*words, **fields):
    """A spec for `witness-vm run` as JSON: Debian's kernel with the tiny initrd unless `fields` say
    otherwise; `words` are what the guest does."""
    fields.setdefault("name", "guest")
    fields.setdefault("kernel", "/guest/kernel")
    fields.setdefault("initrd", "/guest/tiny")
    fields.setdefault("sandbox", {"uid": 60001, "gid": 60001})  # checks are root, VMs never
    if "commandLine" not in fields:
        fields["commandLine"] = command_line(*words)
    return json.dumps(fields, indent=1)


class Result:
    """What a check's script printed, its status, and how long it took on the board."""

    def __init__(self, output, status, seconds, late):
        self.output, self.status, self.seconds, self.late = output, status, seconds, late
        self.lines = output.splitlines()

    def expect_status(self, status=0):
        expect(self.status == status, f"status {self.status}, not {status}")

    def expect_line(self, pattern):
        """The match of the first line where the regular expression is found."""
        for line in self.lines:
            match = re.search(pattern, line)
            if match:
                return match
        raise Failure(f"no line with {pattern!r}")

    def expect_no_line(self, pattern):
        for line in self.lines:
            expect(not re.search(pattern, line), f"a line with {pattern!r}: {line}")

    def expect_order(self, *patterns):
        """Lines with the patterns, one after the other; others may stand between."""
        left = iter(self.lines)
        for pattern in patterns:
            expect(any(re.search(pattern, line) for line in left), f"no line with {pattern!r} where it should be")

    def count(self, pattern):
        return sum(bool(re.search(pattern, line)) for line in self.lines)

    def words(self, name):
        """What each of the guest's words `name` said when it was done, as dictionaries. One that failed
        fails the check."""
        said = []
        for line in self.lines:
            match = re.search(rf"RESULT {re.escape(name)} (ok|failed)(.*)", line)
            if match:
                expect(match.group(1) == "ok", match.group(0))
                said.append(dict(pair.partition("=")[::2] for pair in match.group(2).split()))
        expect(said, f"the guest's word {name} was not done")
        return said

    def word(self, name):
        said = self.words(name)
        expect(len(said) == 1, f"the guest's word {name} was done {len(said)} times")
        return said[0]

    def objects(self):
        """The lines that are JSON objects (timer's)."""
        return [json.loads(line) for line in self.lines if line.startswith("{") and line.endswith("}")]


class Check:
    def __init__(self, title, script, judge, limit, files, variant):
        self.title, self.judge, self.limit, self.files, self.variant = title, judge, limit, files, variant
        self.script = textwrap.dedent(script)

    def write(self, folder):
        folder.mkdir()
        (folder / "script").write_text(self.script)
        for name, content in self.files.items():
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def board(*words, command=(), stdout=subprocess.PIPE):
    """A started `board` (subprocess.Popen); see `board --help` for `words`."""
    return subprocess.Popen([sys.executable, str(HERE / "board"), *map(str, words), "--", *command],
                            stdout=stdout, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)


def lan_port():
    """A port for --lan that no other test is likely to use."""
    return random.randint(20000, 60000)


class Lab:
    """Checks that share boards. `guests`, `packages`, `modules`, `options`: what `board` is to be given;
    `programs`: of ours, put into /bin; `variants`: name to more options, a board for each."""

    def __init__(self, name, guests=(), packages=(), modules=(), options=(), programs=("witness-vm",), variants=None,
                 slack=60):
        self.name, self.programs, self.slack = name, programs, slack
        self.variants = variants or {"board": ()}
        self.options = [*options]
        for option, values in (("--guest", guests), ("--package", packages), ("--module", modules)):
            self.options += [word for value in values for word in (option, value)]
        self.checks, self.local, self.bin = [], [], ""

    def check(self, title, script, limit=120, files=None, variant=None):
        """Decorates the function that judges the Result. `limit` is in seconds of the board's clock, and
        there to end what hangs: a busy machine is ten times slower than an idle one. `variant`: where
        it has nothing to say on the others."""
        def add(judge):
            self.checks.append(Check(title, script, judge, limit, files or {}, variant))
            return judge
        return add

    def here(self, title):
        """Decorates a check that runs on this machine and starts the boards it needs itself."""
        def add(judge):
            self.local.append((title, judge))
            return judge
        return add

    def _start(self, folder, checks, variant, programs):
        lab = folder / "lab"
        lab.mkdir()
        driver = [DRIVER]
        for number, check in enumerate(checks):
            check.write(lab / str(number))
            driver.append(f"check {number} {check.limit}")
        driver.append(f"echo LAB-KERNEL; dmesg | grep -i -E '{COMPLAINTS}'; exit 0")
        (lab / "driver").write_text("\n".join(driver) + "\n")
        limit = self.slack + sum(check.limit for check in checks)
        words = [*self.options, *self.variants[variant], "--dir", f"{lab}:/lab", "--limit", limit]
        words += [word for program in programs for word in ("--file", f"{program}:/bin/")]
        return board(*words, command=["sh", "/lab/driver"])

    def _run(self, variant, checks, programs, verbose):
        """(title and Failure or None of each check) of one board."""
        with tempfile.TemporaryDirectory(prefix="lab-") as folder:
            process = self._start(pathlib.Path(folder), checks, variant, programs)
            output = []
            for line in process.stdout:
                line = line.decode(errors="replace").rstrip("\r\n")
                output.append(line)
                if verbose:
                    print(f"{variant}: {line}", flush=True)
            status = process.wait()
        return self._judge(variant, checks, output, status)

    def _judge(self, variant, checks, output, status):
        results = parsed(output)
        verdicts = []
        for number, check in enumerate(checks):
            title = check.title if len(self.variants) == 1 else f"{check.title} ({variant})"
            result = results.get(number)
            if result is None:
                tail = "\n".join(output[-40:])
                verdicts.append((title, f"the board went away before this was done (status {status}):\n{tail}"))
                continue
            failure = f"not done within {check.limit} s" if result.late else tried(check.judge, result)
            if failure:
                failure += f"\nits output, status {result.status}:\n{result.output}"
            verdicts.append((title, failure))
        complaints = output[output.index("LAB-KERNEL") + 1:] if "LAB-KERNEL" in output else []
        if complaints:
            verdicts.append((f"the kernel of {variant} has nothing to complain of", "\n".join(complaints)))
        return verdicts

    def main(self):
        parser = argparse.ArgumentParser(description=f"Checks on emulated boards: {self.name}.")
        parser.add_argument("bin", nargs="?", default=str(ROOT / "build/arm64/bin"), help="our programs, for arm64")
        parser.add_argument("--only", default="", help="only checks with this in their title")
        parser.add_argument("--variant", choices=self.variants, help="only on this board")
        parser.add_argument("-v", "--verbose", action="store_true", help="show what the boards say, as they say it")
        options = parser.parse_args()
        self.bin = options.bin  # for checks that start boards themselves
        programs = [os.path.join(options.bin, program) for program in self.programs]
        for program in programs:
            if not os.path.exists(program):
                sys.exit(f"no {program}: build it first (make arm64)")
        checks = [check for check in self.checks if options.only in check.title]
        variants = [options.variant] if options.variant else list(self.variants) if checks else []
        began = time.monotonic()
        # A board is two threads of QEMU.
        with concurrent.futures.ThreadPoolExecutor(max(1, (os.cpu_count() or 2) // 2)) as pool:
            runs = [pool.submit(self._run, variant, mine, programs, options.verbose) for variant in variants
                    if (mine := [check for check in checks if check.variant in (None, variant)])]
            verdicts = [verdict for run in runs for verdict in run.result()]
        verdicts += [(title, tried(judge)) for title, judge in self.local if options.only in title]
        for title, failure in verdicts:
            print(f"{'FAILED' if failure else 'ok    '}  {self.name}: {title}")
            if failure:
                print(textwrap.indent(failure, "        "))
        failed = sum(bool(failure) for _, failure in verdicts)
        used = os.times()
        print(f"{len(verdicts) - failed} passed, {failed} failed ({time.monotonic() - began:.0f} s, "
              f"{used.children_user + used.children_system:.0f} of processor)")
        sys.exit(1 if failed or not verdicts else 0)


def tried(judge, *arguments):
    """None, or why the check failed."""
    try:
        judge(*arguments)
    except Failure as failure:
        return str(failure)
    except (LookupError, ValueError) as error:  # the output was not what the judge took for granted
        return repr(error)
    return None


def parsed(output):
    """The Results in a board's output, by the number of their check."""
    results, lines, late, number = {}, [], False, None
    for line in output:
        words = line.split()
        if words[:1] == ["LAB-BEGIN"]:
            number, lines, late = int(words[1]), [], False
        elif words[:1] == ["LAB-LATE"]:
            late = True
        elif words[:1] == ["LAB-END"] and number is not None:
            results[number] = Result("\n".join(lines).rstrip("\n"), int(words[2]), int(words[3]), late)
            number = None
        elif number is not None:
            lines.append(line)
    return results


def direct_boot(kernel, initrd, *words, memory_mib=192, limit=120):
    """What a guest says that is the machine itself, under the instruction clock: no host, no KVM."""
    command = ["qemu-system-aarch64", "-M", "virt,gic-version=2", "-cpu", "cortex-a72", "-m", str(memory_mib),
               "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio", "-icount", "shift=0,sleep=off",
               "-kernel", str(kernel), "-initrd", str(initrd), "-append", command_line(*words, console="ttyAMA0")]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=limit, check=False)
    return Result(done.stdout.decode(errors="replace").replace("\r", ""), done.returncode, 0, False)
