"""h2spec: what RFC 9113 and RFC 7541 ask of a server."""

import re
import subprocess
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import scene

PARTS = ["h2spec", "h2spec-tls", "h2spec-auto"]
TITLES = {
    "h2spec": "h2spec 2.2.1, HTTP/2 listener",
    "h2spec-tls": "h2spec 2.2.1, over TLS",
    "h2spec-auto": "h2spec 2.2.1, listener for HTTP/1 and HTTP/2",
}


class Application(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        body = b"hello\n" * 100
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_POST = do_HEAD = answer

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, *_):
        """Clients of this suite leave whenever they like."""


def run(part, tools, program):
    server = Server(("127.0.0.1", scene.UPSTREAM), Application)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        tls = certificate(Path(folder)) if part == "h2spec-tls" else None
        codec = "HTTP2" if part == "h2spec" else "AUTO"
        with scene.proxy(program, scene.configuration(codec=codec, tls=tls)):
            command = [tools / "h2spec", "-h", "127.0.0.1", "-p", str(scene.LISTENER), "-o", "3"]
            # The last is the whole report as JUnit, whose names are whole.
            report = Path(folder) / "report.xml"
            command += ["-j", report, *(["-t", "-k"] if tls else [])]
            subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=600)
            text = report.read_text()
    server.shutdown()
    server.server_close()
    cases = re.findall(r'<testcase package="([^"]*)" classname="([^"]*)"[^>]*?(/>|>.*?</testcase>)', text, re.S)
    return {f"{package}: {name}": "<failure" not in rest and "<error" not in rest for package, name, rest in cases}


def certificate(folder):
    """Of nobody in particular."""
    files = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-out", files[0], "-keyout", files[1]]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return files
