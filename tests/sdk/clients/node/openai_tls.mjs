// The OpenAI SDK for Node: its realtime sessions, which it opens over TLS alone.
import OpenAI from "openai";
import { OpenAIRealtimeWS } from "openai/realtime/ws";

import { compare, refused } from "./suite.mjs";

const CLIENT = "openai-node";

// A realtime session of two turns: all of its events.
function realtime(client) {
  return new Promise((resolve, reject) => {
    const session = new OpenAIRealtimeWS({ model: "gpt-realtime" }, client);
    const events = [];
    let turns = 0;
    const ask = () => session.send({ type: "response.create" });
    session.on("error", reject);
    session.on("event", (event) => events.push(event));
    session.on("session.created", () => {
      session.send({ type: "session.update", session: { type: "realtime", audio: { input: { turn_detection: null } } } });
      ask();
    });
    session.on("response.done", () => {
      turns += 1;
      if (turns < 2) return ask();
      session.socket.once("close", () => resolve(events));
      session.close();
    });
  });
}

const clientOf = (to) => new OpenAI({ baseURL: to.openai, apiKey: to.key, timeout: 30_000 });
await compare(CLIENT, "realtime session", (to) => realtime(clientOf(to)));
await refused(CLIENT, "a 402", (to) => realtime(clientOf(to)));
