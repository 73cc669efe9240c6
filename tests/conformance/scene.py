"""A proxy on a static configuration: one listener, one cluster; or two proxies, one behind the other."""

import contextlib
import json
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

LISTENER = 19001
ADMIN = 19000
UPSTREAM = 19002
# Where the second of two proxies listens.
BETWEEN = 19011

TYPES = "type.googleapis.com/envoy.extensions"


def configuration(codec="AUTO", upstream_http2=False, tls=None, manager=None):
    """`tls`: a certificate file and a key file. `manager`: more fields of the connection manager."""
    chain = {
        "filters": [
            {
                "name": "hcm",
                "typed_config": {
                    "@type": f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
                    "stat_prefix": "conformance",
                    "codec_type": codec,
                    "http_filters": [
                        {
                            "name": "envoy.filters.http.router",
                            "typed_config": {"@type": f"{TYPES}.filters.http.router.v3.Router"},
                        }
                    ],
                    "route_config": {
                        "virtual_hosts": [
                            {
                                "name": "all",
                                "domains": ["*"],
                                "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "up", "timeout": "0s"}}],
                            }
                        ]
                    },
                    **(manager or {}),
                },
            }
        ]
    }
    if tls:
        certificate, key = tls
        files = {"certificate_chain": {"filename": str(certificate)}, "private_key": {"filename": str(key)}}
        chain["transport_socket"] = {
            "name": "tls",
            "typed_config": {
                "@type": f"{TYPES}.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": {"alpn_protocols": ["h2", "http/1.1"], "tls_certificates": [files]},
            },
        }
    cluster = {
        "name": "up",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "up",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(UPSTREAM)}}]}],
        },
    }
    if upstream_http2:
        cluster["typed_extension_protocol_options"] = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{TYPES}.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        }
    return {
        "node": {"id": "conformance", "cluster": "conformance"},
        "admin": {"address": address(ADMIN)},
        # As in the bootstrap that Istio writes.
        "layered_runtime": {
            "layers": [
                {
                    "name": "istio",
                    "static_layer": {"envoy.reloadable_features.http_reject_path_with_fragment": False},
                }
            ]
        },
        "static_resources": {
            "listeners": [{"name": "in", "address": address(LISTENER), "filter_chains": [chain]}],
            "clusters": [cluster],
        },
    }


def address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def tcp(listener, upstream, admin, accepts=None, originates=None, before=()):
    """Bytes from one port to another. `accepts`, `originates`: the chain filter's, or the cluster's, transport socket. `before`: filters."""
    chain = {
        "filters": [
            *before,
            {
                "name": "tcp",
                "typed_config": {
                    "@type": f"{TYPES}.filters.network.tcp_proxy.v3.TcpProxy",
                    "stat_prefix": "conformance",
                    "cluster": "up",
                },
            }
        ],
        **({"transport_socket": accepts} if accepts else {}),
    }
    cluster = {
        "name": "up",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "up",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(upstream)}}]}],
        },
        **({"transport_socket": originates} if originates else {}),
    }
    return {
        "node": {"id": "conformance", "cluster": "conformance"},
        "admin": {"address": address(admin)},
        "static_resources": {
            "listeners": [{"name": "in", "address": address(listener), "filter_chains": [chain]}],
            "clusters": [cluster],
        },
    }


@contextlib.contextmanager
def sidecars(program, upstream=UPSTREAM, before=()):
    """Two proxies, mutual TLS between them, before the upstream: what a client's and a server's sidecar do with TCP. `before`: filters."""
    with tempfile.TemporaryDirectory() as folder:
        key, certificate = (Path(folder) / name for name in ("key.pem", "certificate.pem"))
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        command += ["-subj", "/CN=workload", "-addext", "subjectAltName=DNS:workload", "-out", certificate, "-keyout", key]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        common = {
            "tls_certificates": [
                {"certificate_chain": {"filename": str(certificate)}, "private_key": {"filename": str(key)}}
            ],
            "validation_context": {"trusted_ca": {"filename": str(certificate)}},
            "alpn_protocols": ["istio"],
        }
        context = f"{TYPES}.transport_sockets.tls.v3"
        accepts = {
            "@type": f"{context}.DownstreamTlsContext",
            "common_tls_context": common,
            "require_client_certificate": True,
        }
        originates = {"@type": f"{context}.UpstreamTlsContext", "common_tls_context": common, "sni": "workload"}
        server = tcp(BETWEEN, upstream, ADMIN + 10, accepts={"name": "tls", "typed_config": accepts}, before=before)
        client = tcp(LISTENER, BETWEEN, ADMIN, originates={"name": "tls", "typed_config": originates}, before=before)
        with proxy(program, server, BETWEEN), proxy(program, client):
            yield


@contextlib.contextmanager
def proxy(program, config, listener=None):
    """Runs `program` until the block ends."""
    folder = Path(tempfile.mkdtemp())
    try:
        file = folder / "bootstrap.json"
        file.write_text(json.dumps(config))
        flags = ["--disable-hot-restart"] if program.name == "envoy" else []
        command = [program, "-c", file, "--concurrency", "1", "-l", "error", *flags]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            until_listens(listener or LISTENER, process, folder / "log")
            yield
        finally:
            process.terminate()
            process.wait(10)
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def background(*command, port):
    """Runs a server until the block ends."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until_listens(port, process)
        yield
    finally:
        process.kill()
        process.wait()


def succeeds(*command, given=b"", says=b"", seconds=60):
    """Whether a client ends well in time, and says so."""
    try:
        done = subprocess.run(command, input=given, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=seconds)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0 and says in done.stdout


def until_listens(port, process, log=None):
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            text = log.read_text() if log else ""
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"nothing listens on {port}: {text}") from None
            time.sleep(0.05)
