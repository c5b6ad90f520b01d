// The OpenAI SDK for Node: every call that it has for a route of the table.
import OpenAI, { toFile } from "openai";

import { bytes, compare, list, own, refused } from "./suite.mjs";

const CLIENT = "openai-node";
const MESSAGES = [
  { role: "system", content: "Be brief." },
  { role: "user", content: "What is the toll, please? ü€" },
];
const CITY = { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false };
const FUNCTION = { name: "weather", parameters: CITY, strict: true };
const CHAT = { model: "gpt-4o-mini", messages: MESSAGES };
const TOOLS = { ...CHAT, tools: [{ type: "function", function: FUNCTION }] };
const FORMAT = { type: "json_schema", json_schema: { name: "city", schema: CITY, strict: true } };
const SPOKEN = { modalities: ["text", "audio"], audio: { voice: "alloy", format: "wav" } };
const RESPONSE = { model: "gpt-4o-mini", input: "What is the toll?" };
const CALLED = { ...RESPONSE, tools: [{ type: "function", ...FUNCTION }] };
const TEXT = { model: "gpt-3.5-turbo-instruct", prompt: "The toll is" };
const VECTOR = { model: "text-embedding-3-small", input: ["one two", "three"] };
const IMAGE = { model: "gpt-image-1", prompt: "A toll gate" };
const SPEECH = { model: "gpt-4o-mini-tts", voice: "alloy", input: "Please pay." };

const sound = () => toFile(Buffer.concat([Buffer.from("RIFF"), Buffer.alloc(5000)]), "a.wav", { type: "audio/wav" });
const picture = () => toFile(Buffer.concat([Buffer.from("PNG"), Buffer.alloc(3000)]), "a.png", { type: "image/png" });
const lines = () => toFile(Buffer.from("{}\n{}\n"), "a.jsonl");
const hear = (options) => async (c) => c.audio.transcriptions.create({ file: await sound(), ...options });

const BATCH = { endpoint: "/v1/chat/completions", completion_window: "24h" };
const UPLOAD = { bytes: 5, filename: "a.jsonl", mime_type: "application/jsonl", purpose: "batch" };

/** Begins what is finished later and asks for it until it is: the second time. */
const fetched = async (begin, ask) => {
  const { id } = await begin;
  await ask(id);
  return ask(id);
};

// What others are made of, or what is then asked for.
const keptChat = (c) => c.chat.completions.create({ ...CHAT, store: true });
const keptResponse = (c) => c.responses.create(RESPONSE);
const file = async (c) => c.files.create({ file: await lines(), purpose: "batch" });
const batch = own(file, (c, { id }) => c.batches.create({ input_file_id: id, ...BATCH }));
const upload = (c) => c.uploads.create(UPLOAD);
const part = async (c, { id }) => c.uploads.parts.create(id, { data: await lines() });
const completed = async (c, begun) => c.uploads.complete(begun.id, { part_ids: [(await part(c, begun)).id] });
const store = (c) => c.vectorStores.create({ name: "tolls" });
const filled = async (c, { id }) => c.vectorStores.files.create(id, { file_id: (await file(c)).id });
const conversation = (c) => c.conversations.create();

const CALLS = [
  ["chat", (c) => c.chat.completions.create(CHAT)],
  ["chat, stream", (c) => list(c.chat.completions.create({ ...CHAT, stream: true }))],
  ["chat, stream with usage", (c) => list(c.chat.completions.create({ ...CHAT, stream: true, stream_options: { include_usage: true } }))],
  ["chat, tools", (c) => c.chat.completions.create(TOOLS)],
  ["chat, tools, stream", (c) => list(c.chat.completions.create({ ...TOOLS, stream: true }))],
  ["chat, n = 3", (c) => c.chat.completions.create({ ...CHAT, n: 3 })],
  ["chat, n = 3, stream", (c) => list(c.chat.completions.create({ ...CHAT, n: 3, stream: true }))],
  ["chat, structured", (c) => c.chat.completions.parse({ ...CHAT, response_format: FORMAT })],
  ["chat, audio", (c) => c.chat.completions.create({ ...CHAT, model: "gpt-4o-audio-preview", ...SPOKEN })],
  ["chat, an error of the provider", (c) => c.chat.completions.create({ ...CHAT, model: "error-400" })],
  ["stored chats", async (c) => (await c.chat.completions.list()).data],
  ["stored chats", own(keptChat, (c, { id }) => c.chat.completions.delete(id))],
  ["responses", (c) => c.responses.create(RESPONSE)],
  ["responses, stream", (c) => list(c.responses.create({ ...RESPONSE, stream: true }))],
  ["responses, tools", (c) => c.responses.create(CALLED)],
  ["responses, tools, stream", (c) => list(c.responses.create({ ...CALLED, stream: true }))],
  ["responses, compact", (c) => c.responses.compact(RESPONSE)],
  ["responses, count of tokens", (c) => c.responses.inputTokens.count(RESPONSE)],
  ["responses, background", (c) => fetched(c.responses.create({ ...RESPONSE, background: true }), (id) => c.responses.retrieve(id))],
  ["batches", (c) => fetched(batch(c), (id) => c.batches.retrieve(id))],
  ["batches", async (c) => (await c.batches.list()).data],
  ["stored responses", own(keptResponse, (c, { id }) => c.responses.retrieve(id))],
  ["stored responses", own(keptResponse, (c, { id }) => c.responses.cancel(id))],
  ["stored responses", own(keptResponse, (c, { id }) => c.responses.delete(id))],
  ["completions", (c) => c.completions.create(TEXT)],
  ["completions, stream", (c) => list(c.completions.create({ ...TEXT, stream: true }))],
  ["embeddings", (c) => c.embeddings.create(VECTOR)],
  ["embeddings, floats", (c) => c.embeddings.create({ ...VECTOR, encoding_format: "float" })],
  ["embeddings, base64", (c) => c.embeddings.create({ ...VECTOR, encoding_format: "base64" })],
  ["images", (c) => c.images.generate(IMAGE)],
  ["images, stream", (c) => list(c.images.generate({ ...IMAGE, stream: true, partial_images: 1 }))],
  ["images, without usage", (c) => c.images.generate({ ...IMAGE, model: "dall-e-3" })],
  ["images, edit", async (c) => c.images.edit({ ...IMAGE, image: await picture() })],
  ["images, edit, stream", async (c) => list(c.images.edit({ ...IMAGE, image: await picture(), stream: true }))],
  ["transcription", hear({ model: "gpt-4o-transcribe" })],
  ["transcription, stream", async (c) => list(hear({ model: "gpt-4o-transcribe", stream: true })(c))],
  ["transcription, text", hear({ model: "whisper-1", response_format: "text" })],
  ["transcription, srt", hear({ model: "whisper-1", response_format: "srt" })],
  ["transcription, by the second", hear({ model: "whisper-1", response_format: "verbose_json" })],
  ["translation", async (c) => c.audio.translations.create({ file: await sound(), model: "whisper-1" })],
  ["speech", (c) => bytes(c.audio.speech.create(SPEECH))],
  ["speech, events", (c) => bytes(c.audio.speech.create({ ...SPEECH, stream_format: "sse" }))],
  ["moderations", (c) => c.moderations.create({ input: "Please pay." })],
  ["models", async (c) => (await c.models.list()).data],
  ["models", (c) => c.models.retrieve("gpt-4o-mini")],
  ["files", file],
  ["files", async (c) => (await c.files.list()).data],
  ["files", own(file, (c, { id }) => bytes(c.files.content(id)))],
  ["files", own(file, (c, { id }) => c.files.delete(id))],
  ["uploads", upload],
  ["uploads", own(upload, part)],
  ["uploads", own(upload, completed)],
  ["vector stores", store],
  ["vector stores", async (c) => (await c.vectorStores.list()).data],
  ["vector stores", own(store, filled)],
  ["vector stores", own(store, async (c, { id }) => (await c.vectorStores.files.list(id)).data)],
  ["vector stores", own(store, (c, { id }) => c.vectorStores.retrieve(id))],
  ["vector stores", own(store, (c, { id }) => c.vectorStores.delete(id))],
  ["conversations", conversation],
  ["conversations", own(conversation, (c, { id }) => c.conversations.retrieve(id))],
  ["conversations", own(conversation, (c, { id }) => c.conversations.delete(id))],
];
// At Gemini's OpenAI-compatible address.
const COMPATIBLE = [
  ["compatible chat", (c) => c.chat.completions.create({ ...CHAT, model: "gemini-2.5-flash" })],
  ["compatible chat, stream", (c) => list(c.chat.completions.create({ ...CHAT, model: "gemini-2.5-flash", stream: true }))],
  ["compatible embeddings", (c) => c.embeddings.create({ ...VECTOR, model: "gemini-embedding-001" })],
  ["compatible images", (c) => c.images.generate({ ...IMAGE, model: "imagen-4" })],
  ["compatible models", async (c) => (await c.models.list()).data],
];

const clientOf = (baseURL, apiKey) => new OpenAI({ baseURL, apiKey, timeout: 30_000 });
for (const [title, call] of CALLS) await compare(CLIENT, title, (to) => call(clientOf(to.openai, to.key)));
for (const [title, call] of COMPATIBLE) await compare(CLIENT, title, (to) => call(clientOf(to.compatible, to.key)));
await refused(CLIENT, "a 402", (to) => clientOf(to.openai, to.key).chat.completions.create(CHAT));
await refused(CLIENT, "a 402", (to) => clientOf(to.openai, to.key).responses.create({ ...RESPONSE, stream: true }));
