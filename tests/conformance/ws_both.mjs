// A server and a client on npm's ws. Usage: ws_both.mjs serve|ask PORT. The client prints an object, test -> passed.
import { WebSocket, WebSocketServer } from "ws";

function serve(port) {
  const server = new WebSocketServer({ host: "127.0.0.1", port, maxPayload: 0, perMessageDeflate: { threshold: 1 }, handleProtocols: (offered) => (offered.has("chat") ? "chat" : false) });
  server.on("connection", (socket, request) => {
    socket.on("error", () => {});
    if (request.url === "/first") socket.send("hello");
    if (request.url === "/vanish") return socket.terminate();
    if (request.url === "/ping") { socket.on("pong", (data) => socket.send(`pong ${data}`)); socket.ping("you"); }
    socket.on("message", (data, isBinary) => {
      if (request.url.startsWith("/close/")) return socket.close(Number(request.url.slice(7)), "because");
      socket.send(data, { binary: isBinary });
    });
  });
}

const open = (path = "/", protocols = [], options = { perMessageDeflate: false }) =>
  new Promise((resolve, reject) => {
    const socket = new WebSocket(`ws://127.0.0.1:${globalThis.port}${path}`, protocols, { maxPayload: 0, ...options });
    // A server that speaks first may do so before anybody listens.
    socket.inbox = [];
    socket.on("message", (data, isBinary) => { socket.inbox.push([data, isBinary]); socket.emit("came"); });
    socket.on("open", () => resolve(socket));
    socket.on("error", reject);
  });
const next = async (socket) => {
  while (socket.inbox.length === 0) await new Promise((resolve) => socket.once("came", resolve));
  return socket.inbox.shift();
};
const closed = (socket) => new Promise((resolve) => socket.on("close", (code, reason) => resolve([code, `${reason}`])));

async function echoes(size, options) {
  const socket = await open("/", [], options);
  const sent = Buffer.from(Array.from({ length: Math.min(size, 251) }, (_, index) => index));
  const message = Buffer.alloc(size, sent.length ? sent : "");
  socket.send(message);
  const [data, isBinary] = await next(socket);
  socket.close();
  return isBinary && data.equals(message);
}

async function ask() {
  const tests = {};
  for (const size of [0, 1, 125, 126, 65_535, 65_536, 1 << 20, 8 << 20]) tests[`${size} bytes`] = () => echoes(size);
  tests["compressed"] = () => echoes(1 << 20, { perMessageDeflate: true });
  for (const code of [1000, 1001, 1011, 3000, 4999])
    tests[`close with ${code}`] = async () => {
      const socket = await open(`/close/${code}`);
      const end = closed(socket);
      socket.send("x");
      const [got, reason] = await end;
      return got === code && reason === "because";
    };
  Object.assign(tests, {
    text: async () => { const socket = await open(); socket.send("größer"); const [data] = await next(socket); socket.close(); return `${data}` === "größer"; },
    fragments: async () => {
      const socket = await open();
      for (let part = 0; part < 50; part++) socket.send("a".repeat(1000), { fin: part === 49 });
      const [data] = await next(socket);
      socket.close();
      return `${data}` === "a".repeat(50_000);
    },
    "ping of the client": async () => { const socket = await open(); const pong = new Promise((resolve) => socket.on("pong", resolve)); socket.ping("me"); const data = await pong; socket.close(); return `${data}` === "me"; },
    "ping of the server": async () => { const socket = await open("/ping"); const [data] = await next(socket); socket.close(); return `${data}` === "pong you"; },
    subprotocol: async () => { const socket = await open("/", ["other", "chat"]); socket.close(); return socket.protocol === "chat"; },
    "server speaks first": async () => { const socket = await open("/first"); const [data] = await next(socket); socket.close(); return `${data}` === "hello"; },
    "the server vanishes": async () => (await closed(await open("/vanish")))[0] === 1006,
    "the client vanishes": async () => { const socket = await open(); const end = closed(socket); socket.terminate(); return (await end)[0] === 1006; },
    "a thousand messages": async () => {
      const socket = await open();
      for (let number = 0; number < 1000; number++) socket.send(`${number}`);
      for (let number = 0; number < 1000; number++) if (`${(await next(socket))[0]}` !== `${number}`) return false;
      socket.close();
      return true;
    },
    "200 connections": async () => (await Promise.all(Array.from({ length: 200 }, () => echoes(1000)))).every(Boolean),
  });
  const passed = {};
  for (const [name, test] of Object.entries(tests)) {
    const late = new Promise((resolve) => setTimeout(resolve, 30_000, false).unref());
    passed[name] = Boolean(await Promise.race([test().catch(() => false), late]));
  }
  console.log(JSON.stringify(passed));
  process.exit(0);
}

const [job, port] = process.argv.slice(2);
globalThis.port = port;
({ serve, ask })[job](port);
