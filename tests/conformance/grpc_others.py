"""grpcio and @grpc/grpc-js, client and server of each through one proxy, with services that need no compiler: bytes in, bytes out."""

import json
import subprocess
import sys

import scene

PARTS = ["grpcio", "grpc-js"]
TITLES = {"grpcio": "grpcio (Python), client and server", "grpc-js": "@grpc/grpc-js, client and server"}
HERE = scene.Path(__file__).resolve().parent


def run(part, tools, program):
    script = {
        # Not with this folder on its path: grpc.py is a suite here.
        "grpcio": [sys.executable, "-P", HERE / "grpcio_both.py"],
        # Imports are looked for where the script is.
        "grpc-js": ["node", copied(tools, "grpc_both.mjs")],
    }[part]
    with scene.background(*script, "serve", str(scene.UPSTREAM), port=scene.UPSTREAM):
        with scene.proxy(program, scene.configuration(upstream_http2=True)):
            return tests(*script, "ask", str(scene.LISTENER))


def copied(tools, name):
    copy = tools / "node" / name
    copy.write_bytes((HERE / name).read_bytes())
    return copy


def tests(*command):
    """What a script prints: an object, test -> passed."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=120)
    return json.loads(done.stdout)
