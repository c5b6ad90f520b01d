"""The OpenAI SDK for Python, blocking and not: every call that it has for a route of the table."""

import asyncio
import inspect
import io
import os

import httpx2
import openai
from openai import AsyncOpenAI, OpenAI

from suite import Suite, after, own

ASK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is the toll, please? ü€"}]
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": CITY, "strict": True}}
CHAT = {"model": "gpt-4o-mini", "messages": ASK}
USAGE = {"stream": True, "stream_options": {"include_usage": True}}
SPOKEN = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}
RESPONSE = {"model": "gpt-4o-mini", "input": "What is the toll?"}
TEXT = {"model": "gpt-3.5-turbo-instruct", "prompt": "The toll is"}
VECTOR = {"model": "text-embedding-3-small", "input": ["one two", "three"]}
IMAGE = {"model": "gpt-image-1", "prompt": "A toll gate"}
SPEECH = {"model": "gpt-4o-mini-tts", "voice": "alloy", "input": "Please pay."}
FORMAT = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY, "strict": True}}
BATCH = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
UPLOAD = {"bytes": 5, "filename": "a.jsonl", "mime_type": "application/jsonl", "purpose": "batch"}
QUESTION = {"type": "predicate", "name": "is_paid", "question": "Is the toll paid?"}


def sound():
    return ("a.wav", io.BytesIO(b"RIFF" + bytes(5000)), "audio/wav")


def picture():
    return ("a.png", io.BytesIO(b"\x89PNG" + bytes(3000)), "image/png")


def lines():
    return ("a.jsonl", io.BytesIO(b"{}\n{}\n"))


def hear(**options):
    return lambda c: c.audio.transcriptions.create(file=sound(), **options)


def fetched(begin, ask):
    """Begins what is finished later and asks for it until it is: the second time."""
    return own(begin, lambda c, begun: after(ask(c, begun.id), lambda _: ask(c, begun.id)))


# What others are made of, or what is then asked for.
CHAT_KEPT = lambda c: c.chat.completions.create(**CHAT, store=True)  # noqa: E731
RESPONSE_KEPT = lambda c: c.responses.create(**RESPONSE)  # noqa: E731
FILE = lambda c: c.files.create(file=lines(), purpose="batch")  # noqa: E731
BATCH_BEGUN = own(FILE, lambda c, file: c.batches.create(input_file_id=file.id, **BATCH))
UPLOAD_BEGUN = lambda c: c.uploads.create(**UPLOAD)  # noqa: E731
STORE = lambda c: c.vector_stores.create(name="tolls")  # noqa: E731
CONVERSATION = lambda c: c.conversations.create()  # noqa: E731


def part(client, upload):
    return client.uploads.parts.create(upload.id, data=io.BytesIO(b"{}\n"))


def completed(client, upload):
    return after(part(client, upload), lambda sent: client.uploads.complete(upload.id, part_ids=[sent.id]))


def filled(client, store):
    return after(FILE(client), lambda file: client.vector_stores.files.create(store.id, file_id=file.id))


CALLS = [
    ("chat", lambda c: c.chat.completions.create(**CHAT)),
    ("chat, stream", lambda c: c.chat.completions.create(**CHAT, stream=True)),
    ("chat, stream with usage", lambda c: c.chat.completions.create(**CHAT, **USAGE)),
    ("chat, tools", lambda c: c.chat.completions.create(**CHAT, tools=[WEATHER])),
    ("chat, tools, stream", lambda c: c.chat.completions.create(**CHAT, tools=[WEATHER], stream=True)),
    ("chat, n = 3", lambda c: c.chat.completions.create(**CHAT, n=3)),
    ("chat, n = 3, stream", lambda c: c.chat.completions.create(**CHAT, n=3, stream=True)),
    ("chat, structured", lambda c: c.chat.completions.create(**CHAT, response_format=FORMAT)),
    ("chat, audio", lambda c: c.chat.completions.create(**CHAT | {"model": "gpt-4o-audio-preview"}, **SPOKEN)),
    ("chat, an error of the provider", lambda c: c.chat.completions.create(**CHAT | {"model": "error-400"})),
    ("stored chats", lambda c: c.chat.completions.list()),
    ("stored chats", own(CHAT_KEPT, lambda c, chat: c.chat.completions.delete(chat.id))),
    ("responses", lambda c: c.responses.create(**RESPONSE)),
    ("responses, stream", lambda c: c.responses.create(**RESPONSE, stream=True)),
    ("responses, tools", lambda c: c.responses.create(**RESPONSE, tools=[{"type": "function", **WEATHER["function"]}])),
    (
        "responses, tools, stream",
        lambda c: c.responses.create(**RESPONSE, stream=True, tools=[{"type": "function", **WEATHER["function"]}]),
    ),
    ("responses, compact", lambda c: c.responses.compact(**RESPONSE)),
    ("responses, count of tokens", lambda c: c.responses.input_tokens.count(**RESPONSE)),
    (
        "responses, background",
        fetched(lambda c: c.responses.create(**RESPONSE, background=True), lambda c, name: c.responses.retrieve(name)),
    ),
    ("batches", fetched(BATCH_BEGUN, lambda c, name: c.batches.retrieve(name))),
    ("batches", fetched(BATCH_BEGUN, lambda c, name: c.batches.cancel(name))),
    ("batches", lambda c: c.batches.list()),
    ("stored responses", own(RESPONSE_KEPT, lambda c, kept: c.responses.retrieve(kept.id))),
    ("stored responses", own(RESPONSE_KEPT, lambda c, kept: c.responses.cancel(kept.id))),
    ("stored responses", own(RESPONSE_KEPT, lambda c, kept: c.responses.delete(kept.id))),
    ("decisions", lambda c: c.decisions.create(model="gpt-6-luna", input="Paid.", questions=[QUESTION])),
    ("completions", lambda c: c.completions.create(**TEXT)),
    ("completions, stream", lambda c: c.completions.create(**TEXT, stream=True)),
    ("embeddings", lambda c: c.embeddings.create(**VECTOR)),
    ("embeddings, floats", lambda c: c.embeddings.create(**VECTOR, encoding_format="float")),
    ("embeddings, base64", lambda c: c.embeddings.create(**VECTOR, encoding_format="base64")),
    ("images", lambda c: c.images.generate(**IMAGE)),
    ("images, stream", lambda c: c.images.generate(**IMAGE, stream=True, partial_images=1)),
    ("images, without usage", lambda c: c.images.generate(**IMAGE | {"model": "dall-e-3"})),
    ("images, edit", lambda c: c.images.edit(**IMAGE, image=picture())),
    ("images, edit, stream", lambda c: c.images.edit(**IMAGE, image=picture(), stream=True)),
    ("transcription", hear(model="gpt-4o-transcribe")),
    ("transcription, stream", hear(model="gpt-4o-transcribe", stream=True)),
    ("transcription, text", hear(model="whisper-1", response_format="text")),
    ("transcription, srt", hear(model="whisper-1", response_format="srt")),
    ("transcription, by the second", hear(model="whisper-1", response_format="verbose_json")),
    ("translation", lambda c: c.audio.translations.create(file=sound(), model="whisper-1")),
    ("speech", lambda c: c.audio.speech.create(**SPEECH)),
    ("speech, events", lambda c: c.audio.speech.create(**SPEECH, stream_format="sse")),
    ("moderations", lambda c: c.moderations.create(input="Please pay.")),
    ("models", lambda c: c.models.list()),
    ("models", lambda c: c.models.retrieve("gpt-4o-mini")),
    ("files", FILE),
    ("files", lambda c: c.files.list()),
    ("files", own(FILE, lambda c, file: c.files.content(file.id))),
    ("files", own(FILE, lambda c, file: c.files.delete(file.id))),
    ("uploads", UPLOAD_BEGUN),
    ("uploads", own(UPLOAD_BEGUN, part)),
    ("uploads", own(UPLOAD_BEGUN, completed)),
    ("vector stores", STORE),
    ("vector stores", lambda c: c.vector_stores.list()),
    ("vector stores", own(STORE, filled)),
    ("vector stores", own(STORE, lambda c, store: c.vector_stores.files.list(store.id))),
    ("vector stores", own(STORE, lambda c, store: c.vector_stores.retrieve(store.id))),
    ("vector stores", own(STORE, lambda c, store: c.vector_stores.delete(store.id))),
    ("conversations", CONVERSATION),
    ("conversations", own(CONVERSATION, lambda c, kept: c.conversations.retrieve(kept.id))),
    ("conversations", own(CONVERSATION, lambda c, kept: c.conversations.delete(kept.id))),
]
# At Gemini's OpenAI-compatible address.
COMPATIBLE = [
    ("compatible chat", lambda c: c.chat.completions.create(**CHAT | {"model": "gemini-2.5-flash"})),
    (
        "compatible chat, stream",
        lambda c: c.chat.completions.create(**CHAT | {"model": "gemini-2.5-flash"}, stream=True),
    ),
    ("compatible embeddings", lambda c: c.embeddings.create(**VECTOR | {"model": "gemini-embedding-001"})),
    ("compatible images", lambda c: c.images.generate(**IMAGE | {"model": "imagen-4"})),
    ("compatible models", lambda c: c.models.list()),
]
REFUSED = [
    ("a 402", lambda c: c.chat.completions.create(**CHAT)),
    ("a 402", lambda c: c.chat.completions.create(**CHAT, stream=True)),
    ("a 402", lambda c: c.responses.create(**RESPONSE, stream=True)),
]


def heard(connection, kind):
    """What comes up to the event of that kind."""
    events = []
    while not events or events[-1].type != kind:
        events.append(connection.recv())
    return events


async def heard_async(connection, kind):
    events = []
    while not events or events[-1].type != kind:
        events.append(await connection.recv())
    return events


MANUAL = {"type": "realtime", "audio": {"input": {"turn_detection": None}}}
QUESTION_ITEM = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "What is the toll?"}]}
SOUND = "UklGRg=="


def realtime(client):
    with client.realtime.connect(model="gpt-realtime") as connection:
        events = heard(connection, "session.created")
        connection.session.update(session=MANUAL)
        connection.conversation.item.create(item=QUESTION_ITEM)
        for _ in range(2):
            connection.response.create()
            events += heard(connection, "response.done")
        return events


async def realtime_async(client):
    async with client.realtime.connect(model="gpt-realtime") as connection:
        events = await heard_async(connection, "session.created")
        await connection.session.update(session=MANUAL)
        await connection.conversation.item.create(item=QUESTION_ITEM)
        for _ in range(2):
            await connection.response.create()
            events += await heard_async(connection, "response.done")
        return events


def live(client):
    with client.live.connect() as connection:
        connection.send({"type": "session.start", "session": {"model": "gpt-live-1"}})
        events = heard(connection, "session.started")
        connection.send({"type": "session.input_audio.append", "audio": SOUND})
        connection.send({"type": "session.close"})
        return events + heard(connection, "session.closed")


async def live_async(client):
    async with client.live.connect() as connection:
        await connection.send({"type": "session.start", "session": {"model": "gpt-live-1"}})
        events = await heard_async(connection, "session.started")
        await connection.send({"type": "session.input_audio.append", "audio": SOUND})
        await connection.send({"type": "session.close"})
        return events + await heard_async(connection, "session.closed")


# By the way that a client asks; sessions are not asked by HTTP/2.
SESSIONS = {
    "openai-python, sync": [("realtime session", realtime), ("live session", live)],
    "openai-python, async": [("realtime session", realtime_async), ("live session", live_async)],
}

# One pool of connections for all calls, as a program has: a client of another key shares it.
BLOCKING = OpenAI(api_key="none", timeout=30)
WAITING = AsyncOpenAI(api_key="none", timeout=30)
RUNNER = asyncio.Runner()
# The gateway speaks HTTP/2 in the clear to whom begins with it; the scripted provider does not.
ONLY_HTTP2 = OpenAI(api_key="none", timeout=30, http_client=httpx2.Client(http1=False, http2=True))


def blocking(url, key, call):
    return blocking_with(BLOCKING, url, key, call)


def by_http2(url, key, call):
    client = ONLY_HTTP2 if url.startswith(os.environ["STAND_THROUGH"]) else BLOCKING
    return blocking_with(client, url, key, call)


def blocking_with(client, url, key, call):
    result = call(client.with_options(base_url=url, api_key=key))
    if hasattr(result, "read") and hasattr(result, "content"):
        return result.read()
    if isinstance(result, openai.Stream):
        return list(result)
    return result


def waiting(url, key, call):
    async def run():
        result = call(WAITING.with_options(base_url=url, api_key=key))
        if inspect.isawaitable(result):
            result = await result
        if isinstance(result, openai.AsyncStream):
            return [item async for item in result]
        if hasattr(result, "content"):
            return result.content
        return result

    return RUNNER.run(run())


for name, way in (
    ("openai-python, sync", blocking),
    ("openai-python, HTTP/2", by_http2),
    ("openai-python, async", waiting),
):
    suite = Suite(name)
    for title, call in CALLS:
        suite.case(title, lambda access, call=call, way=way: way(access.openai, access.key, call))
    for title, call in COMPATIBLE:
        suite.case(title, lambda access, call=call, way=way: way(access.compatible, access.key, call))
    for title, call in SESSIONS.get(name, []):
        suite.case(title, lambda access, call=call, way=way: way(access.openai, access.key, call))
        suite.refused("a 402", lambda access, call=call, way=way: way(access.openai, access.key, call))
    for title, call in REFUSED:
        suite.refused(title, lambda access, call=call, way=way: way(access.openai, access.key, call))
