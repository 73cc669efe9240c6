"""go-httpbin: what its endpoints answer through a proxy is what they answer through Envoy, as HTTP/1.1 and HTTP/2."""

import re
import subprocess

import scene

PARTS = ["httpbin", "httpbin-h2"]
TITLES = {
    "httpbin": "go-httpbin, HTTP/1.1: status, headers and body as behind Envoy",
    "httpbin-h2": "go-httpbin, HTTP/2: status, headers and body as behind Envoy",
}
# What curl gets besides the URL, and the path.
REQUESTS = [
    ([], path)
    for path in """
    / /get?a=1&b=2&b=3 /headers /ip /user-agent /robots.txt /deny /html /json /xml /forms/post /encoding/utf8 /image/png /image/svg
    /status/200 /status/204 /status/304 /status/400 /status/404 /status/418 /status/429 /status/500 /status/503 /status/299 /status/599
    /redirect/1 /redirect/3 /relative-redirect/2 /absolute-redirect/2 /redirect-to?url=/get&status_code=307
    /cookies /cookies/set?a=1&b=2 /cookies/delete?a /basic-auth/a/b /hidden-basic-auth/a/b /bearer /digest-auth/auth/a/b
    /bytes/0 /bytes/1024?seed=1 /bytes/100000?seed=2 /stream-bytes/100000?seed=3&chunk_size=1000 /range/1024 /stream/1 /stream/20
    /drip?duration=1s&numbytes=100&delay=100ms /drip?duration=0&numbytes=10&code=202 /delay/1 /delay/0.2 /cache /cache/60 /etag/x
    /response-headers?x-a=1&x-a=2 /links/10/0 /links/3 /base64/aGVsbG8= /base64/encode/hello /anything/a/b?c=d /hostname
    /dump/request /trailers?x-trailer=1 /sse?count=3&duration=300ms&delay=0 /unstable?failure_rate=1 /unstable?failure_rate=0 /nothing-here /get/../ip
    """.split()
]
REQUESTS += [
    (["-I"], "/get"),
    (["-I"], "/bytes/1000?seed=1"),
    (["-X", "DELETE"], "/delete"),
    (["-X", "OPTIONS", "-H", "origin: http://a.example"], "/get"),
    (["-X", "PURGE"], "/anything"),
    (["-X", "TRACE"], "/anything"),
    (["-d", "a=1&b=2"], "/post"),
    (["-d", ""], "/post"),
    (["-H", "content-type: application/json", "-d", '{"a": [1]}'], "/post"),
    (["-H", "content-type: multipart/form-data; boundary=b", "-d", '--b\r\ncontent-disposition: form-data; name="a"\r\n\r\n1\r\n--b--\r\n'], "/post"),
    (["-X", "PUT", "-T", "-"], "/put"),
    (["-X", "PATCH", "-d", "x"], "/patch"),
    (["-X", "POST", "-H", "expect: 100-continue", "--expect100-timeout", "15", "--data-binary", "@-"], "/post"),
    (["-H", "transfer-encoding: chunked", "--data-binary", "@-"], "/post"),
    (["-d", "x"], "/get"),
    (["-L"], "/redirect/3"),
    (["-u", "a:b"], "/basic-auth/a/b"),
    (["-u", "a:wrong"], "/basic-auth/a/b"),
    (["--digest", "-u", "a:b"], "/digest-auth/auth/a/b"),
    (["-H", "authorization: Bearer t"], "/bearer"),
    (["-b", "a=1; b=2"], "/cookies"),
    (["-r", "10-19"], "/range/1024"),
    (["-r", "2000-"], "/range/1024"),
    (["-H", 'if-none-match: "x"'], "/etag/x"),
    (["-H", 'if-match: "y"'], "/etag/x"),
    (["-H", "if-modified-since: Sat, 29 Oct 2094 19:43:31 GMT"], "/cache"),
    (["--compressed"], "/bytes/1000?seed=1"),
    (["-H", "te: trailers"], "/trailers?x-trailer=1"),
    (["-H", "connection: x-hop", "-H", "x-hop: 1"], "/headers"),
    (["-H", "x-empty;"], "/headers"),
    (["-H", "x-many: 1", "-H", "x-many: 2"], "/headers"),
    (["-H", "x-forwarded-for: 1.2.3.4", "-H", "x-forwarded-proto: https"], "/headers"),
    (["-H", "x-long: " + "x" * 20_000], "/headers"),
    (["--max-filesize", "1"], "/bytes/10000?seed=1"),
]
BODY = b"0123456789" * 20_000
# Made at random, or times.
CHANCE = [
    (re.compile(rb"(?im)^(date|age|etag|expires|last-modified|x-envoy-upstream-service-time|server-timing): [^\r]*"), rb"\1: -"),
    (re.compile(rb'(?i)("?x-request-id"?[:\s\["]+)[0-9a-f-]{36}'), rb"\1-"),
    (re.compile(rb"(?i)(nonce|opaque|boundary=|cnonce)=?\"?[\w-]+"), rb"\1-"),
    (re.compile(rb"-{10,}[\w-]+"), rb"-"),
    (re.compile(rb"Expires=[^;]+"), rb"-"),
    (re.compile(rb'"?timestamp"?: ?\d+'), rb"-"),
    (re.compile(rb'127.0.0.1:\d+'), rb"-"),
]
# What came through the first proxy.
envoy = {}


def run(part, tools, program):
    version = "--http2-prior-knowledge" if part == "httpbin-h2" else "--http1.1"
    came = {}
    httpbin = [tools / "go-httpbin", "-host", "127.0.0.1", "-port", str(scene.UPSTREAM)]
    with scene.background(*httpbin, port=scene.UPSTREAM), scene.proxy(program, scene.configuration()):
        for flags, path in REQUESTS:
            name = " ".join([*(flag[:40] for flag in flags), path])
            came[name] = ask(version, flags, path)
    if part not in envoy:
        envoy[part] = came
        return {name: True for name in came}
    return {name: answer == envoy[part][name] for name, answer in came.items()}


def ask(version, flags, path):
    """How curl ends, and all that it got."""
    command = ["curl", "-s", "-m", "20", version, "--path-as-is", "--raw", "-D", "-", *flags]
    done = subprocess.run([*command, f"http://127.0.0.1:{scene.LISTENER}{path}"], input=BODY, stdout=subprocess.PIPE)
    text = done.stdout
    for pattern, instead in CHANCE:
        text = pattern.sub(instead, text)
    head, _, body = text.partition(b"\r\n\r\n")
    # An interim response is one head more.
    while head.splitlines()[:1] and b" 100" in head.splitlines()[0]:
        interim, (head, _, body) = head, body.partition(b"\r\n\r\n")
        head += b"\r\n" + interim
    # Pieces of a chunked body are as they come.
    if b"transfer-encoding: chunked" in head:
        body = re.sub(rb"(?m)(^|\r\n)[0-9a-f]+\r\n", b"", body)
    return done.returncode, sorted(head.splitlines()), body
