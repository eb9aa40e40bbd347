// Runs a workflow of a comfyserve over its WebSocket API, in a page or in Node 22 and newer.
//
// In a page:   import { run } from "./client.mjs";
//              const job = await run("http://127.0.0.1:8189", "text_to_image", { prompt: "a fox" });
// In a shell:  node client.mjs http://127.0.0.1:8189 text_to_image prompt="a fox in the snow"
//
// A connection that breaks is made again, and nothing that lasts is missed.

const OVER = ["succeeded", "failed", "canceled", "expired"];
const TRIES = 30;

// Resolves to { id, status, outputs } once the job is over. Where the server asks for a key, it is
// the token. onEvent is given each event, onPreview a head and a Blob.
export async function run(server, workflow, inputs, { token, onEvent, onPreview } = {}) {
  const job = { id: null, status: "", outputs: [], after: 0 };
  // Sent again after a broken connection, it is still the same job.
  const submission = { workflow, inputs, idempotency_key: crypto.randomUUID() };
  for (let tried = 0; tried < TRIES && !OVER.includes(job.status); tried++) {
    if (tried > 0) await new Promise((again) => setTimeout(again, 1000));
    await talk(server, token, job, submission, { onEvent, onPreview });
  }
  return job;
}

// One connection, to its end. Rejects where the server refuses what was asked for.
function talk(server, token, job, submission, { onEvent, onPreview }) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(`${server.replace(/^http/, "ws")}/api/ws`);
    const say = (message) => socket.send(JSON.stringify(message));
    socket.binaryType = "arraybuffer";
    socket.onopen = () => token && say({ type: "auth", token });
    socket.onclose = socket.onerror = () => resolve();
    socket.onmessage = ({ data }) => {
      if (typeof data !== "string") return onPreview?.(...preview(data));
      const said = JSON.parse(data);
      switch (said.type) {
        case "ready":
          if (job.id === null) say({ type: "submit", id: 1, ...submission });
          else say({ type: "follow", id: 2, job_id: job.id, after: job.after });
          break;
        case "submitted":
          job.id = said.job.id;
          break;
        case "event":
          // Those with a number come once and in order; the others are only passing.
          job.after = said.seq ?? job.after;
          if (said.event === "status") job.status = said.data.status;
          if (said.event === "output") job.outputs.push(said.data);
          onEvent?.(said);
          if (OVER.includes(job.status)) socket.close();
          break;
        case "error":
          socket.close();
          reject(new Error(said.error.message));
      }
    };
  });
}

// The length of the head in four bytes, the head as JSON, the picture.
function preview(data) {
  const size = new DataView(data).getUint32(0);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, size)));
  return [head, new Blob([data.slice(4 + size)], { type: head.content_type })];
}

async function main(server, workflow, ...values) {
  if (!workflow) throw new Error("node client.mjs SERVER WORKFLOW NAME=VALUE ...");
  if (!globalThis.WebSocket) throw new Error("This needs Node 22 or newer, which has WebSocket.");
  const { writeFile } = await import("node:fs/promises");
  const { basename } = await import("node:path");
  const inputs = Object.fromEntries(values.map(read));
  const job = await run(server, workflow, inputs, {
    token: process.env.COMFYSERVE_TOKEN,
    onEvent: ({ event, data }) => console.log(event, data.status ?? data.value ?? data.name ?? ""),
    onPreview: (head, picture) => console.log("preview of", head.job_id, picture.size, "bytes"),
  });
  for (const output of job.outputs) {
    const answer = await fetch(output.url);
    if (!answer.ok) throw new Error(`${output.url} answers ${answer.status}`);
    await writeFile(basename(output.name), Buffer.from(await answer.arrayBuffer()));
    console.log("saved", basename(output.name));
  }
  if (job.status !== "succeeded") throw new Error(`The job ended as ${job.status || "nobody knows"}.`);
}

function read(text) {
  const [name, ...rest] = text.split("=");
  try {
    return [name, JSON.parse(rest.join("="))];
  } catch {
    return [name, rest.join("=")];
  }
}

if (globalThis.process?.argv?.[1]) {
  const { pathToFileURL } = await import("node:url");
  if (import.meta.url === pathToFileURL(process.argv[1]).href) await main(...process.argv.slice(2));
}
