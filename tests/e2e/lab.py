"""Real corosync 3 and corosync-qdevice nodes on this machine, in network name spaces.

    hub:  bridge clu      the ring of the site          n1 n2
          bridge qn       the way to the witness        n1 n2 b1 b2 b3
          bridge pn       between the boards            b1 b2 b3

Each node has its own network, mounts and host name: /run, /dev/shm, /etc/corosync,
/var/lib/corosync, /var/log and /etc/hosts are its own, so that the machine's own corosync, if there
is one, is neither seen nor touched. A name space is held by a sleeping process that dies with
this one, and with it go its links and mounts: nothing has a name outside, nothing can be left behind.
A link is cut by taking its port off the bridge, as at a switch further away: no loss of carrier.

Root only. Processes are ended by their own pid."""

import datetime
import os
import re
import subprocess

import quorum_log
from boards import Failure, die_with_parent, wait_for

PORT = 5403
RING, WITNESS, PEERS = "10.91.1", "10.91.2", "10.91.3"
NSSDB = "/etc/corosync/qdevice/net/nssdb"
PROGRAMS = ("ip", "unshare", "nsenter", "corosync", "corosync-qdevice", "corosync-quorumtool",
            "corosync-qdevice-net-certutil", "certutil", "ss")
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"

CONF = """
totem {{
  version: 2
  cluster_name: {cluster}
  transport: knet
  token: {token}
  crypto_cipher: none
  crypto_hash: none
}}
logging {{
  to_stderr: yes
  to_syslog: no
  to_logfile: no
  timestamp: hires
  logger_subsys {{
    subsys: QDEVICE
    debug: on
  }}
}}
quorum {{
  provider: corosync_votequorum
  device {{
    model: net
    {votes}
    timeout: {timeout}
    sync_timeout: 30000
    net {{
      host: witness
      algorithm: {algorithm}
      tls: required
      tie_breaker: lowest
    }}
  }}
}}
nodelist {{
{nodes}
}}
"""


def run(command, **environment):
    """A command that has to succeed: what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60,
                          env={**os.environ, "PATH": PATH, **environment})
    if done.returncode != 0:
        raise Failure(f"{' '.join(command)} ended with {done.returncode}: "
                      f"{(done.stderr.strip() or done.stdout.strip())[-500:]}")
    return done.stdout


class Space:
    """Name spaces of their own for the network, the mounts and the host's name."""

    def __init__(self, name):
        self.name = name
        self.holder = subprocess.Popen(["unshare", "--net", "--mount", "--uts", "--propagation", "private",
                                        "sleep", "infinity"], stdin=subprocess.DEVNULL,
                                       stderr=subprocess.PIPE, text=True, preexec_fn=die_with_parent)
        wait_for(10, f"no name spaces for {name}", self.made, every=0.01)
        self.network = ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net"]
        self.inside = ["nsenter", "--target", str(self.holder.pid), "--net", "--mount", "--uts"]
        self.run("hostname", name)
        self.run("ip", "link", "set", "lo", "up")

    def made(self):
        if self.holder.poll() is not None:
            raise Failure("this machine gives no name spaces, without which this test cannot be: "
                          + self.holder.stderr.read().strip())
        # `sleep` is there only when all of them are.
        with open(f"/proc/{self.holder.pid}/comm") as comm:
            return comm.read().strip() == "sleep"

    def run(self, *command):
        return run([*self.inside, *command])

    def start(self, log, *command):
        """A daemon inside, in the foreground. Its pid is its own: nsenter becomes it."""
        with open(log, "ab") as output:
            return subprocess.Popen([*self.inside, *command], stdin=subprocess.DEVNULL, stdout=output,
                                    stderr=output, preexec_fn=die_with_parent,
                                    env={**os.environ, "PATH": PATH})

    def close(self):
        self.holder.kill()
        self.holder.wait()
        self.holder.stderr.close()


OWN = ("/etc/corosync", "/var/lib/corosync", "/var/log", "/etc/hosts", "/run", "/dev/shm")  # of each node


class Host:
    """What of the machine must be the same after the test as before. Others may use it, too."""

    def __init__(self, directory):
        self.links = [name for name in re.findall(r"^\d+: ([^:@]+)", run(["ip", "-o", "link"]), re.M)
                      if name.split("-")[0] in ("clu", "qn", "pn")]
        with open("/proc/self/mountinfo") as mounts:
            self.mounts = sorted(target for target in (line.split()[4] for line in mounts)
                                 if target in OWN or target.startswith(directory))
        self.daemons = set(filter(None, map(self.corosync, filter(str.isdigit, os.listdir("/proc")))))
        self.files = [(path, os.stat(path).st_mtime_ns) for folder in
                      ("/etc/corosync", "/var/lib/corosync", "/var/log/corosync", "/run/corosync",
                       "/run/corosync-qdevice", "/run/corosync-qnetd")
                      for path, _, _ in os.walk(folder)]

    @staticmethod
    def corosync(pid):
        """(pid, name) of a corosync daemon in the machine's own network, else None."""
        try:
            with open(f"/proc/{pid}/comm") as comm:
                name = comm.read().strip()
            same = os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net")
        except OSError:
            return None
        return (int(pid), name) if name.startswith("corosync") and same else None

    def compare(self, after):
        if not self.daemons <= after.daemons:
            raise Failure(f"the machine's own daemons have ended: {self.daemons - after.daemons}")
        for what in ("links", "mounts", "files"):
            if getattr(self, what) != getattr(after, what):
                raise Failure(f"the machine's own {what} have changed: {getattr(self, what)} are now "
                              f"{getattr(after, what)}")


class Node:
    """One node of the site."""

    def __init__(self, lab, number):
        self.lab = lab
        self.number = number
        self.name = f"n{number}"
        self.space = Space(self.name)
        self.dir = os.path.join(lab.dir, self.name)
        self.log = os.path.join(self.dir, "corosync.log")
        self.qdevice_log = os.path.join(self.dir, "qdevice.log")
        self.daemons = []
        for folder in ("etc", "lib", "log"):
            os.makedirs(os.path.join(self.dir, folder))
        self.hosts([])
        mounts = [("etc", "/etc/corosync"), ("lib", "/var/lib/corosync"), ("log", "/var/log"),
                  ("hosts", "/etc/hosts")]
        for source, target in mounts:
            if not os.path.exists(target):
                raise Failure(f"{target} is not there: install corosync and corosync-qdevice")
            self.space.run("mount", "--bind", os.path.join(self.dir, source), target)
        for target in ("/run", "/dev/shm"):
            self.space.run("mount", "-t", "tmpfs", "lab", target)
        self.space.run("mkdir", "-p", "/run/corosync", "/run/corosync-qdevice", "/run/lock")

    def hosts(self, addresses):
        """The addresses of the name `witness`, which qdevice tries one after the other."""
        with open(os.path.join(self.dir, "hosts"), "w") as hosts:
            hosts.write("127.0.0.1 localhost\n" + "".join(f"{address} witness\n" for address in addresses))

    def configure(self, site, algorithm):
        nodes = "\n".join(f"  node {{\n    ring0_addr: {RING}.{node.number}\n    name: {node.name}\n"
                          f"    nodeid: {node.number}\n  }}" for node in self.lab.nodes)
        text = CONF.format(cluster=site, nodes=nodes, algorithm=algorithm, token=self.lab.token,
                           timeout=self.lab.timeout, votes="votes: 1" if algorithm == "ffsplit" else "")
        with open(os.path.join(self.dir, "etc", "corosync.conf"), "w") as conf:
            conf.write(text)

    def file(self, name):
        """The path of a file in the node's /etc/corosync, as seen from here."""
        return os.path.join(self.dir, "etc", name)

    def start(self):
        self.daemons = [self.space.start(self.log, "corosync", "-f")]
        wait_for(20, f"corosync of {self.name} does not answer", lambda: self.quorum() is not None)
        self.daemons.append(self.space.start(self.qdevice_log, "corosync-qdevice", "-f"))

    def stop_qdevice(self):
        qdevice = self.daemons.pop()
        qdevice.kill()
        qdevice.wait()

    def start_qdevice(self):
        self.daemons.append(self.space.start(self.qdevice_log, "corosync-qdevice", "-f"))

    def running(self):
        return bool(self.daemons)

    def kill(self):
        """Both daemons at once, as when the machine dies; but the kernel still says so to the peers."""
        for daemon in self.daemons:
            daemon.kill()
        for daemon in self.daemons:
            daemon.wait()
        if self.daemons:
            now = datetime.datetime.now()
            with open(self.log, "a") as log:
                log.write(f"{now:%b %d %H:%M:%S}.{now.microsecond // 1000:03} lab     [LAB   ] killed\n")
        self.daemons = []

    def check_alive(self):
        for daemon, name in zip(self.daemons, ("corosync", "corosync-qdevice")):
            if daemon.poll() is not None:
                raise Failure(f"{name} of {self.name} has ended with {daemon.returncode}")

    def quorum(self):
        """What corosync-quorumtool says, or None if corosync does not answer now."""
        try:
            done = subprocess.run([*self.space.inside, "corosync-quorumtool", "-s"], capture_output=True, text=True,
                                  timeout=2, env={**os.environ, "PATH": PATH})
        except subprocess.TimeoutExpired:
            return None
        votes = re.search(r"^Total votes:\s+(\d+)", done.stdout, re.M)
        if not votes:
            return None
        return {"votes": int(votes[1]), "quorate": "Quorate:          Yes" in done.stdout,
                "ring": re.search(r"^Ring ID:\s+(\S+)", done.stdout, re.M)[1],
                "nodes": int(re.search(r"^Nodes:\s+(\d+)", done.stdout, re.M)[1])}

    def state(self):
        return quorum_log.last_state(self.log)

    def settled(self, quorate):
        """Its users have been told, on its newest ring, whether it is quorate."""
        state = self.state()
        return state.quorate == quorate and state.formed == state.complete

    def witness(self):
        """The address that its qdevice is connected to, or None."""
        found = re.findall(rf"(\S+):{PORT}\s*$", self.space.run(
            "ss", "-Htn", "state", "established", "dport", "=", f":{PORT}"), re.M)
        return found[-1] if found else None

    def cut(self, *links):
        for link in links or ("clu", "qn"):
            self.lab.cut(self.name, link)

    def join(self, *links):
        for link in links or ("clu", "qn"):
            self.lab.join(self.name, link)

    def certutil(self, *arguments):
        self.space.run("corosync-qdevice-net-certutil", *arguments)

    def forget_certificates(self):
        self.space.run("rm", "-rf", "/etc/corosync/qdevice")

    def import_certificates(self, ca, pkcs12):
        """Files as a person has copied them into the node's /etc/corosync."""
        for source, name in ((ca, "qnetd-cacert.crt"), (pkcs12, "qdevice-net-node.p12")):
            with open(source, "rb") as data, open(self.file(name), "wb") as copy:
                copy.write(data.read())
        self.certutil("-i", "-c", "/etc/corosync/qnetd-cacert.crt")
        self.certutil("-m", "-c", "/etc/corosync/qdevice-net-node.p12")


class Lab:
    """The site and the wires. Use as a context manager; `directory` is the caller's."""

    def __init__(self, directory, nodes=2, boards=3, token=1000, timeout=5000):
        if os.geteuid() != 0:
            raise Failure("only root can make network name spaces: run this as root")
        for program in PROGRAMS:
            if not any(os.access(os.path.join(folder, program), os.X_OK) for folder in PATH.split(":") if folder):
                raise Failure(f"{program} is not installed (packaging/dependencies)")
        self.before = Host(directory)
        self.dir = directory
        self.token = token      # ms, corosync's time to notice a lost ring
        self.timeout = timeout  # ms, quorum.device.timeout; a heartbeat is 0.8 of it
        self.spaces = []
        self.nodes = []
        self.boards = {}
        self.sides = 0  # how many overlaps have been reported
        try:
            self.build(nodes, boards)
        except BaseException:
            self.close()
            raise

    def build(self, nodes, boards):
        self.hub = self.space("hub")
        for bridge in ("clu", "qn", "pn"):
            self.hub.run("ip", "link", "add", "name", bridge, "type", "bridge", "forward_delay", "0")
            self.hub.run("ip", "link", "set", bridge, "up")
        for number in range(1, nodes + 1):
            node = Node(self, number)
            self.spaces.append(node.space)
            self.nodes.append(node)
            self.wire(node.space, "clu", f"{RING}.{number}")
            self.wire(node.space, "qn", f"{WITNESS}.{number}")
        for number in range(1, boards + 1):
            space = self.boards[number] = self.space(f"b{number}")
            self.wire(space, "qn", f"{WITNESS}.{10 + number}")
            self.wire(space, "pn", f"{PEERS}.{10 + number}")

    def space(self, name):
        space = Space(name)
        self.spaces.append(space)
        return space

    def wire(self, space, bridge, address):
        port = f"{bridge}-{space.name}"
        self.hub.run("ip", "link", "add", "name", port, "type", "veth", "peer", "name", bridge,
                     "netns", str(space.holder.pid))
        self.hub.run("ip", "link", "set", port, "master", bridge, "up")
        space.run("ip", "addr", "add", f"{address}/24", "dev", bridge)
        space.run("ip", "link", "set", bridge, "up")

    def cut(self, name, link):
        self.hub.run("ip", "link", "set", f"{link}-{name}", "nomaster")

    def join(self, name, link):
        self.hub.run("ip", "link", "set", f"{link}-{name}", "master", link)

    def board_address(self, number):
        return f"{WITNESS}.{10 + number}"

    def node(self, number):
        return self.nodes[number - 1]

    def logs(self):
        return {node.name: node.log for node in self.nodes}

    def overlaps(self):
        """Those that were not reported before."""
        found = quorum_log.overlaps(self.logs())
        new = found[self.sides:]
        self.sides = len(found)
        return new

    def close(self):
        for node in self.nodes:
            node.kill()
        for space in reversed(self.spaces):
            space.close()
        self.spaces = []
        self.before.compare(Host(self.dir))
