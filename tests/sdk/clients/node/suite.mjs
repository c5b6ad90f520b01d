// What the Node clients of the matrix are made of: each case is one call, made directly and through the gateway.
const BESIDE = new Set(["sdkHttpResponse", "_request_id"]);

let number = 0;

/** Where a client connects: what a user of it would configure. */
const access = (root, key) => ({ root, key, openai: `${root}/v1`, compatible: `${root}/v1beta/openai` });

/** Makes the call both ways; both have to give the same. It is an error where `call` says so. */
export async function compare(client, call, ask) {
  if (process.env.STAND_ONLY && !call.includes(process.env.STAND_ONLY)) return;
  const tenant = tenantOf();
  const direct = await outcome(ask, access(process.env.STAND_DIRECT, "direct"));
  const through = await outcome(ask, access(process.env.STAND_THROUGH, tenant));
  await tell("/case", { client, call, tenant, direct, through, ending: call.includes("an error") ? "failed" : "answered" });
}

/** The plan has no chat left: the client has to see the 402 as an error, and the provider nothing. */
export async function refused(client, call, ask) {
  if (process.env.STAND_ONLY && !call.includes(process.env.STAND_ONLY)) return;
  const tenant = tenantOf();
  await tell("/plan", { tenant, plan: "none" });
  const through = await outcome(ask, access(process.env.STAND_THROUGH, tenant));
  if (!through.error || !/402|0 of 0 chats/.test(JSON.stringify(through))) {
    throw new Error(`${client}: no 402, but ${JSON.stringify(through).slice(0, 400)}`);
  }
  await tell("/case", { client, call, tenant, direct: null, through: null, ending: "refused" });
}

/** A call that uses what another one made: the gateway lets a tenant at nothing else. */
export const own = (make, use) => async (client) => use(client, await make(client));

/** All items of a stream. */
export async function list(stream) {
  const items = [];
  for await (const item of await stream) items.push(item);
  return items;
}

/** The bytes of an answer. */
export const bytes = async (answer) => Buffer.from(await (await answer).arrayBuffer());

const tenantOf = () => `tollgate-client-${process.pid}-${(number += 1)}`;

async function outcome(ask, where) {
  try {
    return plain(await ask(where));
  } catch (error) {
    if (process.env.STAND_TRACE) console.error(error);
    // An address or a key in it differs by the way.
    const text = String(error.message).replaceAll(/http:\/\/[^\s'"]*/g, "ADDRESS").replaceAll(where.key, "KEY");
    return { error: error.name ?? "Error", text: text.slice(0, 2000) };
  }
}

/**
 * Anything that a client gives, as JSON with nothing left out that an answer has, but for members that are null: where the
 * gateway asks for the usage of a stream, the provider says `"usage":null` in each event before it.
 */
function plain(value) {
  if (Buffer.isBuffer(value) || value instanceof Uint8Array) return Buffer.from(value).toString("base64");
  if (Array.isArray(value)) return value.map(plain);
  if (value === null || value === undefined) return null;
  if (typeof value !== "object") return value;
  const members = Object.entries(value).filter(([name, part]) => !BESIDE.has(name) && (part ?? null) !== null && typeof part !== "function");
  return Object.fromEntries(members.map(([name, part]) => [name, plain(part)]));
}

async function tell(route, said) {
  const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(said) };
  const answer = await fetch(process.env.STAND_CONTROL + route, options);
  if (answer.status !== 200) throw new Error(`the stand says ${answer.status}`);
  await answer.arrayBuffer();
}
