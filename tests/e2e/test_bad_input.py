#!/usr/bin/env python3
"""Bad input: each is refused with one clear error and the documented exit code, changes nothing, and
leaves a daemon that lives and serves."""

import contextlib
import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
import qnet_client as qnet
from boards import Failure, die_with_parent, main, wait_for
from qnet_client import QnetClient
from torture import UnixConnection

REFUSED, USAGE, UNREACHABLE, NOT_FOUND = 1, 2, 3, 4
GIB = 1 << 30


def the_model(board):
    """All that an operator could see changed: sites without their live status, and the events."""
    sites = board.json("site", "list")["items"]
    for site in sites:
        site.pop("status", None)
    return sites, board.json("event", "list", "--limit", "1000"), board.json("token", "list")


@contextlib.contextmanager
def nothing_changes(board):
    before = the_model(board)
    yield
    if the_model(board) != before:
        raise Failure("bad input has changed the model")
    if board.get("/readyz")[0] != 200:
        raise Failure("the board does not serve any more")


def expect(done, code, *words):
    """One error on standard error, with this exit code and these words."""
    text = done.stderr.strip()
    lines = [line for line in text.splitlines() if line != "witnessctl: nothing was sent"]
    what = " ".join(word[:80] for word in done.args[1:])
    if done.returncode != code:
        raise Failure(f"{what!r} ended with {done.returncode}, not {code}: {text[:500]}")
    if len(lines) != 1 or done.stdout:
        raise Failure(f"{what!r} should tell one error in one line: {text[:500]}")
    for word in words:
        if word not in text:
            raise Failure(f"{what!r} does not say {word!r}: {text[:500]}")


def refuse(board, code, words, *arguments, **how):
    expect(board.ctl(*arguments, check=False, **how), code, *words)


def make(cluster, name, data):
    path = os.path.join(cluster.dir, name)
    with open(path, "wb") as file:
        file.write(data)
    return path


def one_board(cluster):
    board = cluster.make(1).board(1)
    for name in ("alpha", "beta", "gamma"):
        board.ctl("site", "create", name)
    return board


# --- files ---

def files(cluster):
    board = one_board(cluster)
    name = b"x" * 10000
    cases = [
        ("twice.csv", b"name\none\ntwo\none\n", ["twice.csv:4:1: ", '"one" is already in line 2']),
        ("twice.json", b'[{"name":"one"},\n {"name":"one"}]', ["twice.json:2:2: ", "already in line 1"]),
        ("binary.csv", bytes(range(256)) * 40, ["binary.csv:1:1: ", "not a text file"]),
        ("binary.json", bytes(range(256)) * 40, ["binary.json:1:1: ", "not a JSON text"]),
        ("space.csv", b"name\nmy site\n", ["space.csv:2:1: name: ", "a space", "use 1 to 64 letters"]),
        ("newline.csv", b'name\n"my\nsite"\n', ["newline.csv:2:1: name: ", "0x0a", "use 1 to 64"]),
        ("long.csv", b"name\n" + name + b"\n", ["long.csv:2:1: ", "more than 4096 bytes"]),
        ("long.json", b'[{"name":"' + name + b'"}]', ["long.json:1:2: ", "longer than 64 bytes"]),
        ("field.json", b'[{"name":"one","colour":1}]', ["field.json:1:", 'unknown field "colour"', "allowed are"]),
        ("type.json", b'[{"name":5}]', ["type.json:1:", "name: must be a string"]),
        ("wrong.csv", b"name,algorithm\none,ffsplt\n", ["wrong.csv:2:5: ", 'did you mean "ffsplit"?']),
        ("column.csv", b"name,algorythm\none,lms\n", ["column.csv:1:6: ", "algorithm"]),
        ("empty.csv", b"", ["empty.csv: no site in it"]),
    ]
    with nothing_changes(board):
        for file, data, words in cases:
            refuse(board, USAGE, words, "site", "import", make(cluster, file, data))
        refuse(board, USAGE, [cluster.dir, "directory"], "site", "import", cluster.dir)
        refuse(board, USAGE, ["cannot open", "nowhere.csv"], "site", "import", "nowhere.csv")


def a_gibibyte(cluster):
    """Sparse, and real text without an end: refused soon, in little memory."""
    board = one_board(cluster)

    def limited(*arguments, stdin):
        began = time.monotonic()
        done = subprocess.run([os.path.join(cluster.bin, "witnessctl"), "--socket", board.socket, *arguments],
                              stdin=stdin, capture_output=True, text=True, timeout=30,
                              preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (GIB // 2, GIB // 2)))
        expect(done, USAGE)
        return done.stderr, time.monotonic() - began

    with nothing_changes(board):
        for name in ("sites.csv", "sites.json"):
            path = make(cluster, name, b"")
            os.truncate(path, GIB)
            text, seconds = limited("site", "import", path, stdin=subprocess.DEVNULL)
            if path not in text or "larger than" not in text or seconds > 5:
                raise Failure(f"a file of 1 GiB: {text}, after {seconds:.1f} s")
        for kind, line in (("csv", ""), ("json", " " * 4000), ("csv", "a" * 4000)):
            endless = subprocess.Popen(["yes", line], stdout=subprocess.PIPE, preexec_fn=die_with_parent)
            limited("site", "import", "-", "--format", kind, stdin=endless.stdout)
            endless.stdout.close()
            endless.wait()


# --- the command line and the API ---

def commands(cluster):
    board = one_board(cluster)
    cases = [
        # names
        (USAGE, ["name: ", "a space"], "site", "create", "my site"),
        (USAGE, ["name: ", "0x0a"], "site", "create", "my\nsite"),
        (USAGE, ["longer than 64 bytes"], "site", "create", "x" * 10000),
        (NOT_FOUND, ["there is no site", "site list"], "site", "show", "my\nsite"),
        (USAGE, ["NAME", "longer than"], "site", "show", "x" * 10000),
        (USAGE, ["NAME", "empty"], "site", "show", ""),
        (USAGE, ["NAME"], "site", "show", ".."),
        (USAGE, ["NAME"], "site", "delete", "alpha", "."),
        (USAGE, ["NODE", "empty"], "node", "show", ""),
        (REFUSED, ["alpha", "exists"], "site", "create", "alpha"),
        # flags and words
        (USAGE, ["did you mean --label?"], "site", "list", "--lable", "a=b"),
        (USAGE, ['did you mean "site list"?'], "site", "lst"),
        (USAGE, ['did you mean "split"?'], "site", "list", "--state", "splt"),
        (USAGE, ["one argument too many"], "site", "list", "alpha"),
        (REFUSED, ["label selector", "write region=emea"], "site", "list", "-l", "="),
        (REFUSED, ["longer than 2048 bytes"], "site", "list", "--prefix", "x" * 5000),
        # sites
        (USAGE, ["tie-breaker", "allowed are"], "site", "set", "alpha", "--tie-breaker", "-1"),
        (REFUSED, ["policy.heartbeatMinMs", "use 1000 to 120000"], "site", "set", "alpha", "--heartbeat-min", "99h"),
        (REFUSED, ["revision is"], "site", "set", "alpha", "-l", "a=b", "--if-revision", "999"),
        (REFUSED, ["csr: ", "PKCS#10 as PEM or DER"], "site", "enroll", "alpha", "--csr", "/bin/true"),
        (NOT_FOUND, ["nosuch"], "site", "delete", "nosuch"),
        # tokens
        (USAGE, ["--role", "none of"], "token", "create", "--role", "king"),
        (USAGE, ["--ttl", "write it with a unit"], "token", "create", "--role", "node", "--ttl", "5"),
        (REFUSED, ["site: ", "no such site"], "token", "create", "--role", "site", "--site", "nosuch"),
        (NOT_FOUND, ["token list"], "token", "revoke", "zz"),
        # cluster and boards
        (REFUSED, ["already in a cluster"], "cluster", "init"),
        (NOT_FOUND, ["node list"], "cluster", "transfer", "nobody"),
        (REFUSED, ["last board"], "cluster", "remove", "board1", "--yes"),
        (USAGE, ["none of on, off"], "cluster", "set", "--auto-register", "maybe"),
        # events and certificates
        (USAGE, ["--limit"], "event", "list", "--limit", "5000"),
        (USAGE, ["--after"], "event", "list", "--after", "-1"),
        (NOT_FOUND, ["cert list"], "cert", "revoke", "0" * 32, "--yes"),
        (REFUSED, ["csr: ", "PKCS#10 as PEM or DER"], "cert", "create", "me", "--role", "viewer", "--csr", "/bin/true"),
    ]
    with nothing_changes(board):
        for code, words, *arguments in cases:
            refuse(board, code, words, *arguments)
    missing = board.ctl("--server", "https://127.0.0.1:1", "--ca", "/bin/true", "site", "list", check=False)
    if missing.returncode != USAGE:
        raise Failure(f"a CA that is none: {missing.returncode} {missing.stderr}")
    stranger = cluster.board(2).start()
    done = stranger.ctl("cluster", "join", "nowhere.invalid", "--token", cluster.token(board), check=False)
    expect(done, done.returncode or USAGE, "nowhere.invalid")
    done = stranger.ctl("site", "list", check=False)
    expect(done, done.returncode or USAGE, "cluster")


def api(cluster):
    board = one_board(cluster)

    def ask(method, path, body=None, **headers):
        connection = UnixConnection(board.socket, 10)
        connection.request(method, path, body, {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())

    def refused(status, words, *request, **headers):
        got, problem = ask(*request, **headers)
        text = json.dumps(problem)
        if got != status or any(word not in text for word in words):
            raise Failure(f"{request[:2]}: {got} {text[:400]}, expected {status} {words}")

    page = ask("GET", "/v1/sites?limit=1")[1]["nextPage"]
    stranger = cluster.board(9).start()
    stranger.ctl("cluster", "init", "--name", "other")
    stranger.ctl("site", "create", "alpha")
    stranger.ctl("site", "create", "beta")
    foreign = json.loads(stranger.get("/v1/sites?limit=1")[1])["nextPage"]
    with nothing_changes(board):
        refused(422, ["colour", "allowed are"], "POST", "/v1/sites", '{"name":"one","colour":1}')
        refused(422, ["name", "must be a string"], "POST", "/v1/sites", '{"name":[]}')
        refused(422, ["policy.heartbeatMinMs"], "POST", "/v1/sites", '{"name":"one","policy":{"heartbeatMinMs":true}}')
        refused(400, ["line", "column"], "POST", "/v1/sites", '{"name":')
        refused(400, [], "POST", "/v1/sites", '{"name":"one"}' + "[" * 100000)
        refused(422, ["name"], "POST", "/v1/sites", '{"name":"' + "x" * 10000 + '"}')
        refused(400, ["page", "belongs to another query or cluster"], "GET", f"/v1/sites?limit=1&page={foreign}")
        refused(400, ["page", "belongs to another query"], "GET", f"/v1/sites?limit=1&prefix=a&page={page}")
        refused(400, ["page"], "GET", "/v1/sites?page=nonsense")
        refused(400, ["limit"], "GET", "/v1/sites?limit=-1")
        refused(400, ["lable", "label"], "GET", "/v1/sites?lable=a%3Db")
        refused(405, [], "PUT", "/v1/sites", "{}")
        refused(404, [], "GET", "/v1/../etc/passwd")
        refused(413, [], "POST", "/v1/sites", None, **{"Content-Length": str(GIB)})


# --- the site door ---

def certificate(cluster, board, site):
    """Certificate and key files of a site, signed by the cluster; its serial number."""
    key, crt = os.path.join(cluster.dir, f"{site}.key"), os.path.join(cluster.dir, f"{site}.crt")
    csr = os.path.join(cluster.dir, f"{site}.csr")
    subprocess.run(["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-keyout", key, "-subj", f"/CN={site}", "-out", csr], check=True, capture_output=True)
    with open(csr) as file:
        request = json.dumps({"csr": file.read()})
    connection = UnixConnection(board.socket, 10)
    connection.request("POST", f"/v1/sites/{site}:enroll", request, {"Content-Type": "application/json"})
    answer = json.loads(connection.getresponse().read())
    with open(crt, "w") as file:
        file.write(answer["certificate"])
    ca = make(cluster, "sites-ca.crt", answer["caCertificate"].encode())
    return ca, crt, key, answer["serial"]


def text_fields(message):
    """Text fields of a protobuf message by number."""
    fields, at = {}, 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        tag, size = varint(), varint()
        fields[tag >> 3] = message[at:at + size]
        at += size
    return fields


def expired_certificate(cluster, board, site):
    """Made with the cluster's own key, as no command makes one that is over already."""
    with contextlib.closing(sqlite3.connect(f"file:{board.run}/model.db?mode=ro", uri=True)) as model:
        secrets = text_fields(model.execute("SELECT body FROM secrets").fetchone()[0])
    ca, ca_key = make(cluster, "ca.crt", secrets[3]), make(cluster, "ca.key", secrets[4])
    crt = os.path.join(cluster.dir, "expired.crt")
    extension = make(cluster, "extension", b"extendedKeyUsage=clientAuth\n")
    subprocess.run(["openssl", "x509", "-req", "-in", os.path.join(cluster.dir, f"{site}.csr"), "-CA", ca, "-CAkey",
                    ca_key, "-days", "-1", "-set_serial", "77", "-extfile", extension, "-out", crt],
                   check=True, capture_output=True)
    return crt


def logged(board, *words):
    def look():
        with open(board.log, errors="replace") as log:
            return any(all(word in line for word in words) for line in log)
    wait_for(5, f"{board.name} does not log {words}: {board.last_log()}", look)


def site_door(cluster):
    board = one_board(cluster)
    ca, crt, key, serial = certificate(cluster, board, "alpha")
    _, beta_crt, beta_key, beta_serial = certificate(cluster, board, "beta")
    wait_for(10, "the board does not take sites", lambda: board.local()["state"] == "serving")
    expired = expired_certificate(cluster, board, "alpha")
    board.ctl("cert", "revoke", beta_serial, "--yes")
    good = attached(board, b"alpha", 1, ca, crt, key)

    def turned_away(site, certificates, why):
        client = QnetClient(board.sites_address)
        client.preinit(site)
        try:
            client.starttls(ca, *certificates)
            over = client.init(2) != 0 or client.closed()
        except (OSError, EOFError):
            over = True
        client.close()
        if not over:
            raise Failure(f"let in, though: {why}")
        logged(board, f"site {site.decode()}, client 127.", why)

    with nothing_changes(board):
        turned_away(b"gamma", (crt, key), "the client certificate is of another site")
        turned_away(b"beta", (beta_crt, beta_key), "revoked")
        turned_away(b"alpha", (expired, key), "expired")
        turned_away(b"alpha", (), "certificate")
        # A certificate of a site that nobody created cannot be; without one, on a board without TLS:
        # see unknown_site.
        client = QnetClient(board.sites_address)
        client.preinit(b"alpha")
        client.starttls(ca, crt, key)
        if client.init(1) != qnet.DUPLICATE_NODE:
            raise Failure("a second node with id 1 was let in")
        logged(board, "site alpha, client 127.", "a node with this id is attached already")
        client.close()
        messages(board)
    good.send(qnet.message(8, (qnet.SEQ, qnet.u32(9))))
    if good.receive()[0] != 9:
        raise Failure("an innocent session suffered")
    good.close()


def attached(board, site, node, ca, crt, key):
    client = QnetClient(board.sites_address)
    client.preinit(site)
    client.starttls(ca, crt, key)
    if client.init(node) != 0:
        raise Failure(f"{site} was not let in: {board.last_log()}")
    return client


def messages(board):
    """Bytes that are no message, are too long, or end in the middle."""
    def client():
        return QnetClient(board.sites_address)

    c = client()
    c.send(qnet.u16(qnet.PREINIT) + qnet.u32(0xffffffff) + b"x" * 100000)
    if c.error() != qnet.TOO_LONG:
        raise Failure("a message of 4 GiB is not too long?")
    c.close()
    c = client()
    c.send(qnet.message(qnet.PREINIT, (qnet.CLUSTER_NAME, b"alpha"))[:-3])
    c.close()
    c = client()
    c.send(qnet.u16(qnet.PREINIT) + qnet.u32(6) + qnet.u16(qnet.CLUSTER_NAME) + qnet.u16(500) + b"al")
    if c.error() != qnet.DECODING:
        raise Failure("an option that runs past its message")
    c.close()
    for name in (b"x" * 10000, b"my\nsite", b"\xff\x00", b""):
        c = client()
        c.preinit(name)
        c.close()
    c = client()
    c.send(os.urandom(65536))
    c.close()
    c = client()
    c.send(b"GET / HTTP/1.1\r\n\r\n")
    c.close()


def unknown_site(cluster):
    board = cluster.board(1)
    board.options = ["--set", "sites.tls=off"]
    board = cluster.make(1).board(1)
    wait_for(10, "the board does not take sites", lambda: board.local()["state"] == "serving")
    with nothing_changes(board):
        client = QnetClient(board.sites_address)
        client.preinit(b"nowhere")
        if client.init(1) == 0:
            raise Failure("an unknown site was let in")
        client.close()
        logged(board, "site nowhere, client 127.", "witnessctl site create")


# --- starting ---

def refused_start(board, code, *words):
    """The board does not come up; the last line of its log says why."""
    board.start(wait=False)
    rc = board.process.wait(20)
    if rc != code:
        raise Failure(f"{board.name} ended with {rc}, not {code}: {board.last_log()}")
    last = board.last_log().splitlines()[-1]
    for word in words:
        if word not in last:
            raise Failure(f"{board.name} should say {word!r}: {board.last_log()}")


def starting(cluster):
    first = one_board(cluster)
    with nothing_changes(first):
        other = cluster.board(2)
        other.options = ["--listn", "x"]
        refused_start(other, USAGE, "did you mean --listen?")
        other.options = ["--set", "api.listn=x"]
        refused_start(other, REFUSED, "listn", "listen")
        other.options = ["--config", "/bin/true"]
        refused_start(other, REFUSED, "/bin/true")
        other.options = []
        # two daemons on one directory
        data, other.data = other.data, first.data
        refused_start(other, REFUSED, first.data, "in use by another witnessd", "--data-dir")
        other.data = data
        run, other.run = other.run, first.run
        refused_start(other, REFUSED, first.run, "in use by another witnessd", "--run-dir")
        other.run = run
        # too few open files, and nobody who may have more
        if os.geteuid() == 0:
            other.prefix = ["setpriv", "--bounding-set", "-sys_resource", "prlimit", "--nofile=270:270"]
            refused_start(other, REFUSED, "api.connections-max", "(RLIMIT_NOFILE) is 270", "LimitNOFILE=")
            other.prefix = []
        # a directory that is a file
        shutil.rmtree(other.data, ignore_errors=True)
        make(cluster, "board2/data", b"")
        refused_start(other, REFUSED, other.data, "--data-dir")
        os.unlink(other.data)


def port_in_use(cluster):
    first = one_board(cluster)
    with nothing_changes(first):
        other = cluster.board(2)
        other.address, kept = first.address, other.address
        refused_start(other, REFUSED, first.address, "in use", "--listen")
        other.address = kept
        other.sites_address = first.sites_address
        refused_start(other, REFUSED, first.sites_address, "in use", "--sites-listen")


def unwritable(cluster):
    if os.geteuid() != 0:
        return
    first = one_board(cluster)
    other = cluster.board(2)
    os.chmod(cluster.dir, 0o755)
    os.makedirs(other.data)
    other.prefix = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    with nothing_changes(first):
        refused_start(other, REFUSED, other.data, "Permission denied", "--data-dir")


def foreign_directory(cluster):
    """A log or an identity of another cluster, put into a board's directory."""
    first = one_board(cluster)
    other = cluster.board(2).start()
    other.ctl("cluster", "init", "--name", "other")
    other.ctl("site", "create", "theirs")
    other.stop()
    with nothing_changes(first):
        good = os.path.join(cluster.dir, "good")
        shutil.copytree(other.data, good)
        theirs = os.path.join(cluster.dir, "theirs")
        shutil.copytree(other.data, theirs)
        # Not while it runs, and of another board: copy what `first` has.
        for part in ("raft", "identity.json"):
            shutil.rmtree(other.data)
            shutil.copytree(good, other.data)
            source, target = os.path.join(first.data, part), os.path.join(other.data, part)
            if os.path.isdir(source):
                shutil.rmtree(target)
                shutil.copytree(source, target)
            else:
                shutil.copy(source, target)
            refused_start(other, REFUSED, other.data, "another cluster")
    shutil.rmtree(other.data)
    shutil.copytree(good, other.data)
    other.start()
    if [site["name"] for site in other.json("site", "list")["items"]] != ["theirs"]:
        raise Failure("the directory that was put back is not what it was")


# --- the clock ---

SHIM = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static long shift(void) /* CLOCK_SHIFT_S, and what the file CLOCK_SHIFT_FILE says at this moment */
{
	const char *text = getenv("CLOCK_SHIFT_S"), *path = getenv("CLOCK_SHIFT_FILE");
	char said[32] = "";
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	if (fd >= 0) {
		if (read(fd, said, sizeof(said) - 1) < 0) said[0] = 0;
		close(fd);
	}
	return (text ? atol(text) : 0) + atol(said);
}
int clock_gettime(clockid_t id, struct timespec *ret)
{
	int rv = (int)syscall(SYS_clock_gettime, id, ret);
	if (rv == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
		ret->tv_sec += shift();
	return rv;
}
time_t time(time_t *ret)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	if (ret) *ret = now.tv_sec;
	return now.tv_sec;
}
int gettimeofday(struct timeval *ret, void *zone)
{
	struct timespec now;
	(void)zone;
	clock_gettime(CLOCK_REALTIME, &now);
	ret->tv_sec = now.tv_sec;
	ret->tv_usec = now.tv_nsec / 1000;
	return 0;
}
"""
YEARS = 30 * 365 * 86400


def clock(cluster):
    """A board whose clock is 30 years off, as a board without a battery is at power-on, says so and
    serves all the same: it knows what time it was last. It makes no cluster."""
    shim = os.path.join(cluster.dir, "shim.so")
    source = make(cluster, "shim.c", SHIM.encode())
    subprocess.run(["cc", "-shared", "-fPIC", "-o", shim, source], check=True)

    def shifted(board, seconds):
        board.prefix = ["env", f"LD_PRELOAD={shim}", f"CLOCK_SHIFT_S={seconds}"] if seconds else []
        return board

    fresh = shifted(cluster.board(4), -YEARS).start()
    refuse(fresh, REFUSED, ["clock says", "timedatectl"], "cluster", "init")
    fresh.stop()
    cluster.make(3)
    first = cluster.board(1)
    first.ctl("site", "create", "alpha")
    ca, crt, key, _ = certificate(cluster, first, "alpha")
    third = cluster.board(3)
    for seconds in (-YEARS, YEARS):
        third.stop()
        shifted(third, seconds).start()
        with nothing_changes(first):
            logged(third, "clock says", "timedatectl")
            wait_for(15, f"board3 does not serve with a clock {seconds} s off: {third.last_log()}",
                     lambda: third.get("/readyz")[0] == 200)
            attached(third, b"alpha", 1, ca, crt, key).close()


if __name__ == "__main__":
    main([files, a_gibibyte, commands, api, site_door, unknown_site, starting, port_in_use, unwritable,
          foreign_directory, clock])
