// What the SDK suite stands on: the real binary with its simulated provider, and the ledger's word on each tenant.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import http from "node:http";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";

const START_MS = 30_000;
const BOOKED_MS = 10_000;

// Dollars a million tokens, in and out: the providers' public price lists.
const PRICES = { "gpt-4o-mini": [0.15, 0.6], "gemini-2.5-flash": [0.3, 2.5], "text-embedding-3-small": [0.02, 0] };

let number = 0;

/** `tollgate demo` as a child process on free ports, in dev mode: a test has a tenant of its own by naming one. */
export class Gateway {
  static async start() {
    const directory = await mkdtemp(path.join(tmpdir(), "tollgate-node-"));
    const options = {
      cwd: directory,
      env: { PATH: process.env.PATH, RUST_LOG: "warn" },
      stdio: ["ignore", "pipe", "pipe"],
    };
    const free = "127.0.0.1:0";
    const words = ["demo", "--listen", free, "--admin-listen", free, "--data-dir", path.join(directory, "data")];
    const child = spawn(process.env.TOLLGATE_BINARY, words, options);
    const gateway = new Gateway();
    Object.assign(gateway, { child, directory, log: "" });
    await new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`no ready line; the log:\n${gateway.log}`)), START_MS);
      const read = (text) => {
        gateway.log += text;
        const ready = /^tollgate ready proxy=(\S+) admin=\S+$/m.exec(gateway.log);
        if (ready) {
          gateway.url = `http://${ready[1]}`;
          clearTimeout(timer);
          resolve();
        }
      };
      child.stdout.on("data", read);
      child.stderr.on("data", read);
      child.on("error", reject);
    });
    return gateway;
  }

  async close() {
    const ended = new Promise((resolve) => this.child.on("exit", (code, signal) => resolve(code ?? signal)));
    this.child.kill("SIGTERM");
    assert.equal(await ended, 0, this.log);
    assert.ok(!this.log.includes("panicked"), this.log);
    await rm(this.directory, { recursive: true });
  }

  /** A tenant that nothing was booked for yet. */
  tenant() {
    number += 1;
    return `node-${number}`;
  }

  async billing(route, tenant) {
    const answer = await fetch(this.url + route, { headers: { Authorization: `Bearer ${tenant}` } });
    assert.equal(answer.status, 200);
    return answer.json();
  }

  /** The tenant's usage as soon as so many calls are in the ledger, and no more than those. */
  async booked(tenant, requests, failed = 0) {
    const deadline = Date.now() + BOOKED_MS;
    for (;;) {
      const usage = await this.billing("/billing/usage?range=month", tenant);
      const said = `${usage.requests} and ${usage.failed_requests} failed are booked`;
      assert.ok(usage.requests <= requests && usage.failed_requests <= failed, said);
      if (usage.requests === requests && usage.failed_requests === failed) return usage;
      assert.ok(Date.now() < deadline, said);
      await pause(20);
    }
  }

  async chatsUsed(tenant) {
    return (await this.billing("/billing/limits", tenant)).used;
  }

  /** Makes all chats of the starter plan. */
  async useUp(tenant) {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 4 });
    const body = JSON.stringify({ model: "words-1", messages: [{ role: "user", content: "x" }] });
    const call = () =>
      new Promise((resolve, reject) => {
        const headers = { Authorization: `Bearer ${tenant}`, "Content-Type": "application/json", "Content-Length": body.length };
        const request = http.request(`${this.url}/v1/chat/completions`, { method: "POST", agent, headers }, (answer) => {
          answer.resume().on("end", () => resolve(answer.statusCode));
        });
        request.on("error", reject).end(body);
      });
    const statuses = await Promise.all(Array.from({ length: 500 }, call));
    agent.destroy();
    assert.deepEqual([...new Set(statuses)], [200]);
    assert.equal(await this.chatsUsed(tenant), 500);
  }
}

/** The ledger has these tokens, none of them estimated, and their exact cost where the model is named. */
export function demand(usage, prompt, completion, model) {
  assert.deepEqual([usage.prompt_tokens, usage.completion_tokens], [prompt, completion]);
  assert.equal(usage.total_tokens, prompt + completion);
  assert.equal(usage.estimated.requests, 0);
  if (model) {
    const [into, out] = PRICES[model];
    // A JSON number is a double here: its 15 digits are compared. The Python suite compares every digit.
    const pico = Math.round((prompt * into + completion * out) * 1e6);
    assert.equal(Math.round(usage.estimated_cost_usd * 1e12), pico);
    assert.equal(usage.unpriced_requests, 0);
  }
}

/** All items of a stream. */
export async function list(stream) {
  const items = [];
  for await (const item of stream) items.push(item);
  return items;
}
