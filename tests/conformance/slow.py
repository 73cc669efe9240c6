"""slowhttptest: clients that send or read slowly by the hundred keep nobody else from being served."""

import re
import subprocess
import tempfile
from pathlib import Path

import scene

PARTS = ["slow"]
TITLES = {"slow": "slowhttptest: slow clients keep nobody else from being served"}
TARGET = f"http://127.0.0.1:{scene.LISTENER}"
# 300 connections, 150 a second, for 10 s; a probe waits 3 s.
COMMON = ["-c", "300", "-r", "150", "-l", "10", "-p", "3"]
ATTACKS = {
    "slow headers": ["-H", "-i", "2", "-x", "24"],
    "slow body": ["-B", "-i", "2", "-s", "8192", "-x", "10", "-t", "POST"],
    "slow body, chunked": ["-B", "-i", "2", "-s", "8192", "-x", "10", "-t", "FAKEVERB"],
    "slow read": ["-X", "-w", "512", "-y", "1024", "-n", "1", "-z", "32", "-k", "3"],
    "ranges": ["-R", "-a", "10", "-b", "3000"],
}


def run(_part, tools, program):
    httpbin = [tools / "go-httpbin", "-host", "127.0.0.1", "-port", str(scene.UPSTREAM)]
    with scene.background(*httpbin, port=scene.UPSTREAM):
        results = {}
        for name, flags in ATTACKS.items():
            with scene.proxy(program, scene.configuration()):
                path = "/bytes/100000?seed=1" if name == "slow read" else "/get"
                results[name] = is_available([*COMMON, *flags, "-u", f"{TARGET}{path}"])
                # And after it, at once.
                results[f"{name}, after it"] = scene.succeeds("curl", "-sf", "-m", "3", f"{TARGET}/get", says=b"headers")
        return results


def is_available(flags):
    """Whether every probe of the tool was answered in time."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report"
        command = ["slowhttptest", "-g", "-o", report, *flags]
        try:
            subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60)
        except subprocess.TimeoutExpired:
            return False
        # Seconds, closed, pending, connected, and more than 0 while the service was available.
        lines = Path(f"{report}.csv").read_text().splitlines()[1:]
        seen = [re.split(r",\s*", line.strip())[-1] for line in lines if line]
        # One that is answered at once ends at once.
        return len(seen) > 1 and all(int(available) > 0 for available in seen)
