"""A server and a client on grpcio. Usage: grpcio_both.py serve|ask PORT. The client prints an object, test -> passed."""

import json
import sys
import threading
import time
from concurrent import futures

import grpc

LARGE = 3 << 20


def serve(port):
    def unary(request, context):
        command, _, rest = request.partition(b" ")
        if command == b"status":
            context.abort(grpc.StatusCode(next(code.value for code in grpc.StatusCode if code.value[0] == int(rest))), "größer: 100 %")
        if command == b"sleep":
            time.sleep(float(rest))
        if command == b"left":
            return b"%f" % context.time_remaining()
        if command == b"metadata":
            sent = dict(context.invocation_metadata())
            context.send_initial_metadata([("x-first", sent["x-text"])])
            context.set_trailing_metadata([("x-last-bin", sent["x-bytes-bin"])])
        return request

    def many(request, _context):
        for number in range(int(request)):
            yield b"%d" % number

    def collected(requests, _context):
        return b"%d" % sum(len(request) for request in requests)

    def each(requests, _context):
        yield from requests

    def fails(request, context):
        yield b"first"
        context.abort(grpc.StatusCode.DATA_LOSS, "lost")

    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Many": grpc.unary_stream_rpc_method_handler(many),
        "Collected": grpc.stream_unary_rpc_method_handler(collected),
        "Each": grpc.stream_stream_rpc_method_handler(each),
        "Fails": grpc.unary_stream_rpc_method_handler(fails),
    }
    server = grpc.server(futures.ThreadPoolExecutor(32))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Test", handlers)])
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


def ask(port):
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    unary, many = channel.unary_unary("/test.Test/Unary"), channel.unary_stream("/test.Test/Many")
    collected, each = channel.stream_unary("/test.Test/Collected"), channel.stream_stream("/test.Test/Each")

    def fails(call, code, details=None):
        try:
            call()
        except grpc.RpcError as error:
            return error.code() == code and details in (None, error.details())
        return False

    def metadata():
        reply, call = unary.with_call(b"metadata", metadata=[("x-text", "a, b"), ("x-bytes-bin", b"\x00\xff")])
        first, last = dict(call.initial_metadata()), dict(call.trailing_metadata())
        return first["x-first"] == "a, b" and last["x-last-bin"] == b"\x00\xff"

    def ping_pong():
        answers, ready = [], threading.Semaphore(1)

        def requests():
            for number in range(100):
                ready.acquire()
                yield b"%d" % number

        for answer in each(requests()):
            answers.append(answer)
            ready.release()
        return answers == [b"%d" % number for number in range(100)]

    def cancelled():
        call = many(b"1000000000")
        next(call)
        call.cancel()
        return fails(lambda: list(call), grpc.StatusCode.CANCELLED)

    def partly():
        call = channel.unary_stream("/test.Test/Fails")(b"")
        return next(call) == b"first" and fails(lambda: next(call), grpc.StatusCode.DATA_LOSS, "lost")

    def parallel():
        calls = [unary.future(b"%d" % number) for number in range(500)]
        return all(call.result() == b"%d" % number for number, call in enumerate(calls))

    tests = {
        "unary": lambda: unary(b"hello") == b"hello",
        "empty": lambda: unary(b"") == b"",
        "3 MB": lambda: unary(b"x" * LARGE) == b"x" * LARGE,
        "server streaming": lambda: list(many(b"1000")) == [b"%d" % number for number in range(1000)],
        "client streaming": lambda: collected(iter([b"x" * 1000] * 1000)) == b"1000000",
        "both streaming": lambda: list(each(iter([b"a", b"", b"c"]))) == [b"a", b"", b"c"],
        "ping pong": ping_pong,
        "nothing streamed": lambda: list(each(iter([]))) == [] and list(many(b"0")) == [],
        "status after messages": partly,
        "metadata": metadata,
        "deadline": lambda: fails(lambda: unary(b"sleep 5", timeout=0.5), grpc.StatusCode.DEADLINE_EXCEEDED),
        "the deadline is passed on": lambda: 5 < float(unary(b"left ", timeout=10)) < 10.1,
        "cancelled": cancelled,
        "no such method": lambda: fails(lambda: channel.unary_unary("/test.Test/No")(b""), grpc.StatusCode.UNIMPLEMENTED),
        "no such service": lambda: fails(lambda: channel.unary_unary("/no.No/No")(b""), grpc.StatusCode.UNIMPLEMENTED),
        "500 at once": parallel,
        "waiting for a connection": lambda: unary(b"x", wait_for_ready=True) == b"x",
    }
    for code in (1, 3, 5, 7, 8, 13, 14, 16):
        status = next(status for status in grpc.StatusCode if status.value[0] == code)
        tests[f"status {code}"] = lambda code=code, status=status: fails(lambda: unary(b"status %d" % code), status, "größer: 100 %")
    print(json.dumps({name: passes(test) for name, test in tests.items()}))


def passes(test):
    try:
        return bool(test())
    except Exception:  # Whatever it is, the test did not pass.
        return False


if __name__ == "__main__":
    {"serve": serve, "ask": ask}[sys.argv[1]](int(sys.argv[2]))
