"""grpc-go's interoperability client and server. Source: grpc/doc/interop-test-descriptions.md."""

import subprocess

import scene

PARTS = ["grpc"]
TITLES = {"grpc": "grpc-go interop"}
# Those that need neither credentials nor a balancer of the client's.
CASES = """
empty_unary large_unary client_streaming server_streaming ping_pong empty_stream timeout_on_sleeping_server cancel_after_begin
cancel_after_first_response status_code_and_message special_status_message custom_metadata unimplemented_method
unimplemented_service pick_first_unary rpc_soak channel_soak
""".split()


def run(_part, tools, program):
    server = [tools / "interop" / "server", f"--port={scene.UPSTREAM}"]
    with scene.background(*server, port=scene.UPSTREAM):
        with scene.proxy(program, scene.configuration(upstream_http2=True)):
            return {case: passes(tools, case) for case in CASES}


def passes(tools, case):
    command = [tools / "interop" / "client", "--server_host=127.0.0.1", f"--server_port={scene.LISTENER}"]
    command += [f"--test_case={case}", "--soak_iterations=20", "--soak_overall_timeout_seconds=30"]
    try:
        quiet = subprocess.DEVNULL
        return subprocess.run(command, stdout=quiet, stderr=quiet, timeout=60).returncode == 0
    except subprocess.TimeoutExpired:
        return False
