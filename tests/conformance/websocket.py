"""Python's `websockets` on both sides, and npm's `ws`."""

import asyncio

import grpc_others
import scene

PARTS = ["websocket", "ws"]
TITLES = {"websocket": "websockets (Python), client and server", "ws": "ws (npm), client and server"}
UPGRADES = {"upgrade_configs": [{"upgrade_type": "websocket"}]}
SIZES = [0, 1, 125, 126, 65_535, 65_536, 1 << 20, 8 << 20]
CODES = [1000, 1001, 1011, 3000, 4999]


def run(part, tools, program):
    if part == "ws":
        script = ["node", grpc_others.copied(tools, "ws_both.mjs")]
        with scene.background(*script, "serve", str(scene.UPSTREAM), port=scene.UPSTREAM):
            with scene.proxy(program, scene.configuration(manager=UPGRADES)):
                return grpc_others.tests(*script, "ask", str(scene.LISTENER))
    with scene.proxy(program, scene.configuration(manager=UPGRADES)):
        return asyncio.run(all_tests())


async def all_tests():
    from websockets.asyncio.server import serve

    async with serve(server, "127.0.0.1", scene.UPSTREAM, max_size=None, select_subprotocol=choose):
        tests = {f"{size} bytes": echoes(size) for size in SIZES}
        tests |= {f"close with {code}": closes(code) for code in CODES}
        tests |= {
            "text": text(),
            "fragments": fragments(),
            "ping": ping(),
            "subprotocol": subprotocol(),
            "server speaks first": server_first(),
            "the server vanishes": vanishes(),
            "200 connections": many(200),
        }
        return {name: await passes(test) for name, test in tests.items()}


async def passes(test):
    try:
        await asyncio.wait_for(test, 60)
        return True
    except Exception:  # Whatever it is, the test did not pass.
        return False


def choose(_socket, offered):
    return "chat" if "chat" in offered else None


async def server(socket):
    path = socket.request.path
    if path == "/first":
        await socket.send("hello")
    if path == "/vanish":
        socket.transport.abort()
        return
    async for message in socket:
        if path.startswith("/close/"):
            await socket.close(int(path.removeprefix("/close/")), "because")
            return
        await socket.send(message)


def connect(path="/", **options):
    from websockets.asyncio.client import connect

    return connect(f"ws://127.0.0.1:{scene.LISTENER}{path}", max_size=None, proxy=None, **options)


async def echoes(size):
    async with connect() as socket:
        sent = bytes(index % 251 for index in range(size))
        await socket.send(sent)
        assert await socket.recv() == sent


async def text():
    async with connect() as socket:
        await socket.send("größer")
        assert await socket.recv() == "größer"


async def fragments():
    async with connect() as socket:
        await socket.send(["a" * 1000] * 50)
        assert await socket.recv() == "a" * 50_000


async def ping():
    async with connect() as socket:
        await (await socket.ping("are you there"))


async def subprotocol():
    async with connect(subprotocols=["other", "chat"]) as socket:
        assert socket.subprotocol == "chat"


async def server_first():
    async with connect("/first") as socket:
        assert await socket.recv() == "hello"


async def closes(code):
    async with connect(f"/close/{code}") as socket:
        await socket.send("x")
        await socket.wait_closed()
        assert (socket.close_code, socket.close_reason) == (code, "because")


async def vanishes():
    async with connect("/vanish") as socket:
        await socket.wait_closed()
        assert socket.close_code == 1006


async def many(count):
    await asyncio.gather(*(echoes(1000) for _ in range(count)))
