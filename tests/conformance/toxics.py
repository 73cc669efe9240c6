"""toxiproxy between proxy and upstream: what a bad network does to a client is what it does behind Envoy."""

import contextlib
import http.client
import json
import time
import urllib.request

import scene

PARTS = ["toxics", "toxics-retried"]
TITLES = {
    "toxics": "toxiproxy between proxy and upstream: as behind Envoy",
    "toxics-retried": "toxiproxy, with a retry policy and a timeout: as behind Envoy",
}
TOXIPROXY, SERVER = 8474, 19003
# Name, stream, attributes, toxicity.
TOXICS = {
    "none": [],
    "latency 200 ms": [("latency", "downstream", {"latency": 200}, 1)],
    "latency 200 ms of the request": [("latency", "upstream", {"latency": 200}, 1)],
    "latency with jitter": [("latency", "downstream", {"latency": 100, "jitter": 50}, 1)],
    "latency 3 s": [("latency", "downstream", {"latency": 3000}, 1)],
    "bandwidth 100 KB/s": [("bandwidth", "downstream", {"rate": 100}, 1)],
    "bandwidth 100 KB/s of the request": [("bandwidth", "upstream", {"rate": 100}, 1)],
    "slicer": [("slicer", "downstream", {"average_size": 64, "size_variation": 32, "delay": 50}, 1)],
    "slicer of the request": [("slicer", "upstream", {"average_size": 64, "size_variation": 32, "delay": 50}, 1)],
    "reset at once": [("reset_peer", "downstream", {"timeout": 0}, 1)],
    "reset of the request": [("reset_peer", "upstream", {"timeout": 0}, 1)],
    "reset after 300 ms": [("reset_peer", "downstream", {"timeout": 300}, 1)],
    "closed after 300 ms": [("timeout", "downstream", {"timeout": 300}, 1)],
    "nothing ever": [("timeout", "downstream", {"timeout": 0}, 1)],
    "slow close": [("slow_close", "downstream", {"delay": 500}, 1)],
    "closed inside the head": [("limit_data", "downstream", {"bytes": 20}, 1)],
    "closed inside the body": [("limit_data", "downstream", {"bytes": 1000}, 1)],
    "slow, in slices": [
        ("latency", "downstream", {"latency": 100}, 1),
        ("slicer", "downstream", {"average_size": 200, "size_variation": 100, "delay": 10}, 1),
    ],
    "gone": None,
}
TARGETS = {"small": ("GET", "/bytes/100?seed=1", b""), "30 KB": ("GET", "/bytes/30000?seed=1", b""), "post": ("POST", "/post", b"x" * 30_000)}
RETRIES = {
    "timeout": "2s",
    "retry_policy": {"retry_on": "5xx,reset,connect-failure", "num_retries": 1, "per_try_timeout": "1s"},
}
# What came through the first proxy.
envoy = {}


def run(part, tools, program):
    route = RETRIES if part == "toxics-retried" else {"timeout": "2s"}
    with contextlib.ExitStack() as stack:
        httpbin = [tools / "go-httpbin", "-host", "127.0.0.1", "-port", str(SERVER)]
        stack.enter_context(scene.background(*httpbin, port=SERVER))
        toxiproxy = [tools / "toxiproxy" / "server", "-host", "127.0.0.1", "-port", str(TOXIPROXY)]
        stack.enter_context(scene.background(*toxiproxy, port=TOXIPROXY))
        manage("/proxies", {"name": "up", "listen": f"127.0.0.1:{scene.UPSTREAM}", "upstream": f"127.0.0.1:{SERVER}"})
        stack.enter_context(scene.proxy(program, configuration(route)))
        came = {}
        for name, toxics in TOXICS.items():
            manage("/reset", {})
            if toxics is None:
                manage("/proxies/up", {"enabled": False})
            for kind, stream, attributes, toxicity in toxics or []:
                manage("/proxies/up/toxics", {"type": kind, "stream": stream, "attributes": attributes, "toxicity": toxicity})
            for target, request in TARGETS.items():
                came[f"{name}: {target}"] = ask(*request)
    if part not in envoy:
        envoy[part] = came
        return {name: True for name in came}
    return {name: is_same(answer, envoy[part][name]) for name, answer in came.items()}


def configuration(route):
    config = scene.configuration()
    manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    manager["route_config"]["virtual_hosts"][0]["routes"][0]["route"].update(route)
    return config


def manage(path, body):
    url = f"http://127.0.0.1:{TOXIPROXY}{path}"
    headers = {"content-type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers), timeout=10).close()


def ask(method, path, body):
    """Status, how the body ends, its length (of an answer of the proxy, itself), and how long it took."""
    begun = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", scene.LISTENER, timeout=20)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        try:
            came = response.read()
            end = "whole"
        except http.client.IncompleteRead as cut:
            came, end = cut.partial, "cut"
        except OSError:
            came, end = b"", "reset"
        answer = response.status, end, len(came), came if response.status >= 500 else b""
    except (http.client.HTTPException, OSError) as error:
        answer = type(error).__name__, "", 0, b""
    finally:
        connection.close()
    return answer, time.monotonic() - begun


def is_same(ours, theirs):
    """Retries wait for up to 25 ms; jitter is jitter. What was cut may be cut elsewhere; Envoy then keeps the client's connection for a
    second (`delayed_close_timeout`), outrigger closes it at once."""
    (answer, time_taken), (expected, expected_time) = ours, theirs
    if "cut" in answer:
        return answer[:2] == expected[:2]
    return answer == expected and abs(time_taken - expected_time) < 0.4 + expected_time / 2
