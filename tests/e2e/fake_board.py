#!/usr/bin/env python3
"""A board that answers as the API does, as far as cli.bats needs it, and can be told to fail:
`fake_board.py DIR [REFUSALS]`. Listens on DIR/board.sock and, if DIR has CHAIN and KEY files, with
TLS: node.chain on the first free port, other.chain on a second one (written to DIR/ports).
The first REFUSALS bulk requests get 503. Requests are noted in DIR/requests, one JSON a line."""

import base64
import http.server
import json
import os
import socketserver
import ssl
import sys
import threading
import urllib.parse

directory = sys.argv[1]
refusals = int(sys.argv[2]) if len(sys.argv) > 2 else 0
sites = {}
lock = threading.Lock()
requests = open(os.path.join(directory, "requests"), "w", buffering=1, encoding="utf-8")


def listed(site):
    """As the API lists it: with what only the cluster knows."""
    return dict(site, id="7", revision="3", createdMs="1795235880000",
                status={"state": "split", "reason": "two rings", "nodes": [
                    {"nodeId": 1, "address": "192.0.2.1:40000", "configured": [1, 2], "members": [1],
                     "ring": {"node": 1, "seq": "13"}, "vote": "ack", "lastResult": "ack",
                     "algorithm": "ffsplit", "tieBreaker": "lowest", "heartbeatMs": 8000}],
                    "grant": {"epoch": "3", "nodes": [1], "reason": "lowest node id",
                              "grantedMs": "1795235880000"}})


class Board(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def answer(self, status, body, kind="application/json"):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def problem(self, status, detail, remedy, errors=()):
        self.answer(status, {"title": "no", "status": status, "detail": detail, "remedy": remedy,
                             "errors": list(errors)}, "application/problem+json")

    def bulk(self, body):
        global refusals
        if refusals > 0:
            refusals -= 1
            return self.problem(503, "there is no leader", "try again")
        for number, site in enumerate(body["sites"]):
            if site["name"] == "poison":
                return self.problem(422, "a site is refused", "mend it", [
                    {"field": f"sites[{number}].name", "message": "is poison"}])
        result = {"created": 0, "changed": 0, "unchanged": 0}
        for site in body["sites"]:
            old = sites.get(site["name"])
            result["created" if old is None else "unchanged" if old == site else "changed"] += 1
            if not body.get("dryRun"):
                sites[site["name"]] = site
        return self.answer(200, result)

    def list(self, query):
        after = query.get("page", [""])[0]
        limit = int(query.get("limit", ["100"])[0])
        names = sorted(name for name in sites if name > after)
        page = {"items": [listed(sites[name]) for name in names[:limit]], "total": len(sites)}
        if len(names) > limit:
            page["nextPage"] = names[limit - 1]
        return self.answer(200, page)

    def watch(self):
        """One event a connection, so that a watcher has to come back for the next."""
        last = int(self.headers.get("Last-Event-ID", "0"))
        if last >= 3:
            return self.problem(403, "that is enough", "go home")
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        event = {"seq": str(last + 1), "type": "site.created", "message": f"event {last + 1}"}
        self.wfile.write(f"id: {last + 1}\nevent: site.created\ndata: {json.dumps(event)}\n\n".encode())
        self.close_connection = True

    def site(self, name, body):
        if name not in sites:
            return self.problem(404, f'there is no site "{name}"', "GET /v1/sites lists the names")
        if self.command == "DELETE":
            del sites[name]
            return self.answer(200, {})
        return self.answer(200, listed(sites[name]))

    def enroll(self, name, body):
        if name not in sites:
            return self.problem(404, f'there is no site "{name}"', "create it")
        answer = {"site": name, "caCertificate": "CA", "certificate": "CERTIFICATE", "serial": "77",
                  "certificateDer": base64.b64encode(b"DER").decode(), "corosyncConf": "device {}\n"}
        if not body.get("csr"):
            answer["pkcs12"] = base64.b64encode(b"P12").decode()
        return self.answer(200, answer)

    def route(self):
        url = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(url.path)
        query = urllib.parse.parse_qs(url.query)
        text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.loads(text) if text else {}
        requests.write(json.dumps({"method": self.command, "path": self.path, "body": body,
                                   "headers": dict(self.headers)}) + "\n")
        if path == "/v1/sites:bulk":
            return self.bulk(body)
        if path == "/v1/sites" and self.command == "POST":
            sites[body["name"]] = body
            return self.answer(201, body)
        if path == "/v1/sites":
            return self.list(query)
        if path == "/v1/events" and "watch" in query:
            return self.watch()
        if path == "/v1/nodes":
            return self.answer(200, {"items": [{"id": "1", "name": "board1", "role": "voter",
                                                "qnetAddress": "192.0.2.9:5403"}]})
        if path == "/v1/local":
            return self.answer(200, {"state": "serving", "clusterId": "ab", "nodeId": "1"})
        if path == "/v1/cluster":
            return self.answer(200, {"name": "lab", "status": {"state": "no-quorum"}})
        if path == "/v1/qnet-ca":
            return self.answer(200, b"PEM\n", "text/plain")
        if path.startswith("/v1/sites/") and path.endswith(":enroll"):
            return self.enroll(path[len("/v1/sites/"):-len(":enroll")], body)
        if path.startswith("/v1/sites/"):
            return self.site(path[len("/v1/sites/"):], body)
        return self.problem(404, f"nothing is at {path}", "see /openapi.json")

    def handle_one(self):
        with lock:
            self.route()

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = handle_one


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def get_request(self):
        return super().get_request()[0], ("socket", 0)


class TlsServer(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True

    def __init__(self, name):
        super().__init__(("127.0.0.1", 0), Board)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(os.path.join(directory, name + ".chain"), os.path.join(directory, name + ".key"))
        self.socket = context.wrap_socket(self.socket, server_side=True)


servers = [TlsServer(name) for name in ("node", "other") if os.path.exists(os.path.join(directory, name + ".chain"))]
with open(os.path.join(directory, "ports.new"), "w", encoding="utf-8") as file:
    file.write(" ".join(str(server.server_address[1]) for server in servers))
unix = UnixServer(os.path.join(directory, "board.sock"), Board)
for server in servers:
    threading.Thread(target=server.serve_forever, daemon=True).start()
os.rename(os.path.join(directory, "ports.new"), os.path.join(directory, "ports"))
unix.serve_forever()
