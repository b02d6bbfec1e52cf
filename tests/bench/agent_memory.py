#!/usr/bin/env python3
"""`agent_memory.py BIN [RESULT.json]`: the memory of a witness-agent that holds its site's lease."""

import json
import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "e2e"))
from agents import Agent
from boards import Cluster, wait_for
from load import rss_kib


def pss_kib(pid):
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pss:"))


def main():
    with Cluster(sys.argv[1]) as cluster:
        cluster.make(1)
        board = cluster.boards[1]
        board.ctl("site", "create", "shop")
        token = board.json("token", "create", "--role", "agent", "--site", "shop", "--ttl", "1h")["secret"]
        agent = Agent(cluster, "shop", 1).enroll(token)
        agent.start()
        wait_for(120, "the agent has no lease", agent.holds)
        time.sleep(5)
        pid = agent.process.pid
        result = {"rss_kib": rss_kib([pid]), "pss_kib": pss_kib(pid)}
    print(json.dumps(result))
    if len(sys.argv) > 2:
        with open(sys.argv[2], "w") as file:
            json.dump(result, file)


if __name__ == "__main__":
    main()
