"""Databases with their own clients through two proxies as TCP, mutual TLS between them. MySQL's server speaks first; `mongo_proxy` reads along."""

import contextlib
import shutil
import socket
import struct
import subprocess
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pymongo
import scene
from scene import succeeds

PARTS = ["redis", "mariadb", "postgresql", "mongodb"]
TITLES = {
    "redis": "Redis 7, redis-cli and redis-benchmark, through two sidecars",
    "mariadb": "MariaDB, mysql, mysqldump and mysqlslap, through two sidecars",
    "postgresql": "PostgreSQL, psql and pgbench, through two sidecars",
    "mongodb": "mongo-java-server (MongoDB's protocol), pymongo, through two sidecars with mongo_proxy",
}
HOST = "127.0.0.1"
MONGO_PROXY = {
    "name": "mongo",
    "typed_config": {"@type": f"{scene.TYPES}.filters.network.mongo_proxy.v3.MongoProxy", "stat_prefix": "conformance", "commands": ["isMaster"]},
}
UPSTREAM, LISTENER = str(scene.UPSTREAM), str(scene.LISTENER)


def run(part, tools, program):
    if part == "mongodb":
        # The server's port is its own choice.
        with mongodb(tools), scene.sidecars(program, upstream=27017, before=[MONGO_PROXY]):
            return {name: bool(test()) for name, test in mongodb_tests().items()}
    server, tests = {"redis": (redis, redis_tests), "mariadb": (mariadb, mariadb_tests), "postgresql": (postgresql, postgresql_tests)}[part]
    with tempfile.TemporaryDirectory(prefix="outrigger-") as folder:
        folder = Path(folder)
        folder.chmod(0o777)
        with server(folder), scene.sidecars(program):
            return {name: bool(test()) for name, test in tests(folder).items()}


def redis(folder):
    return scene.background("redis-server", "--port", UPSTREAM, "--bind", HOST, "--save", "", "--dir", folder, port=scene.UPSTREAM)


def redis_tests(folder):
    cli = ["redis-cli", "-h", HOST, "-p", LISTENER]
    sets = b"".join(b"SET key%d %s\r\n" % (number, b"x" * 100) for number in range(10_000))
    large = b"y" * (4 << 20)

    def subscribes():
        """A message that only the server begins."""
        subscriber = subprocess.Popen([*cli, "SUBSCRIBE", "news"], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        try:
            time.sleep(0.5)
            published = succeeds(*cli, "PUBLISH", "news", "hello", says=b"1")
            time.sleep(0.5)
        finally:
            subscriber.terminate()
        return published and b"hello" in subscriber.communicate()[0]

    return {
        "ping": lambda: succeeds(*cli, "PING", says=b"PONG"),
        "4 MB": lambda: succeeds(*cli, "-x", "SET", "large", given=large) and succeeds(*cli, "STRLEN", "large", says=b"4194304"),
        "4 MB back": lambda: succeeds(*cli, "GET", "large", says=large),
        "pipe": lambda: succeeds(*cli, "--pipe", given=sets, says=b"errors: 0, replies: 10000"),
        "transaction": lambda: succeeds(*cli, given=b"MULTI\nINCR n\nINCR n\nEXEC\n", says=b"1\n2\n"),
        "blocking pop": lambda: not succeeds(*cli, "BLPOP", "nothing", "1", says=b"nothing"),
        "subscribe": subscribes,
        "scan": lambda: succeeds(*cli, "--scan", "--pattern", "key99*", says=b"key9999"),
        "benchmark": lambda: succeeds(
            "redis-benchmark", "-h", HOST, "-p", LISTENER, "-q", "-n", "10000", "-c", "50", "-P", "16", "-t", "set,get,lrange_100"
        ),
        "200 connections": lambda: succeeds("redis-benchmark", "-h", HOST, "-p", LISTENER, "-q", "-n", "5000", "-c", "200", "-t", "ping"),
    }


@contextlib.contextmanager
def mariadb(folder):
    data = folder / "mariadb"
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(["mariadb-install-db", f"--datadir={data}", "--user=mysql", "--auth-root-authentication-method=normal"], **quiet)
    flags = ["--no-defaults", f"--datadir={data}", "--user=mysql", f"--port={UPSTREAM}", f"--bind-address={HOST}", "--skip-grant-tables"]
    flags += [f"--socket={folder}/mysql.sock", f"--pid-file={folder}/mysql.pid", "--max-allowed-packet=64M", "--skip-networking=0"]
    with scene.background(shutil.which("mariadbd") or "/usr/sbin/mariadbd", *flags, port=scene.UPSTREAM):
        yield


def mariadb_tests(folder):
    at = ["--no-defaults", "-h", HOST, "-P", LISTENER, "-u", "root", "--protocol=tcp"]
    mysql = ["mysql", *at, "--max-allowed-packet=64M", "-N"]
    rows = b"".join(b"INSERT INTO t VALUES (%d, REPEAT('x', 100));\n" % number for number in range(5000))
    return {
        "select": lambda: succeeds(*mysql, "-e", "SELECT 6 * 7", says=b"42"),
        "schema": lambda: succeeds(*mysql, "-e", "CREATE DATABASE d; CREATE TABLE d.t (n INT PRIMARY KEY, s VARCHAR(200)); CREATE TABLE d.b (s LONGBLOB)"),
        "5000 inserts": lambda: succeeds(*mysql, "d", given=b"BEGIN;\n" + rows + b"COMMIT;\n")
        and succeeds(*mysql, "d", "-e", "SELECT COUNT(*) FROM t", says=b"5000"),
        "rollback": lambda: succeeds(*mysql, "d", "-e", "BEGIN; DELETE FROM t; ROLLBACK; SELECT COUNT(*) FROM t", says=b"5000"),
        "8 MB": lambda: succeeds(*mysql, "d", given=b"INSERT INTO b VALUES ('" + b"z" * (8 << 20) + b"');")
        and succeeds(*mysql, "d", "-e", "SELECT LENGTH(s) FROM b", says=b"8388608"),
        "8 MB back": lambda: succeeds(*mysql, "d", "-e", "SELECT s FROM b", says=b"z" * (8 << 20)),
        "dump": lambda: succeeds("mysqldump", *at, "d", "t", says=b"Dump completed"),
        "an error": lambda: not succeeds(*mysql, "d", "-e", "SELECT * FROM nothing"),
        "slow query": lambda: succeeds(*mysql, "-e", "SELECT SLEEP(2)", says=b"0"),
        "20 connections": lambda: succeeds(
            "mysqlslap", *at, "--concurrency=20", "--iterations=1", "--number-of-queries=400", "--auto-generate-sql"
        ),
    }


@contextlib.contextmanager
def postgresql(folder):
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
    data = folder / "postgresql"
    # The server refuses root.
    user = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"]
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/"}
    subprocess.run([*user, programs / "initdb", "-D", data, "-A", "trust", "-U", "postgres", "-N"], **quiet)
    flags = ["-D", data, "-h", HOST, "-p", UPSTREAM, "-c", f"unix_socket_directories={folder}", "-F"]
    with scene.background(*user, programs / "postgres", *flags, port=scene.UPSTREAM):
        yield


def postgresql_tests(folder):
    at = ["-h", HOST, "-p", LISTENER, "-U", "postgres"]
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
    psql = [programs / "psql", *at, "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1"]
    rows = b"".join(b"%d\t%s\n" % (number, b"x" * 100) for number in range(20_000))

    def notified():
        """LISTEN and NOTIFY of another session."""
        listener = subprocess.Popen([*psql], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        listener.stdin.write(b"LISTEN news;\n")
        listener.stdin.flush()
        time.sleep(0.5)
        succeeds(*psql, "-c", "NOTIFY news, 'hello'")
        return b"hello" in listener.communicate(b"SELECT 1;\n", 20)[0]

    return {
        "select": lambda: succeeds(*psql, "-c", "SELECT 6 * 7", says=b"42"),
        "copy in": lambda: succeeds(*psql, "-c", "CREATE TABLE t (n INT PRIMARY KEY, s TEXT)")
        and succeeds(*psql, "-c", "COPY t FROM STDIN", given=rows, says=b"COPY 20000"),
        "copy out": lambda: succeeds(*psql, "-c", "COPY (SELECT * FROM t ORDER BY n) TO STDOUT", says=rows),
        "8 MB": lambda: succeeds(*psql, "-c", "SELECT repeat('y', 8388608)", says=b"y" * (8 << 20)),
        "an error": lambda: not succeeds(*psql, "-c", "SELECT * FROM nothing"),
        "rollback": lambda: succeeds(*psql, given=b"BEGIN; DELETE FROM t; ROLLBACK; SELECT COUNT(*) FROM t;", says=b"20000"),
        "listen and notify": notified,
        "slow query": lambda: succeeds(*psql, "-c", "SELECT pg_sleep(2)"),
        "pgbench": lambda: succeeds(programs / "pgbench", *at, "-i", "-q", "-s", "1", "postgres")
        and succeeds(programs / "pgbench", *at, "-c", "10", "-t", "50", "postgres", says=b"500/500"),
        "pgbench, prepared statements, new connections": lambda: succeeds(
            programs / "pgbench", *at, "-c", "10", "-t", "10", "-C", "-M", "prepared", "postgres", says=b"100/100"
        ),
    }


def mongodb(tools):
    return scene.background("java", "-cp", f"{tools}/mongodb/*", "de.bwaldvogel.mongo.InMemoryMongoServer", port=27017)


def mongodb_tests():
    # Connects when it is first asked.
    client = pymongo.MongoClient(HOST, scene.LISTENER, directConnection=True, serverSelectionTimeoutMS=10_000, connect=False)
    things = client.shop.things

    def counted(name):
        text = urllib.request.urlopen(f"http://{HOST}:{scene.ADMIN}/stats?filter=^mongo").read().decode()
        return next((int(line.split(": ")[1]) for line in text.splitlines() if line.startswith(f"mongo.conformance.{name}: ")), 0)

    def old_client():
        """OP_QUERY and OP_REPLY, as drivers of old speak, and the first question of today's."""
        document = b"\x10ismaster\0" + struct.pack("<i", 1) + b"\0"
        body = struct.pack("<i", 0) + b"admin.$cmd\0" + struct.pack("<ii", 0, -1) + struct.pack("<i", len(document) + 4) + document
        before = {name: counted(name) for name in ("op_query", "op_reply", "cmd.isMaster.total", "decoding_error")}
        with socket.create_connection((HOST, scene.LISTENER), 10) as connection:
            connection.sendall(struct.pack("<iiii", 16 + len(body), 7, 0, 2004) + body)
            _, _, response_to, operation = struct.unpack("<iiii", connection.recv(16, socket.MSG_WAITALL))
        after = {name: counted(name) for name in before}
        return (response_to, operation) == (7, 1) and [after[name] - before[name] for name in before] == [1, 1, 1, 0]

    def new_client():
        """What today's drivers speak after that is not understood, and passed on."""
        before = counted("decoding_error")
        with pymongo.MongoClient(HOST, scene.LISTENER, directConnection=True) as another:
            return another.admin.command("ping")["ok"] == 1 and counted("decoding_error") > before

    def fails(call, error):
        try:
            call()
        except error:
            return True
        return False

    def one(number):
        things.insert_one({"_id": f"thread {number}"})
        return things.find_one({"_id": f"thread {number}"}) is not None

    def from_threads():
        with ThreadPoolExecutor(20) as threads:
            return all(threads.map(one, range(400)))

    return {
        # While no other client asks anything.
        "OP_QUERY is counted": old_client,
        "OP_MSG is passed on": new_client,
        "ping": lambda: client.admin.command("ping")["ok"] == 1,
        "5000 inserts": lambda: len(things.insert_many({"_id": number, "s": "x" * 100} for number in range(5000)).inserted_ids) == 5000,
        "count": lambda: things.count_documents({}) == 5000,
        "cursor": lambda: sum(1 for _ in things.find({}, batch_size=100)) == 5000,
        "update": lambda: things.update_many({"_id": {"$lt": 100}}, {"$set": {"s": "y"}}).modified_count == 100,
        "aggregate": lambda: next(things.aggregate([{"$group": {"_id": None, "sum": {"$sum": "$_id"}}}]))["sum"] == 12_497_500,
        "8 MB and back": lambda: things.insert_one({"_id": "large", "b": b"z" * (8 << 20)}).acknowledged
        and things.find_one({"_id": "large"})["b"] == b"z" * (8 << 20),
        "an error": lambda: fails(lambda: things.insert_one({"_id": 1}), pymongo.errors.DuplicateKeyError),
        "delete": lambda: things.delete_many({"_id": {"$lt": 1000}}).deleted_count == 1000,
        "20 threads": from_threads,
    }
