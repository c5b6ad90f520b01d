// The Google SDK through the gateway: what the client saw is what the ledger has.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { ApiError, GoogleGenAI, Type } from "@google/genai";

import { Gateway, demand, list } from "./bench.mjs";

const MODEL = "gemini-2.5-flash";
const CALL = { model: MODEL, contents: "Say hello to the gateway." };
const FUNCTION = { name: "weather", parameters: { type: Type.OBJECT, properties: { city: { type: Type.STRING } } } };

let gateway;
before(async () => (gateway = await Gateway.start()));
after(() => gateway.close());

const clientOf = (apiKey, apiVersion = "v1beta") => new GoogleGenAI({ apiKey, apiVersion, httpOptions: { baseUrl: gateway.url } });
const output = (usage) => (usage.candidatesTokenCount ?? 0) + (usage.thoughtsTokenCount ?? 0);

for (const version of ["v1", "v1beta"]) {
  test(`a generation by ${version}`, async () => {
    const tenant = gateway.tenant();
    const answer = await clientOf(tenant, version).models.generateContent(CALL);
    assert.match(answer.text, /^Hello/);
    const usage = await gateway.booked(tenant, 1);
    demand(usage, answer.usageMetadata.promptTokenCount, output(answer.usageMetadata), MODEL);
    assert.deepEqual([usage.chats, await gateway.chatsUsed(tenant)], [1, 1]);
  });

  for (const model of [MODEL, "gzip"]) {
    test(`a stream of ${model} by ${version}`, async () => {
      const tenant = gateway.tenant();
      const chunks = await list(await clientOf(tenant, version).models.generateContentStream({ ...CALL, model }));
      assert.equal(chunks.length, 12);
      const reported = chunks.at(-1).usageMetadata;
      demand(await gateway.booked(tenant, 1), reported.promptTokenCount, output(reported));
    });
  }
}

test("a conversation", async () => {
  const tenant = gateway.tenant();
  const chat = clientOf(tenant).chats.create({ model: MODEL });
  const first = (await chat.sendMessage({ message: "Hello." })).usageMetadata;
  const second = (await list(await chat.sendMessageStream({ message: "And again." }))).at(-1).usageMetadata;
  demand(await gateway.booked(tenant, 2), first.promptTokenCount + second.promptTokenCount, output(first) + output(second));
});

test("tools", async () => {
  const tenant = gateway.tenant();
  const config = { tools: [{ functionDeclarations: [FUNCTION] }] };
  const answer = await clientOf(tenant).models.generateContent({ ...CALL, config });
  assert.equal(answer.functionCalls[0].name, "weather");
  demand(await gateway.booked(tenant, 1), answer.usageMetadata.promptTokenCount, output(answer.usageMetadata));
});

test("a count of tokens is free", async () => {
  const tenant = gateway.tenant();
  const { totalTokens } = await clientOf(tenant).models.countTokens(CALL);
  const { usageMetadata } = await clientOf(tenant).models.generateContent(CALL);
  assert.equal(totalTokens, usageMetadata.promptTokenCount);
  demand(await gateway.booked(tenant, 1), totalTokens, output(usageMetadata));
});

test("embeddings", async () => {
  const [tenant, silent] = [gateway.tenant(), gateway.tenant()];
  const answer = await clientOf(tenant).models.embedContent({ model: "gemini-embedding-2", contents: ["one two three", "four"] });
  assert.deepEqual(answer.embeddings[0].values.slice(0, 2), [0.5, -0.25]);
  demand(await gateway.booked(tenant, 1), 4, 0);
  await clientOf(silent).models.embedContent({ model: "gemini-embedding-001", contents: "one two three" });
  assert.equal((await gateway.booked(silent, 1)).estimated.requests, 1);
});

for (const status of [400, 404, 429, 500]) {
  test(`a ${status} passes and costs nothing`, async () => {
    const tenant = gateway.tenant();
    const options = { ...CALL, model: `error-${status}` };
    const isIt = (error) => error instanceof ApiError && error.status === status;
    await assert.rejects(clientOf(tenant).models.generateContent(options), isIt);
    await assert.rejects(clientOf(tenant).models.generateContentStream(options), isIt);
    demand(await gateway.booked(tenant, 0, 2), 0, 0);
    assert.equal(await gateway.chatsUsed(tenant), 0);
  });
}

test("a wrong key", async () => {
  await assert.rejects(clientOf("AIza-nonsense").models.generateContent(CALL), (error) => error.status === 401);
});

test("a 402", async () => {
  const tenant = gateway.tenant();
  await gateway.useUp(tenant);
  await assert.rejects(clientOf(tenant).models.generateContent(CALL), (error) => error.status === 402 && error.message.includes("500 of 500 chats"));
  assert.equal((await gateway.booked(tenant, 500)).chats, 500);
});

test("a stream that is left is booked to its end", async () => {
  const tenant = gateway.tenant();
  const abort = new AbortController();
  const options = { ...CALL, model: "words-100", config: { abortSignal: abort.signal } };
  for await (const chunk of await clientOf(tenant).models.generateContentStream(options)) {
    assert.ok(chunk.text);
    abort.abort();
    break;
  }
  const usage = await gateway.booked(tenant, 1);
  assert.deepEqual([usage.completion_tokens, usage.estimated.requests], [100, 0]);
});
