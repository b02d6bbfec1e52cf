#!/usr/bin/env python3
"""A certificate for every site of a cluster: `enroll_all.py SOCKET DIRECTORY`. One key serves all, as
these nodes are simulated; each certificate names its site and is signed by the cluster."""

import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(__file__))
from torture import UnixConnection


def request_for(name, key):
    done = subprocess.run(["openssl", "req", "-new", "-key", key, "-subj", f"/CN={name}"], capture_output=True,
                          text=True, check=True)
    return done.stdout


def pages(connection, path):
    page = ""
    while True:
        connection.request("GET", f"{path}?limit=1000" + (f"&page={page}" if page else ""))
        answer = json.loads(connection.getresponse().read())
        yield from answer.get("items", [])
        page = answer.get("nextPage", "")
        if not page:
            return


def main(socket_path, directory):
    key = os.path.join(directory, "key.pem")
    subprocess.run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key], check=True)
    connection = UnixConnection(socket_path, 30)
    names = [site["name"] for site in pages(connection, "/v1/sites")]
    # The names in a request are not looked at: the cluster puts the site's own into the certificate.
    csr = request_for("any", key)
    for name in names:
        connection.request("POST", f"/v1/sites/{name}:enroll", json.dumps({"csr": csr}),
                           {"Content-Type": "application/json"})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status not in (200, 201):
            sys.exit(f"{name}: {answer.status} {body.decode()}")
        with open(os.path.join(directory, f"{name}.crt"), "w") as file:
            file.write(json.loads(body)["certificate"])
        os.link(key, os.path.join(directory, f"{name}.key"))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
