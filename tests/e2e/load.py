"""A fleet of simulated sites (qnet_load) against boards of this machine, and what the boards do meanwhile.

Used by the benchmarks, where it may be ten thousand sites, and by test_storm.py with a few hundred."""

import json
import os
import queue
import resource
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(__file__))
from boards import Failure, die_with_parent
from enroll_all import request_for
from torture import UnixConnection

TICK = os.sysconf("SC_CLK_TCK")
PAGE_KIB = os.sysconf("SC_PAGESIZE") // 1024
FILES_OF_A_LOAD = 200  # open files of a load generator besides its connections


# --- processes, seen through /proc ---

def cpu_s(pids):
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def rss_kib(pids):
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/statm") as statm:
            total += int(statm.read().split()[1]) * PAGE_KIB
    return total


def run_quiet(command, text=None, **how):
    done = subprocess.run(command, input=text, capture_output=True, text=True, **how)
    if done.returncode != 0:
        raise Failure(f"{' '.join(command)}: {done.stderr.strip()}")


def raise_files_limit():
    """As far as it goes: root may go beyond what it was given."""
    for wanted in (65536, resource.getrlimit(resource.RLIMIT_NOFILE)[1]):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
            return
        except (ValueError, OSError):
            pass


# --- certificates ---

def enroll(cluster, names, workers=4):
    """A certificate of the cluster for each site; one key serves all, as the nodes are simulated. Returns
    the options for qnet_load."""
    directory = os.path.join(cluster.dir, "certificates")
    os.makedirs(directory, exist_ok=True)
    key = os.path.join(directory, "key.pem")
    if not os.path.exists(key):
        run_quiet(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key])
    ask = json.dumps({"csr": request_for("any", key)})
    left = queue.Queue()
    for name in names:
        left.put(name)
    trouble = []

    def work():
        connection = UnixConnection(cluster.any().socket, 30)
        while not trouble:
            try:
                name = left.get_nowait()
            except queue.Empty:
                return
            connection.request("POST", f"/v1/sites/{name}:enroll", ask, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            body = answer.read().decode()
            if answer.status not in (200, 201):
                trouble.append(f"enrolment of {name}: {answer.status} {body}")
                return
            with open(os.path.join(directory, f"{name}.crt"), "w") as file:
                file.write(json.loads(body)["certificate"])
            os.link(key, os.path.join(directory, f"{name}.key"))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if trouble:
        raise Failure(trouble[0])
    out = os.path.join(cluster.dir, "enrolled")
    if not os.path.exists(out):
        os.makedirs(out)
        cluster.any().ctl("site", "enroll", names[0], "--out", out)
    return ["--tls", "--ca", os.path.join(out, "qnetd-cacert.crt"), "--cert-dir", directory]


# --- the load ---

class Load:
    """One qnet_load that takes commands."""

    def __init__(self, binaries, addresses, sites, prefix, tls, heartbeat_ms=8000, options=(), names=None,
                 nicer=0):
        self.sites = sites
        naming = ["--names", names] if names else ["--prefix", prefix]
        self.process = subprocess.Popen(
            [os.path.join(binaries, "qnet_load"), "--address", ",".join(addresses), "--sites", str(sites),
             "--spread", "--interactive", "--heartbeat", str(heartbeat_ms)] + naming + list(tls) + list(options),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
            preexec_fn=lambda: (die_with_parent(), os.nice(nicer)))

    def tell(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        lines = []
        for line in self.process.stdout:
            if line.strip() == "ok":
                return lines
            if line.startswith("error: "):
                raise Failure(f"qnet_load: {command}: {line.strip()}")
            lines.append(line.rstrip())
        raise Failure("qnet_load ended")

    def settle(self, seconds):
        """The seconds it took until every site was whole or had one side, or None."""
        words = self.tell(f"wait {round(seconds)}")[0].split()
        return float(words[-2]) if words[0] == "settled" else None

    def times(self):
        """{"echo": {"count": N, "p50_us": N...}, ...}"""
        return {name: {key: int(value) for key, value in (part.split() for part in rest.split(", "))}
                for name, rest in (line.split(": ", 1) for line in self.tell("times"))}

    def numbers(self):
        line = self.tell("status")[0].removeprefix("status: ")
        return {part.rsplit(" ", 1)[0]: int(part.rsplit(" ", 1)[1]) for part in line.split(", ")}

    def trouble(self):
        return " ".join(self.tell("status")[1:])

    def end(self):
        self.process.stdin.close()
        self.process.stdout.read()
        self.process.wait(20)


class Fleet:
    """Sites over as many load generators as the limit of open files asks for."""

    def __init__(self, cluster, names, addresses, tls, heartbeat_ms=8000, options=(), nicer=0):
        room = (resource.getrlimit(resource.RLIMIT_NOFILE)[1] - FILES_OF_A_LOAD) // 2
        parts = -(-len(names) // room)
        self.sites = len(names)
        self.loads = []
        for part in range(parts):
            mine = names[part::parts]
            path = os.path.join(cluster.dir, f"names-{part}-{len(mine)}-{time.monotonic_ns()}")
            with open(path, "w") as file:
                file.write("\n".join(mine) + "\n")
            # Two generators do not draw the same random sleeps.
            self.loads.append(Load(cluster.bin, addresses, len(mine), "", tls, heartbeat_ms,
                                   list(options) + ["--seed", str(part + 1)], path, nicer))

    def each(self, call):
        """call(load) for all at the same time; their answers."""
        answers = [None] * len(self.loads)

        def one(index):
            try:
                answers[index] = call(self.loads[index])
            except Exception as error:  # told by the caller's thread
                answers[index] = error

        threads = [threading.Thread(target=one, args=(index,), daemon=True) for index in range(len(self.loads))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers

    def tell(self, command):
        self.each(lambda load: load.tell(command))

    def settle(self, seconds):
        answers = self.each(lambda load: load.settle(seconds))
        return None if None in answers else max(answers)

    def numbers(self):
        parts = self.each(lambda load: load.numbers())
        return {key: sum(part[key] for part in parts) for key in parts[0]}

    def times(self):
        """Of the parts, the worst of each percentile; counts are summed."""
        parts = self.each(lambda load: load.times())
        return {name: {key: (sum if key == "count" else max)(part[name][key] for part in parts)
                       for key in parts[0][name]} for name in parts[0]}

    def trouble(self):
        return "; ".join(load.trouble() for load in self.loads)

    def end(self):
        for load in self.loads:
            load.end()


# --- what others notice meanwhile ---

class Watch(threading.Thread):
    """Asks a board's API for the cluster's status all the time. `terms` are all that were seen: more than one
    means an election. `worst_s` is the longest answer, `failed` how many did not come."""

    def __init__(self, board, every=0.2):
        super().__init__(daemon=True)
        self.board = board
        self.every = every
        self.terms = set()
        self.asked = 0
        self.failed = []
        self.seconds = []
        self.over = threading.Event()

    def run(self):
        while not self.over.is_set():
            began = time.monotonic()
            self.asked += 1
            try:
                connection = UnixConnection(self.board.socket, 10)
                connection.request("GET", "/v1/cluster")
                answer = connection.getresponse()
                body = json.loads(answer.read())
                if answer.status != 200:
                    self.failed.append(f"{answer.status} {body.get('detail', '')}")
                else:
                    self.terms.add(int(body["status"]["term"]))
                connection.close()
            except (OSError, ValueError, KeyError) as error:
                self.failed.append(str(error))
            self.seconds.append(time.monotonic() - began)
            self.over.wait(self.every)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()

    def result(self):
        seconds = sorted(self.seconds)
        return {"asked": self.asked, "unanswered": len(self.failed), "elections": max(0, len(self.terms) - 1),
                "p50_s": seconds[len(seconds) // 2], "worst_s": seconds[-1]}


def sessions_of(board):
    """Site nodes attached to a board, by its own metrics."""
    code, text = board.get("/metrics")
    for line in text.splitlines():
        if line.startswith('tiebreak_sessions{state="open"}'):
            return int(float(line.split()[-1]))
    raise Failure(f"{board.name} tells no sessions: {code}")


def import_sites(cluster, names, board=1):
    """As an operator does it: one file, through one board. Returns the seconds."""
    path = os.path.join(cluster.dir, "sites.csv")
    with open(path, "w") as file:
        file.write("name,label.region,algorithm\n")
        for number, name in enumerate(names):
            file.write(f"{name},{('emea', 'amer', 'apac')[number % 3]},ffsplit\n")
    began = time.monotonic()
    cluster.board(board).ctl("site", "import", path, timeout=180)
    return time.monotonic() - began


def grants(board):
    """{site: [epoch, ring, nodes]} of every committed grant, as this board's own model has them."""
    found = {}
    page = ""
    connection = UnixConnection(board.socket, 30)
    while True:
        connection.request("GET", "/v1/sites?limit=1000" + (f"&page={page}" if page else ""))
        answer = json.loads(connection.getresponse().read())
        for site in answer.get("items", []):
            grant = site.get("status", {}).get("grant")
            if grant:
                found[site["name"]] = [int(grant["epoch"]), grant["ring"], grant["nodes"]]
        page = answer.get("nextPage", "")
        if not page:
            return found
