"""Agents of a site as processes on this machine, for the scripts of this folder.

Each agent reaches the boards through relays of its own, so that its network can be cut without a
name space: a cut relay keeps its connections and lets nothing through, as a pulled cable does."""

import os
import select
import socket
import subprocess
import threading
import time

from boards import Failure, die_with_parent, wait_for


def boot_ms():
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000000


class Relay:
    """One address that leads to one board."""

    def __init__(self, host, target):
        self.target = target
        self.cut = False
        self.pairs = []
        self.listener = socket.socket()
        self.listener.bind((host, 0))
        self.listener.listen(16)
        self.address = "%s:%d" % self.listener.getsockname()
        self.over = False
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        peers = {}
        while not self.over:
            if self.cut:
                time.sleep(0.02)
                continue
            ready, _, _ = select.select([self.listener, *peers], [], [], 0.02)
            for end in ready:
                if self.cut:
                    break
                if end is self.listener:
                    client, _ = end.accept()
                    try:
                        board = socket.create_connection(self.target, 2)
                    except OSError:
                        client.close()
                        continue
                    peers[client], peers[board] = board, client
                    continue
                if end not in peers:
                    continue
                try:
                    data = end.recv(65536)
                    if data:
                        peers[end].sendall(data)
                        continue
                except OSError:
                    pass
                other = peers.pop(end)
                peers.pop(other, None)
                end.close()
                other.close()
        for end in peers:
            end.close()
        self.listener.close()


class Agent:
    """One node's witness-agent. Its hooks write lines "WHAT EPOCH BOOT-MS" to self.log_hooks."""

    def __init__(self, cluster, site, number, peers=(), host="127.0.0.1", **settings):
        self.cluster = cluster
        self.site = site
        self.number = number
        self.dir = os.path.join(cluster.dir, f"{site}-{number}")
        os.makedirs(self.dir, exist_ok=True)
        self.config = os.path.join(self.dir, "agent.conf")
        self.log = os.path.join(self.dir, "agent.log")
        self.hooks = os.path.join(self.dir, "hooks.log")
        self.state = os.path.join(self.dir, "state")
        self.run_dir = os.path.join(self.dir, "run")
        self.relays = [Relay(host, (board.host, 7443)) for board in cluster.boards.values()]
        self.process = None
        # /proc/uptime counts as CLOCK_BOOTTIME does, in hundredths.
        note = f'read up rest </proc/uptime; echo "$WITNESS_EVENT $WITNESS_EPOCH $up" >>{self.hooks}'
        self.settings = {"lease": "4s", "stop-time": "1s", "on-gain": note, "on-loss": note}
        if peers:
            self.settings["peers"] = ", ".join(peers)
        self.settings.update(settings)
        cluster.cleanups.append(self.close)

    def command(self, *arguments, check=True):
        done = subprocess.run([os.path.join(self.cluster.bin, "witness-agent"), "--config", self.config,
                               *arguments], capture_output=True, text=True, timeout=30)
        if check and done.returncode != 0:
            raise Failure(f"witness-agent {' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()}")
        return done

    def enroll(self, token, board=None):
        board = board or self.cluster.any()
        self.command("--set", f"state-dir={self.state}", "enroll", "--board", board.address, "--site", self.site,
                     "--node", str(self.number), "--token", token)
        self.configure()
        return self

    def configure(self, **settings):
        self.settings.update(settings)
        with open(self.config, "w") as file:
            file.write(f"site = {self.site}\nnode = {self.number}\nrun-dir = {self.run_dir}\n"
                       f"state-dir = {self.state}\nboards = {', '.join(r.address for r in self.relays)}\n")
            for key, value in self.settings.items():
                file.write(f"{key} = {value}\n")

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([os.path.join(self.cluster.bin, "witness-agent"), "--config",
                                             self.config], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            preexec_fn=die_with_parent)
        wait_for(10, f"agent {self.number} does not answer",
                 lambda: self.process.poll() is not None or self.status() is not None)
        if self.process.poll() is not None:
            with open(self.log, errors="replace") as log:
                raise Failure(f"agent {self.number} ended: {log.read()[-500:]}")
        return self

    def status(self):
        done = self.command("status", check=False)
        if done.returncode not in (0, 1):
            return None
        return {name: value.strip('"') for name, _, value in
                (line.partition("=") for line in done.stdout.splitlines())}

    def holds(self):
        return self.command("check", check=False).returncode == 0

    def epoch(self):
        return int(self.status()["epoch"])

    def hook_lines(self):
        if not os.path.exists(self.hooks):
            return []
        with open(self.hooks) as file:
            return [(what, int(epoch), int(float(up) * 1000)) for what, epoch, up in map(str.split, file)]

    def hooked(self, count, seconds=10):
        """Its hook lines, once there are so many."""
        wait_for(seconds, f"agent {self.number} ran fewer than {count} hooks",
                 lambda: len(self.hook_lines()) >= count)
        return self.hook_lines()

    def cut(self, on=True):
        for relay in self.relays:
            relay.cut = on

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.terminate()
        return self.process.wait(20)

    def running(self):
        return self.process is not None and self.process.poll() is None

    def close(self):
        for relay in self.relays:
            relay.over = True
        if self.running():
            self.kill()


def site_of_agents(cluster, name="shop", count=2, policy=(), **settings):
    """A site and its agents, enrolled and not started."""
    board = cluster.any()
    board.ctl("site", "create", name, *policy)
    token = board.json("site", "enroll", name, "--agent")["secret"]
    return [Agent(cluster, name, number, [str(n) for n in range(1, count + 1) if n != number],
                  **settings).enroll(token) for number in range(1, count + 1)]


def holder(agents, seconds=20, but=None):
    """The agent that holds the lease, once there is one."""
    return wait_for(seconds, "no agent gets the lease",
                    lambda: next((a for a in agents if a is not but and a.running() and a.holds()), None))
