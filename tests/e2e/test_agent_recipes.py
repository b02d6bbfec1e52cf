#!/usr/bin/env python3
"""The recipes of docs/recipes with the real programs: keepalived, a PostgreSQL primary with a standby,
and DRBD's fence-peer handler. Root only; packaging/dependencies names what must be installed.

    test_agent_recipes.py BIN [NAME...]"""

import glob
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from agents import holder, site_of_agents  # noqa: E402
from boards import Failure, main, wait_for  # noqa: E402
from lab import Space, run  # noqa: E402

RECIPES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../packaging/recipes")
ADDRESS = "10.97.0.100"
PG = max(glob.glob("/usr/lib/postgresql/*/bin/postgres"), default="").removesuffix("/postgres")


def expect(truth, what):
    if not truth:
        raise Failure(what)


def program(name):
    found = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    expect(found, f"{name} is not installed, so this recipe is not tested; run packaging/install-dependencies.sh")
    return found


# --- keepalived ---


class Keepalived:
    """The recipe's file and hooks in a name space, with what systemctl does written out."""

    def __init__(self, cluster, agent, space, interface):
        self.space = space
        with open(os.path.join(RECIPES, "keepalived.conf")) as file:
            text = file.read()
        text = text.replace("/usr/sbin/witness-agent check",
                            f"{cluster.bin}/witness-agent --config {agent.config} check")
        text = text.replace("eth0", interface).replace("node1", f"node{agent.number}").replace("10.1.0.100", ADDRESS)
        # The binaries of a build may lie where keepalived trusts nobody.
        text = text.replace("    enable_script_security\n", "")
        conf = os.path.join(agent.dir, "keepalived.conf")
        with open(conf, "w") as file:
            file.write(text)
        space.run("mount", "-t", "tmpfs", "keepalived", "/run")
        inside = " ".join(space.inside)
        pid = "/run/keepalived.pid"
        # Its own log would be the machine's.
        self.gain = f"{inside} {program('keepalived')} --vrrp --pid {pid} --no-syslog -f {conf}"
        self.loss = (f"{inside} sh -c 'test -e {pid} || exit 0; kill $(cat {pid}); "
                     f"while test -e {pid}; do sleep 0.05; done'")
        agent.configure(**{"on-gain": self.gain, "on-loss": self.loss, "lease": "10s", "stop-time": "4s"})
        cluster.cleanups.append(lambda: subprocess.run(self.loss, shell=True, timeout=20))

    def has(self):
        return ADDRESS in self.space.run("ip", "-o", "addr")


def test_keepalived(cluster):
    """The address is where the lease is, gone before another node has it, and nowhere without one."""
    program("keepalived")
    cluster.make(1)
    agents = site_of_agents(cluster)
    spaces = {agent: Space(f"k{agent.number}") for agent in agents}
    for space in spaces.values():
        cluster.cleanups.append(space.close)
    a, b = agents
    run([*spaces[a].network, "ip", "link", "add", "v1", "type", "veth", "peer", "name", "v2", "netns",
         f"/proc/{spaces[b].holder.pid}/ns/net"])
    daemons = {}
    for agent, link in ((a, "v1"), (b, "v2")):
        spaces[agent].run("ip", "addr", "add", f"10.97.0.{agent.number}/24", "dev", link)
        spaces[agent].run("ip", "link", "set", link, "up")
        daemons[agent] = Keepalived(cluster, agent, spaces[agent], link)

    def moved(old, new):
        expect(not (old.holds() and new.holds()), "both hold the lease")
        before = daemons[old].has()
        # Whoever holds the lease has the address soon; whoever held it has none by then.
        expect(not (new.holds() and daemons[old].has()), "the old holder keeps the address")
        return daemons[new].has() and not before

    a.start(), b.start()
    first = holder(agents)
    other = b if first is a else a
    wait_for(20, "the holder does not get the address", daemons[first].has)
    expect(not daemons[other].has(), "both have the address")
    first.command("release")
    wait_for(20, "the address does not move", lambda: moved(first, other))
    # Without a network it goes before the lease ends.
    first.command("acquire")
    other.cut()
    wait_for(30, "the address does not move from a node without a network", lambda: moved(other, first))
    first.command("release")
    wait_for(20, "the address stays without a lease", lambda: not daemons[first].has())


# --- PostgreSQL ---


class Postgres:
    """One server, run by the recipe's script as its owner."""

    def __init__(self, cluster, number):
        self.cluster = cluster
        self.number = number
        self.port = 23000 + os.getpid() % 5000 * 2 + number
        self.data = os.path.join(cluster.dir, f"pg{number}")
        self.environment = {"PGDATA": self.data, "PGBIN": PG, "PGPORT": str(self.port), "PGSOCKET": cluster.dir}

    def do(self, program, *arguments, check=True):
        done = subprocess.run(["runuser", "-u", "postgres", "--", os.path.join(PG, program), *arguments],
                              capture_output=True, text=True, timeout=60, cwd="/")
        if check and done.returncode != 0:
            raise Failure(f"{program} of server {self.number}: {done.stderr.strip()[-400:]}")
        return done

    def configure(self, peer, sync):
        with open(os.path.join(self.data, "postgresql.auto.conf"), "a") as file:
            file.write(f"port = {self.port}\nlisten_addresses = ''\nunix_socket_directories = '{self.cluster.dir}'\n"
                       f"primary_conninfo = 'host={self.cluster.dir} port={peer.port} user=postgres'\n"
                       f"synchronous_standby_names = '{sync}'\nfsync = off\nwal_receiver_timeout = 2s\n"
                       "max_connections = 10\nshared_buffers = 16MB\nwal_retrieve_retry_interval = 200ms\n")

    def start(self):
        self.do("pg_ctl", "start", "-D", self.data, "-w", "-l", os.path.join(self.data, "server.log"))

    def stop(self):
        self.do("pg_ctl", "stop", "-D", self.data, "-m", "immediate", check=False)

    def sql(self, text):
        done = self.do("psql", "-XAtq", "-h", self.cluster.dir, "-p", str(self.port), "-d", "postgres", "-c", text,
                       check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    def writable(self):
        return self.sql("INSERT INTO t SELECT 0 WHERE false; SELECT pg_is_in_recovery()") == "f"


def postgres_pair(cluster):
    os.chmod(cluster.dir, 0o777)
    one, two = Postgres(cluster, 1), Postgres(cluster, 2)
    one.do("initdb", "-D", one.data, "-A", "trust", "-N", "-E", "UTF8", "--locale=C")
    one.configure(two, "")
    one.start()
    for server in (one, two):
        cluster.cleanups.append(server.stop)
    one.sql("CREATE TABLE t (x int)")
    one.do("pg_basebackup", "-D", two.data, "-h", cluster.dir, "-p", str(one.port), "-R", "-c", "fast")
    two.configure(one, "")
    one.do("pg_ctl", "stop", "-D", one.data, "-m", "fast", "-w")
    # From here on whatever starts a server starts a standby.
    for server in (one, two):
        subprocess.run(["runuser", "-u", "postgres", "--", "touch", os.path.join(server.data, "standby.signal")],
                       check=True)
        server.start()
    return one, two


def test_postgresql(cluster):
    """One primary at any time; what was acknowledged by both is there after the move."""
    expect(PG, "PostgreSQL is not installed, so this recipe is not tested; run packaging/install-dependencies.sh")
    servers = postgres_pair(cluster)
    cluster.make(1)
    script = os.path.join(RECIPES, "witness-postgresql")
    agents = site_of_agents(cluster, policy=("--lease", "preferred:1"), lease="10s", **{"stop-time": "4s"})
    for agent, server in zip(agents, servers):
        words = " ".join(f"{key}={value}" for key, value in server.environment.items())
        agent.configure(**{"on-gain": f"{words} {script} gain", "on-loss": f"{words} {script} loss"})
    one, two = servers
    a, b = agents
    a.start(), b.start()
    wait_for(30, "node 1 does not become the primary", one.writable)
    expect(not two.writable(), "both are primaries")
    expect(one.sql("ALTER SYSTEM SET synchronous_standby_names = '*'") is not None and
           one.sql("SELECT pg_reload_conf()") == "t", "no synchronous standby")
    wait_for(20, "the standby does not follow", lambda: one.sql(
        "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") == "1")
    expect(one.sql("INSERT INTO t VALUES (42) RETURNING x") == "42", "the primary takes no write")

    both = []

    def moved():
        first, second = one.writable(), two.writable()
        if first and second:
            both.append(True)
        return second

    a.cut()
    wait_for(40, "node 2 does not become the primary", moved)
    expect(not both, "both took writes at once")
    expect(not one.writable(), "the old primary still takes writes")
    expect(os.path.exists(os.path.join(one.data, "standby.signal")), "the old primary could start as one")
    expect(two.sql("SELECT x FROM t") == "42", "an acknowledged write is lost")
    expect(two.sql("INSERT INTO t VALUES (43) RETURNING x") == "43", "the new primary takes no write")


# --- DRBD ---


def test_drbd(cluster):
    """The handler as DRBD calls it: 4 only for a holder whose newer data is in the boards' log."""
    cluster.make(3)
    a, b = site_of_agents(cluster, policy=("--lease", "generation"), lease="6s")
    script = os.path.join(RECIPES, "witness-drbd-fence-peer")

    def handler(agent, *words):
        return subprocess.run([script, *words], capture_output=True, text=True, timeout=60, env={
            **os.environ, "DRBD_RESOURCE": "r0", "WITNESS_PATIENCE": "2",
            "WITNESS_AGENT": f"{cluster.bin}/witness-agent --config {agent.config}"}).returncode

    a.start(), b.start()
    first = holder([a, b])
    other = b if first is a else a
    expect(handler(other) == 1, "a node without the lease may fence")
    expect(handler(first) == 4, "the holder's handler does not answer 4")
    # Whatever dies now, the other one's data is known to be older.
    cluster.leader().kill()
    first.kill()
    board = cluster.any()
    wait_for(30, "the old data is not refused", lambda: "older than generation 1" in board.json(
        "site", "show", "shop")["status"]["reason"])
    expect(not other.holds(), "old data became the primary")
    # In sync again, it may.
    expect(handler(other, "resynced") == 0, "the resync was not noted")
    wait_for(20, "a node in sync does not get the lease", other.holds)
    # No answer of the boards: the writes wait.
    other.cut()
    expect(handler(other) == 1, "fenced without the boards")
    other.cut(False)
    # Another policy does not keep generations.
    wait_for(20, "it does not come back", lambda: other.status()["connected"] == "yes")
    board.ctl("site", "set", "shop", "--lease", "any")
    wait_for(20, "no lease", other.holds)
    expect(handler(other) == 1, "fenced with a policy that keeps no generation")


if __name__ == "__main__":
    main([test_keepalived, test_postgresql, test_drbd])
