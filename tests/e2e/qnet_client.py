"""The QNet protocol from the client's side, just enough to say wrong things to a board: message =
type (u16), length (u32), options; option = type (u16), length (u16), value; all big-endian."""

import socket
import ssl
import struct

PREINIT, PREINIT_REPLY, STARTTLS, INIT, INIT_REPLY, SERVER_ERROR, NODE_LIST = 0, 1, 2, 3, 4, 5, 10
SEQ, CLUSTER_NAME, MESSAGES, OPTIONS, ERROR, NODE_ID = 0, 1, 4, 5, 6, 9
ALGORITHM, HEARTBEAT, RING, TIE_BREAKER = 11, 12, 13, 21
TOO_LONG, DECODING, DUPLICATE_NODE, TLS_REQUIRED = 5, 9, 17, 3
HEAD = 6


def u16(value):
    return struct.pack(">H", value)


def u32(value):
    return struct.pack(">I", value)


def message(kind, *options):
    body = b"".join(u16(option) + u16(len(value)) + value for option, value in options)
    return u16(kind) + u32(len(body)) + body


def numbers(count):
    return b"".join(u16(number) for number in range(count))


class QnetClient:
    """One connection. `peer` is HOST:PORT."""

    def __init__(self, peer, timeout=8):
        host, port = peer.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout)

    def close(self):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def _exactly(self, count):
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise EOFError("the board has closed the connection")
            data += more
        return data

    def receive(self):
        """The next message: its type, and its options as a dictionary."""
        kind, length = struct.unpack(">HI", self._exactly(HEAD))
        body = self._exactly(length)
        options = {}
        while body:
            option, size = struct.unpack(">HH", body[:4])
            options[option] = body[4:4 + size]
            body = body[4 + size:]
        return kind, options

    def error(self):
        """The error code of the next message."""
        return struct.unpack(">H", self.receive()[1][ERROR])[0]

    def preinit(self, site):
        self.send(message(PREINIT, (SEQ, u32(1)), (CLUSTER_NAME, site)))
        return self.receive()

    def starttls(self, ca, certificate=None, key=None):
        self.send(message(STARTTLS, (SEQ, u32(2))))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(ca)
        if certificate:
            context.load_cert_chain(certificate, key)
        context.check_hostname = False
        self.socket = context.wrap_socket(self.socket)

    def init(self, node):
        self.send(message(INIT, (SEQ, u32(3)), (MESSAGES, numbers(18)), (OPTIONS, numbers(24)),
                          (NODE_ID, u32(node)), (ALGORITHM, u16(1)), (HEARTBEAT, u32(8000)),
                          (TIE_BREAKER, bytes([1]) + u32(0)), (RING, u32(1) + struct.pack(">Q", 8))))
        return self.error()

    def closed(self):
        """Does the board end it, without another word?"""
        try:
            return self.socket.recv(1) == b""
        except (ConnectionResetError, ssl.SSLError):
            return True
