// A server and a client on @grpc/grpc-js. Usage: grpc_both.mjs serve|ask PORT. The client prints an object, test -> passed.
import grpc from "@grpc/grpc-js";

const raw = (buffer) => buffer;
const method = (name, requestStream, responseStream) => ({
  path: `/test.Test/${name}`, requestStream, responseStream,
  requestSerialize: raw, requestDeserialize: raw, responseSerialize: raw, responseDeserialize: raw,
});
const definition = {
  unary: method("Unary", false, false), many: method("Many", false, true), fails: method("Fails", false, true),
  collected: method("Collected", true, false), each: method("Each", true, true),
};

function serve(port) {
  const server = new grpc.Server();
  server.addService(definition, {
    unary(call, reply) {
      const [command, rest] = call.request.toString("latin1").split(" ");
      if (command === "status") return reply({ code: Number(rest), details: "größer: 100 %" });
      if (command === "sleep") return setTimeout(() => reply(null, call.request), 1000 * Number(rest));
      if (command === "left") return reply(null, Buffer.from(`${call.getDeadline() - Date.now()}`));
      const last = new grpc.Metadata();
      if (command === "metadata") {
        const first = new grpc.Metadata();
        first.set("x-first", call.metadata.get("x-text")[0]);
        call.sendMetadata(first);
        last.set("x-last-bin", call.metadata.get("x-bytes-bin")[0]);
      }
      reply(null, call.request, last);
    },
    many(call) {
      for (let number = 0; number < Number(call.request); number++) call.write(Buffer.from(`${number}`));
      call.end();
    },
    fails(call) {
      call.write(Buffer.from("first"));
      call.emit("error", { code: grpc.status.DATA_LOSS, details: "lost" });
    },
    collected(call, reply) {
      let sum = 0;
      call.on("data", (message) => (sum += message.length));
      call.on("end", () => reply(null, Buffer.from(`${sum}`)));
    },
    each(call) {
      call.on("data", (message) => call.write(message));
      call.on("end", () => call.end());
    },
  });
  server.bindAsync(`127.0.0.1:${port}`, grpc.ServerCredentials.createInsecure(), (error) => { if (error) throw error; });
}

async function ask(port) {
  const Client = grpc.makeGenericClientConstructor(definition, "Test");
  const client = new Client(`127.0.0.1:${port}`, grpc.credentials.createInsecure());
  const unary = (message, metadata = new grpc.Metadata(), options = {}) =>
    new Promise((resolve, reject) =>
      client.unary(Buffer.from(message), metadata, options, (error, reply) => (error ? reject(error) : resolve(reply.toString()))));
  const failed = (promise) => promise.then(() => null, (error) => error);
  const all = async (call) => { const got = []; for await (const message of call) got.push(message.toString()); return got; };
  const ended = (call) => new Promise((resolve) => { call.on("data", () => {}); call.on("error", resolve); });
  const numbers = (count) => Array.from({ length: count }, (_, number) => `${number}`);
  const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);
  const stream = (messages) => { const call = client.each(); messages.forEach((message) => call.write(Buffer.from(message))); call.end(); return call; };

  const tests = {
    unary: async () => (await unary("hello")) === "hello",
    empty: async () => (await unary("")) === "",
    "3 MB": async () => (await unary("x".repeat(3 << 20))).length === 3 << 20,
    "server streaming": async () => same(await all(client.many(Buffer.from("1000"))), numbers(1000)),
    "client streaming": () => new Promise((resolve, reject) => {
      const call = client.collected((error, reply) => (error ? reject(error) : resolve(reply.toString() === "1000000")));
      for (let number = 0; number < 1000; number++) call.write(Buffer.alloc(1000));
      call.end();
    }),
    "both streaming": async () => same(await all(stream(["a", "", "c"])), ["a", "", "c"]),
    "ping pong": async () => {
      const call = client.each();
      let next = 0;
      call.write(Buffer.from("0"));
      for await (const message of call) {
        if (message.toString() !== `${next}`) return false;
        next += 1;
        if (next === 100) call.end(); else call.write(Buffer.from(`${next}`));
      }
      return next === 100;
    },
    "nothing streamed": async () => same(await all(stream([])), []),
    "status after messages": async () => (await ended(client.fails(Buffer.from("")))).code === grpc.status.DATA_LOSS,
    metadata: () => new Promise((resolve, reject) => {
      const metadata = new grpc.Metadata();
      metadata.set("x-text", "a, b");
      metadata.set("x-bytes-bin", Buffer.from([0, 255]));
      let first;
      const call = client.unary(Buffer.from("metadata"), metadata, (error) => error && reject(error));
      call.on("metadata", (got) => (first = got.get("x-first")[0]));
      call.on("status", (status) => resolve(first === "a, b" && status.metadata.get("x-last-bin")[0].equals(Buffer.from([0, 255]))));
    }),
    deadline: async () => (await failed(unary("sleep 5", undefined, { deadline: Date.now() + 500 }))).code === grpc.status.DEADLINE_EXCEEDED,
    "the deadline is passed on": async () => {
      const left = Number(await unary("left", undefined, { deadline: Date.now() + 10_000 }));
      return left > 5000 && left <= 10_100;
    },
    cancelled: async () => {
      const call = client.many(Buffer.from("1000000"));
      setTimeout(() => call.cancel(), 100);
      return (await ended(call)).code === grpc.status.CANCELLED;
    },
    "no such method": async () => (await failed(new Promise((resolve, reject) =>
      client.makeUnaryRequest("/test.Test/No", raw, raw, Buffer.alloc(0), (error) => (error ? reject(error) : resolve()))))).code === grpc.status.UNIMPLEMENTED,
    "500 at once": async () => same(await Promise.all(numbers(500).map((number) => unary(number))), numbers(500)),
  };
  for (const code of [1, 3, 5, 7, 8, 13, 14, 16])
    tests[`status ${code}`] = async () => {
      const error = await failed(unary(`status ${code}`));
      return error.code === code && error.details === "größer: 100 %";
    };
  const passed = {};
  for (const [name, test] of Object.entries(tests)) {
    const late = new Promise((resolve) => setTimeout(resolve, 20_000, false).unref());
    passed[name] = Boolean(await Promise.race([test().catch(() => false), late]));
  }
  console.log(JSON.stringify(passed));
  process.exit(0);
}

const [job, port] = process.argv.slice(2);
({ serve, ask })[job](port);
