// Vercel's AI SDK, with its packages for both providers.
import { createGoogleGenerativeAI } from "@ai-sdk/google";
import { createOpenAI } from "@ai-sdk/openai";
import { embedMany, experimental_generateSpeech as say, experimental_transcribe as hear, generateImage, generateObject, generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";

import { compare, refused } from "./suite.mjs";

const ASK = { system: "Be brief.", prompt: "What is the toll, please? ü€", maxRetries: 0 };
const CITY = jsonSchema({ type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false });
const weather = tool({ description: "How the weather is.", inputSchema: CITY, execute: async ({ city }) => `sunny in ${city}` });
const TOOLS = { ...ASK, tools: { weather }, stopWhen: stepCountIs(3) };

/** What of a result is the provider's: it has the moment and the head of its answer beside it. */
const told = (result) => ({ text: result.text, usage: result.totalUsage, reason: result.finishReason, steps: result.steps?.length });

async function streamed(options) {
  const result = streamText({ ...options, onError: ({ error }) => console.error(String(error)) });
  const texts = [];
  for await (const text of result.textStream) texts.push(text);
  return { texts, usage: await result.totalUsage, steps: (await result.steps).length };
}

/** What can be asked of any model of text. */
async function texts(client, name, streamName, model) {
  await compare(client, name, async (to) => told(await generateText({ ...ASK, model: model(to) })));
  await compare(client, `${name}, tools by itself`, async (to) => told(await generateText({ ...TOOLS, model: model(to) })));
  await compare(client, `${name}, structured`, async (to) => {
    const { object, usage } = await generateObject({ ...ASK, model: model(to), schema: CITY });
    return { object, usage };
  });
  await compare(client, streamName, (to) => streamed({ ...ASK, model: model(to) }));
  await compare(client, `${streamName}, tools by itself`, (to) => streamed({ ...TOOLS, model: model(to) }));
  await refused(client, "a 402", async (to) => told(await generateText({ ...ASK, model: model(to) })));
}

const openai = (to) => createOpenAI({ baseURL: to.openai, apiKey: to.key });
const google = (to) => createGoogleGenerativeAI({ baseURL: `${to.root}/v1beta`, apiKey: to.key });

const OPENAI = "ai with @ai-sdk/openai";
const GOOGLE = "ai with @ai-sdk/google";
await texts(OPENAI, "chat", "chat, stream", (to) => openai(to).chat("gpt-4o-mini"));
await texts(OPENAI, "responses", "responses, stream", (to) => openai(to).responses("gpt-4o-mini"));
await texts(GOOGLE, "generateContent", "streamGenerateContent", (to) => google(to)("gemini-2.5-flash"));

const VALUES = { values: ["one two", "three"], maxRetries: 0 };
const embedded = async (model) => {
  const { embeddings, usage } = await embedMany({ ...VALUES, model });
  return { embeddings, usage };
};
await compare(OPENAI, "completions", async (to) => told(await generateText({ ...ASK, model: openai(to).completion("gpt-3.5-turbo-instruct") })));
await compare(OPENAI, "embeddings", (to) => embedded(openai(to).textEmbeddingModel("text-embedding-3-small")));
await compare(OPENAI, "images", async (to) => (await generateImage({ prompt: "A toll gate", model: openai(to).image("gpt-image-1"), maxRetries: 0 })).image.base64);
await compare(OPENAI, "speech", async (to) => (await say({ text: "Please pay.", model: openai(to).speech("gpt-4o-mini-tts"), maxRetries: 0 })).audio.base64);
await compare(OPENAI, "transcription", async (to) => (await hear({ audio: Buffer.from("RIFF0000WAVE"), model: openai(to).transcription("gpt-4o-transcribe"), maxRetries: 0 })).text);
await compare(GOOGLE, "embed, with usage", (to) => embedded(google(to).textEmbeddingModel("gemini-embedding-2")));
await compare(GOOGLE, "predict (Imagen)", async (to) => (await generateImage({ prompt: "A toll gate", model: google(to).image("imagen-4.0-generate-001"), maxRetries: 0 })).image.base64);
