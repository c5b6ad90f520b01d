// The OpenAI SDK through the gateway: what the client saw is what the ledger has.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import OpenAI from "openai";

import { Gateway, demand, list } from "./bench.mjs";

const MESSAGES = [
  { role: "system", content: "Be brief." },
  { role: "user", content: "Say hello to the gateway." },
];
const FUNCTION = { name: "weather", parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] } };
const CHAT = { model: "gpt-4o-mini", messages: MESSAGES };

let gateway;
before(async () => (gateway = await Gateway.start()));
after(() => gateway.close());

const clientOf = (apiKey, options = {}) => new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey, maxRetries: 0, ...options });

test("a chat", async () => {
  const tenant = gateway.tenant();
  const answer = await clientOf(tenant).chat.completions.create(CHAT);
  assert.match(answer.choices[0].message.content, /^Hello/);
  assert.match(answer._request_id, /^req_demo/);
  const usage = await gateway.booked(tenant, 1);
  demand(usage, answer.usage.prompt_tokens, answer.usage.completion_tokens, "gpt-4o-mini");
  assert.deepEqual([usage.chats, await gateway.chatsUsed(tenant)], [1, 1]);
});

for (const model of ["gpt-4o-mini", "gzip"]) {
  test(`a stream of ${model}, with usage and without`, async () => {
    const [tenant, twin] = [gateway.tenant(), gateway.tenant()];
    const asked = { ...CHAT, model, stream: true, stream_options: { include_usage: true } };
    const chunks = await list(await clientOf(tenant).chat.completions.create(asked));
    const reported = chunks.at(-1).usage;
    assert.equal(chunks.filter((chunk) => chunk.usage).length, 1);
    demand(await gateway.booked(tenant, 1), reported.prompt_tokens, reported.completion_tokens);
    const unasked = await list(await clientOf(twin).chat.completions.create({ ...CHAT, model, stream: true }));
    assert.ok(unasked.every((chunk) => chunk.choices.length > 0 && !chunk.usage));
    demand(await gateway.booked(twin, 1), reported.prompt_tokens, reported.completion_tokens);
  });
}

test("the stream helper", async () => {
  const tenant = gateway.tenant();
  const answer = await clientOf(tenant).chat.completions.stream({ ...CHAT, stream_options: { include_usage: true } }).finalChatCompletion();
  demand(await gateway.booked(tenant, 1), answer.usage.prompt_tokens, answer.usage.completion_tokens);
});

test("tools, in a document and in a stream", async () => {
  const tenant = gateway.tenant();
  const tools = [{ type: "function", function: FUNCTION }];
  const first = await clientOf(tenant).chat.completions.create({ ...CHAT, tools });
  const call = first.choices[0].message.tool_calls[0];
  assert.equal(call.function.name, "weather");
  const messages = [...MESSAGES, first.choices[0].message, { role: "tool", tool_call_id: call.id, content: "Sunny" }];
  const second = await clientOf(tenant).chat.completions.create({ ...CHAT, messages, tools });
  const asked = { ...CHAT, tools, stream: true, stream_options: { include_usage: true } };
  const third = (await list(await clientOf(tenant).chat.completions.create(asked))).at(-1);
  const sum = (name) => first.usage[name] + second.usage[name] + third.usage[name];
  demand(await gateway.booked(tenant, 3), sum("prompt_tokens"), sum("completion_tokens"));
});

test("responses, as a document, as a stream and with tools", async () => {
  const tenant = gateway.tenant();
  const { responses } = clientOf(tenant);
  const options = { model: "gpt-4o-mini", input: "Say hello." };
  const whole = await responses.create(options);
  assert.ok(whole.output_text);
  demand(await gateway.booked(tenant, 1), whole.usage.input_tokens, whole.usage.output_tokens, "gpt-4o-mini");
  const last = (await list(await responses.create({ ...options, stream: true }))).at(-1);
  assert.equal(last.type, "response.completed");
  const called = await responses.create({ ...options, tools: [{ type: "function", strict: false, ...FUNCTION }] });
  assert.equal(called.output[0].type, "function_call");
  const sum = (name) => whole.usage[name] + last.response.usage[name] + called.usage[name];
  demand(await gateway.booked(tenant, 3), sum("input_tokens"), sum("output_tokens"));
});

test("completions, as a document and as a stream", async () => {
  const tenant = gateway.tenant();
  const options = { model: "words-7", prompt: "Say hello." };
  const { usage } = await clientOf(tenant).completions.create(options);
  await list(await clientOf(tenant).completions.create({ ...options, stream: true }));
  demand(await gateway.booked(tenant, 2), 2 * usage.prompt_tokens, 2 * usage.completion_tokens);
});

test("embeddings", async () => {
  const tenant = gateway.tenant();
  const answer = await clientOf(tenant).embeddings.create({ model: "text-embedding-3-small", input: ["one two", "three"] });
  assert.deepEqual(answer.data[0].embedding.slice(0, 2), [0.5, -0.25]);
  const usage = await gateway.booked(tenant, 1);
  demand(usage, answer.usage.prompt_tokens, 0, "text-embedding-3-small");
  assert.equal(usage.chats, 0);
});

test("lists of models are free", async () => {
  const tenant = gateway.tenant();
  assert.ok((await list(clientOf(tenant).models.list())).length > 0);
  await clientOf(tenant).chat.completions.create(CHAT);
  assert.equal((await gateway.booked(tenant, 1)).requests, 1);
});

for (const status of [400, 404, 429, 500]) {
  test(`a ${status} passes and costs nothing`, async () => {
    const tenant = gateway.tenant();
    for (const stream of [false, true]) {
      const call = clientOf(tenant).chat.completions.create({ ...CHAT, model: `error-${status}`, stream });
      await assert.rejects(call, (error) => error instanceof OpenAI.APIError && error.status === status);
    }
    demand(await gateway.booked(tenant, 0, 2), 0, 0);
    assert.equal(await gateway.chatsUsed(tenant), 0);
  });
}

test("each try of a client that tries again is one event", async () => {
  const tenant = gateway.tenant();
  const call = clientOf(tenant, { maxRetries: 2 }).chat.completions.create({ ...CHAT, model: "error-429" });
  await assert.rejects(call, OpenAI.RateLimitError);
  await gateway.booked(tenant, 0, 3);
});

test("a wrong key", async () => {
  await assert.rejects(clientOf("sk-nonsense").chat.completions.create(CHAT), OpenAI.AuthenticationError);
});

test("a 402 is not tried again", async () => {
  const tenant = gateway.tenant();
  await gateway.useUp(tenant);
  for (const stream of [false, true]) {
    const call = clientOf(tenant, { maxRetries: 2 }).chat.completions.create({ ...CHAT, stream });
    await assert.rejects(call, (error) => error.status === 402 && error.code === "quota_exceeded" && error.error.quota.used === 500);
  }
  assert.equal((await gateway.booked(tenant, 500)).chats, 500);
});

test("a stream that is left is booked to its end", async () => {
  const tenant = gateway.tenant();
  const stream = await clientOf(tenant).chat.completions.create({ ...CHAT, model: "words-100+pace-5ms", stream: true });
  for await (const chunk of stream) if (chunk.choices[0].delta.content) break;
  const usage = await gateway.booked(tenant, 1);
  assert.deepEqual([usage.completion_tokens, usage.estimated.requests], [100, 0]);
});

test("a stream that breaks off is seen and estimated", async () => {
  const tenant = gateway.tenant();
  const options = { ...CHAT, model: "words-50+cut-20+pace-1ms", stream: true };
  await assert.rejects(async () => list(await clientOf(tenant).chat.completions.create(options)));
  const usage = await gateway.booked(tenant, 1);
  assert.equal(usage.estimated.requests, 1);
  assert.ok(usage.completion_tokens > 0);
});
