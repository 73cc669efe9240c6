"""The requests of the crate http_desync_guardian, each with what could be a second request behind it, against an upstream that
records bytes. A request passes when the upstream got nothing that Envoy keeps from it."""

import re
import socket
import threading
import time
import urllib.parse

import scene

PARTS = ["desync"]
TITLES = {"desync": "http_desync_guardian's requests: the upstream gets no more than behind Envoy"}
# Ends a chunked body, or is a body of five bytes; then a request that nobody sent.
BEHIND = b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"
# What the first proxy let through: the others are held against it.
envoy = {}


def vectors(tools):
    import yaml

    for file in sorted((tools / "desync").glob("*.yaml")):
        for number, vector in enumerate(yaml.safe_load(file.read_text()) or []):
            yield f"{file.stem} {number + 1}", vector


def message(vector):
    headers = [(header["name"], header.get("value") or "") for header in vector.get("headers") or []]
    if not any(name.strip().lower() == "host" for name, _ in headers):
        headers.insert(0, ("host", "a"))
    lines = [f"{vector.get('method', 'GET')} {vector.get('uri', '/')} {vector.get('version', 'HTTP/1.1')}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + BEHIND


def run(_part, tools, program):
    upstream = Recorder()
    seen = {}
    with scene.proxy(program, scene.configuration(codec="HTTP1")):
        for name, vector in vectors(tools):
            statuses = exchange(message(vector))
            seen[name] = (statuses, upstream.take())
    upstream.close()
    if not envoy:
        envoy.update(seen)
        return {name: True for name in seen}
    return {name: not more_than(seen[name][1], envoy[name][1]) for name in seen}


def more_than(ours, theirs):
    """A request line, or a request's framing, that the upstream does not get behind Envoy."""
    return any(request not in theirs for request in ours)


def exchange(sent):
    with socket.create_connection(("127.0.0.1", scene.LISTENER), 2) as client:
        client.settimeout(0.25)
        came = b""
        try:
            client.sendall(sent)
            while piece := client.recv(65536):
                came += piece
        except OSError:
            pass
    return re.findall(rb"HTTP/1\.[01] (\d+)", came)


class Recorder:
    """Answers whatever ends with an empty line; remembers request lines, framing and bodies."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", scene.UPSTREAM), reuse_port=True)
        self.came, self.lock = [], threading.Lock()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                stream, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(stream,), daemon=True).start()

    def serve(self, stream):
        with stream:
            while (piece := self.receive(stream)) != b"":
                with self.lock:
                    self.came.append(piece)
                if b"\r\n\r\n" in piece:
                    stream.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    @staticmethod
    def receive(stream):
        try:
            return stream.recv(65536)
        except OSError:
            return b""

    def take(self):
        time.sleep(0.02)
        with self.lock:
            came, self.came = b"".join(self.came), []
        lines = came.split(b"\r\n")
        framing = re.compile(rb"(?i)(content-length|transfer-encoding):|^[A-Z-]+ .* HTTP/1\.[01]$")
        return [urllib.parse.unquote_to_bytes(line) for line in lines if framing.search(line)]

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
