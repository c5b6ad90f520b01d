// The Google SDK for Node: every call that it has for a route of the table.
import { GoogleGenAI, Type } from "@google/genai";

import { compare, list, own, refused } from "./suite.mjs";

const CLIENT = "@google/genai";
const MODEL = "gemini-2.5-flash";
const ASK = { model: MODEL, contents: "What is the toll, please? ü€" };
const CITY = { type: Type.OBJECT, properties: { city: { type: Type.STRING } } };
const TOOLS = { ...ASK, config: { tools: [{ functionDeclarations: [{ name: "weather", parameters: CITY }] }] } };
const JSON_ASKED = { ...ASK, config: { responseMimeType: "application/json", responseSchema: CITY } };
const VEO = { model: "veo-3.0-generate-001", source: { prompt: "A toll gate opens." } };
const IMAGEN = { model: "imagen-4.0-generate-001", prompt: "A toll gate" };

// What is then asked for.
const cache = (c) => c.caches.create({ model: MODEL, config: { contents: "The price list of all tolls.", ttl: "300s" } });
const file = (c) => c.files.upload({ file: new Blob(["tolls"]), config: { mimeType: "text/plain" } });
const store = (c) => c.fileSearchStores.create({ config: { displayName: "tolls" } });

const CALLS = [
  ["generateContent", (c) => c.models.generateContent(ASK)],
  ["generateContent, tools", (c) => c.models.generateContent(TOOLS)],
  ["generateContent, structured", (c) => c.models.generateContent(JSON_ASKED)],
  ["generateContent, an error", (c) => c.models.generateContent({ ...ASK, model: "error-400" })],
  ["streamGenerateContent", (c) => list(c.models.generateContentStream(ASK))],
  ["streamGenerateContent, tools", (c) => list(c.models.generateContentStream(TOOLS))],
  ["streamGenerateContent, an error", (c) => list(c.models.generateContentStream({ ...ASK, model: "error-500" }))],
  ["countTokens", (c) => c.models.countTokens(ASK)],
  ["embed, with usage", (c) => c.models.embedContent({ model: "gemini-embedding-2", contents: ["one two", "three"] })],
  ["embed, without usage", (c) => c.models.embedContent({ model: "gemini-embedding-001", contents: "one two three" })],
  ["cachedContents", cache],
  ["stored cachedContents", async (c) => list(c.caches.list())],
  ["stored cachedContents", own(cache, (c, { name }) => c.caches.get({ name }))],
  ["stored cachedContents", own(cache, (c, { name }) => c.caches.delete({ name }))],
  ["models (Gemini)", async (c) => list(c.models.list())],
  ["models (Gemini)", (c) => c.models.get({ model: MODEL })],
  ["files (Gemini)", async (c) => list(c.files.list())],
  ["files (Gemini)", own(file, (c, { name }) => c.files.get({ name }))],
  ["files (Gemini)", own(file, (c, { name }) => c.files.delete({ name }))],
  ["files (Gemini), upload", file],
  ["fileSearchStores", store],
  ["fileSearchStores", async (c) => list(c.fileSearchStores.list())],
  ["fileSearchStores", own(store, (c, { name }) => c.fileSearchStores.get({ name }))],
  ["fileSearchStores", own(store, (c, { name }) => c.fileSearchStores.delete({ name }))],
];
// At Vertex's address, with a key alone.
const VERTEX = [
  ["Vertex, generateContent", (c) => c.models.generateContent(ASK)],
  ["Vertex, streamGenerateContent", (c) => list(c.models.generateContentStream(ASK))],
  ["Vertex, countTokens", (c) => c.models.countTokens(ASK)],
  ["Vertex, embed by predict", (c) => c.models.embedContent({ model: "text-embedding-005", contents: ["one two", "three"] })],
  ["Vertex, predict (Imagen)", (c) => c.models.generateImages(IMAGEN)],
  ["Vertex, predictLongRunning (Veo)", (c) => c.models.generateVideos(VEO)],
];

// A live session of two turns: all of its messages.
function live(client) {
  return new Promise((resolve, reject) => {
    const messages = [];
    let turns = 0;
    const opened = {};
    const ask = () => opened.session.sendClientContent({ turns: "What is the toll?", turnComplete: true });
    const onmessage = (message) => {
      messages.push(message);
      if (!message.serverContent?.turnComplete) return;
      turns += 1;
      if (turns < 2) ask();
      else opened.session.close();
    };
    const onerror = (event) => reject(event.error ?? new Error(event.message));
    const callbacks = { onmessage, onerror, onclose: () => resolve(messages) };
    client.live.connect({ model: MODEL, callbacks }).then((session) => {
      opened.session = session;
      ask();
    }, reject);
  });
}

const clientOf = (to, more = {}) => new GoogleGenAI({ apiKey: to.key, httpOptions: { baseUrl: to.root }, ...more });
for (const [title, call] of CALLS) await compare(CLIENT, title, (to) => call(clientOf(to)));
for (const [title, call] of VERTEX) await compare(CLIENT, title, (to) => call(clientOf(to, { vertexai: true })));
await compare(CLIENT, "live session (Gemini)", (to) => live(clientOf(to)));
await refused(CLIENT, "a 402", (to) => live(clientOf(to)));
await refused(CLIENT, "a 402", (to) => clientOf(to).models.generateContent(ASK));
await refused(CLIENT, "a 402", (to) => list(clientOf(to).models.generateContentStream(ASK)));
