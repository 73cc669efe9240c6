"""curl, wrk and h2load: many requests, and not one lost."""

import re
import subprocess
import tempfile
from pathlib import Path

import scene
from scene import succeeds

PARTS = ["curl", "loads"]
TITLES = {"curl": "curl 7.88, by its options", "loads": "wrk and h2load: not one request fails"}
URL = f"http://127.0.0.1:{scene.LISTENER}"


def run(part, tools, program):
    httpbin = [tools / "go-httpbin", "-host", "127.0.0.1", "-port", str(scene.UPSTREAM)]
    with scene.background(*httpbin, port=scene.UPSTREAM), scene.proxy(program, scene.configuration()):
        with tempfile.TemporaryDirectory() as folder:
            tests = curl(Path(folder)) if part == "curl" else loads(Path(folder))
            return {name: bool(test()) for name, test in tests.items()}


def curl(folder):
    large = folder / "large"
    large.write_bytes(b"0123456789" * 90_000)
    many = [f"{URL}/status/200"] * 50

    def got(*flags, status=200):
        return succeeds("curl", "-s", "-m", "20", "-o", folder / "got", "-w", "%{http_code}", *flags, says=str(status).encode())

    return {
        "HTTP/1.0 is refused": lambda: got("--http1.0", f"{URL}/get", status=426),
        "HTTP/1.1": lambda: got("--http1.1", f"{URL}/get"),
        "HTTP/2 with prior knowledge": lambda: got("--http2-prior-knowledge", f"{URL}/get"),
        "an upgrade to HTTP/2 is passed by": lambda: got("--http2", f"{URL}/get"),
        "no body": lambda: got("-I", f"{URL}/get"),
        "900 KB up": lambda: got("-T", large, f"{URL}/put"),
        "900 KB up, HTTP/2": lambda: got("--http2-prior-knowledge", "-T", large, f"{URL}/put"),
        "chunked up": lambda: got("-H", "transfer-encoding: chunked", "-T", large, f"{URL}/put"),
        "100-continue": lambda: got("-H", "expect: 100-continue", "--expect100-timeout", "15", "-m", "5", "-T", large, f"{URL}/put"),
        "a form": lambda: got("-F", f"f=@{large}", f"{URL}/post"),
        "compressed": lambda: got("--compressed", f"{URL}/gzip"),
        "a range": lambda: got("-r", "5-9", f"{URL}/range/100", status=206),
        "redirects": lambda: got("-L", f"{URL}/redirect/5"),
        "cookies": lambda: got("-L", "-c", folder / "jar", "-b", "a=1", f"{URL}/cookies/set?b=2"),
        "digest": lambda: got("--digest", "-u", "a:b", f"{URL}/digest-auth/auth/a/b"),
        "one connection": lambda: connections(many) == 1,
        "50 at once, HTTP/1.1": lambda: succeeds("curl", "-sf", "--http1.1", "-Z", "--parallel-max", "50", *many),
        "a slow reader": lambda: succeeds("curl", "-sf", "--limit-rate", "50K", f"{URL}/bytes/100000?seed=1", "-o", folder / "slow"),
        "a stream": lambda: succeeds("curl", "-sfN", f"{URL}/drip?duration=1s&numbytes=10", says=b"*" * 10),
    }


def connections(urls):
    """How many curl opens for these."""
    outputs = [part for url in urls for part in ("-o", "/dev/null", url)]
    done = subprocess.run(["curl", "-s", "-w", "%{num_connects}\n", *outputs], stdout=subprocess.PIPE, timeout=60)
    return sum(int(line) for line in done.stdout.split())


def loads(folder):
    body = folder / "body"
    body.write_bytes(b"x" * 10_000)

    def wrk(*flags, path="/bytes/1000?seed=1"):
        done = subprocess.run(["wrk", "-t1", "-d2s", *flags, f"{URL}{path}"], stdout=subprocess.PIPE, timeout=60)
        text = done.stdout.decode()
        requests = re.search(r"(\d+) requests in", text)
        return done.returncode == 0 and requests and int(requests[1]) > 100 and "Non-2xx" not in text and "Socket errors" not in text

    def h2load(*flags, requests, path="/bytes/1000?seed=1"):
        command = ["h2load", f"-n{requests}", *flags, f"{URL}{path}"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=120)
        ends = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", done.stdout.decode())
        codes = re.search(r"status codes: (\d+) 2xx", done.stdout.decode())
        return ends and codes and [int(end) for end in ends.groups()] == [requests, 0, 0, 0] and int(codes[1]) == requests

    return {
        "wrk, 50 connections": lambda: wrk("-c50"),
        "wrk, 500 connections": lambda: wrk("-c500"),
        "wrk, new connections": lambda: wrk("-c20", "-H", "connection: close"),
        "h2load, 10 connections, 100 streams": lambda: h2load("-c10", "-m100", requests=20_000),
        "h2load, 100 connections": lambda: h2load("-c100", "-m10", requests=10_000),
        "h2load, one stream at a time": lambda: h2load("-c10", "-m1", requests=5000),
        "h2load, 10 KB up": lambda: h2load("-c10", "-m20", "-d", body, requests=5000, path="/post"),
        "h2load, 100 KB down": lambda: h2load("-c5", "-m20", requests=1000, path="/bytes/100000?seed=1"),
        "h2load, small windows": lambda: h2load("-c5", "-m20", "-w", "14", "-W", "15", requests=1000, path="/bytes/100000?seed=1"),
        "h2load, HTTP/1.1": lambda: h2load("--h1", "-c20", requests=5000),
        "h2load, HTTP/1.1, new connections": lambda: h2load("--h1", "-c200", requests=200),
    }
