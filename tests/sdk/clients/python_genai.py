"""The Google SDK for Python, blocking and not, of the version that is installed: every call that it has for the table.

python_genai.py NAME [API VERSION]
"""

import asyncio
import inspect
import io
import json
import ssl
import sys
import urllib.request

from google import genai
from google.genai import types

from suite import Suite, after, own

MODEL = "gemini-2.5-flash"
ASK = {"model": MODEL, "contents": "What is the toll, please? ü€"}
WEATHER = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(
            name="weather", parameters=types.Schema(type="OBJECT", properties={"city": types.Schema(type="STRING")})
        )
    ]
)
TOOLS = {"config": types.GenerateContentConfig(tools=[WEATHER])}
CITY = {
    "config": {
        "response_mime_type": "application/json",
        "response_schema": types.Schema(type="OBJECT", properties={"city": types.Schema(type="STRING")}),
    }
}
PARTS = {"model": MODEL, "contents": "What is the toll, in two parts?", "config": {"automatic_continuation": True}}
CACHE = types.CreateCachedContentConfig(contents=["The price list of all tolls."], ttl="300s")
LONGER = {"ttl": "600s"}
VEO = {"model": "veo-3.0-generate-001", "prompt": "A toll gate opens."}


def operation(access):
    """Begins a video, which version 3 does at Vertex alone, and asks for it as either version does."""
    body = json.dumps({"instances": [{"prompt": "A toll gate opens."}]}).encode()
    headers = {"Content-Type": "application/json", "x-goog-api-key": access.key}
    address = access.root + "/v1beta/models/veo-3.0-generate-001:predictLongRunning"
    with urllib.request.urlopen(urllib.request.Request(address, body, headers), timeout=30) as answer:
        begun = types.GenerateVideosOperation(name=json.loads(answer.read())["name"])
    return lambda c: c.operations.get(begun)


def greeting() -> str:
    """How one greets at the gate."""
    return "Hello"


def fetched(begin):
    """Begins a batch and asks for it until it is done: the second time."""
    ask = lambda c, job: c.batches.get(name=job.name)  # noqa: E731
    return own(begin, lambda c, job: after(ask(c, job), lambda _: ask(c, job)))


BATCH = {"model": MODEL, "src": [types.InlinedRequest(contents="What is the toll?")] * 2}
VECTORS = types.EmbeddingsBatchJobSource(inlined_requests=types.EmbedContentBatch(contents=["one", "two"]))
# What is then asked for.
CACHE_MADE = lambda c: c.caches.create(model=MODEL, config=CACHE)  # noqa: E731
# Finished and fetched: the gateway asks for the bill itself before it is too late, which the direct way has nothing of.
BATCH_DONE = fetched(lambda c: c.batches.create(**BATCH))
FILE = lambda c: c.files.upload(file=io.BytesIO(b"tolls"), config={"mime_type": "text/plain"})  # noqa: E731
STORE = lambda c: c.file_search_stores.create(config={"display_name": "tolls"})  # noqa: E731


def imported(client, store):
    stores = client.file_search_stores
    return after(
        FILE(client), lambda file: stores.import_file(file_search_store_name=store.name, file_name=file.name)
    )


CALLS = [
    ("generateContent", lambda c: c.models.generate_content(**ASK)),
    ("generateContent, tools", lambda c: c.models.generate_content(**ASK, **TOOLS)),
    ("generateContent, tools by itself", lambda c: c.models.generate_content(**ASK, config={"tools": [greeting]})),
    ("generateContent, in two parts", lambda c: c.models.generate_content(**PARTS)),
    ("generateContent, structured", lambda c: c.models.generate_content(**ASK, **CITY)),
    ("generateContent, an error", lambda c: c.models.generate_content(**ASK | {"model": "error-400"})),
    ("streamGenerateContent", lambda c: c.models.generate_content_stream(**ASK)),
    ("streamGenerateContent, tools", lambda c: c.models.generate_content_stream(**ASK, **TOOLS)),
    ("streamGenerateContent, an error", lambda c: c.models.generate_content_stream(**ASK | {"model": "error-500"})),
    ("countTokens", lambda c: c.models.count_tokens(**ASK)),
    ("embed, with usage", lambda c: c.models.embed_content(model="gemini-embedding-2", contents=["one two", "three"])),
    ("embed, without usage", lambda c: c.models.embed_content(model="gemini-embedding-001", contents="one two three")),
    ("cachedContents", CACHE_MADE),
    ("stored cachedContents", lambda c: c.caches.list()),
    ("stored cachedContents", own(CACHE_MADE, lambda c, cache: c.caches.get(name=cache.name))),
    ("stored cachedContents", own(CACHE_MADE, lambda c, cache: c.caches.update(name=cache.name, config=LONGER))),
    ("stored cachedContents", own(CACHE_MADE, lambda c, cache: c.caches.delete(name=cache.name))),
    ("batches (Gemini)", BATCH_DONE),
    ("batches (Gemini)", lambda c: c.batches.list()),
    ("batches (Gemini)", own(BATCH_DONE, lambda c, job: c.batches.cancel(name=job.name))),
    ("batches (Gemini)", own(BATCH_DONE, lambda c, job: c.batches.delete(name=job.name))),
    (
        "batches (Gemini), embeddings",
        fetched(lambda c: c.batches.create_embeddings(model="gemini-embedding-001", src=VECTORS)),
    ),
    ("models (Gemini)", lambda c: c.models.list()),
    ("models (Gemini)", lambda c: c.models.get(model=MODEL)),
    ("files (Gemini)", lambda c: c.files.list()),
    ("files (Gemini)", own(FILE, lambda c, file: c.files.get(name=file.name))),
    ("files (Gemini)", own(FILE, lambda c, file: c.files.delete(name=file.name))),
    ("files (Gemini), upload", FILE),
    ("files (Gemini), download", own(FILE, lambda c, file: c.files.download(file=file.name))),
    ("fileSearchStores", STORE),
    ("fileSearchStores", lambda c: c.file_search_stores.list()),
    ("fileSearchStores, import", own(STORE, imported)),
    ("fileSearchStores", own(STORE, lambda c, store: c.file_search_stores.get(name=store.name))),
    ("fileSearchStores", own(STORE, lambda c, store: c.file_search_stores.delete(name=store.name))),
]
# At Vertex's address, with a key alone.
VERTEX = [
    ("Vertex, generateContent", lambda c: c.models.generate_content(**ASK)),
    ("Vertex, streamGenerateContent", lambda c: c.models.generate_content_stream(**ASK)),
    ("Vertex, countTokens", lambda c: c.models.count_tokens(**ASK)),
    (
        "Vertex, embed by predict",
        lambda c: c.models.embed_content(model="text-embedding-005", contents=["one two", "three"]),
    ),
    (
        "Vertex, predict (Imagen)",
        lambda c: c.models.generate_images(model="imagen-4.0-generate-001", prompt="A toll gate"),
    ),
    ("Vertex, predictLongRunning (Veo)", lambda c: c.models.generate_videos(**VEO)),
]
REFUSED = [
    ("a 402", lambda c: c.models.generate_content(**ASK)),
    ("a 402", lambda c: c.models.generate_content_stream(**ASK)),
]


CONTEXT = ssl.create_default_context()


def client_of(access, version):
    # A context of its own for each client would take more time than its call.
    verify = {"verify": CONTEXT}
    options = types.HttpOptions(
        base_url=access.root, api_version=version, timeout=30_000, client_args=verify, async_client_args=verify
    )
    return genai.Client(api_key=access.key, http_options=options, vertexai=version == "v1beta1")


def blocking(access, version, call):
    client = client_of(access, version)
    result = call(client)
    return list(result) if inspect.isgenerator(result) or hasattr(result, "page") else result


def waiting(access, version, call):
    async def run():
        client = client_of(access, version).aio
        result = await call(client)
        if hasattr(result, "__aiter__"):
            result = [item async for item in result]
        await client.aclose()
        return result

    return asyncio.run(run())


name, version = sys.argv[1], (sys.argv[2:] or [None])[0]
for mode, way in (("sync", blocking), ("async", waiting)):
    suite = Suite(f"{name}, {mode}")
    for title, call in CALLS:
        suite.case(title, lambda access, call=call, way=way: way(access, version, call))
    suite.case("operations", lambda access, way=way: way(access, version, operation(access)))
    for title, call in VERTEX:
        suite.case(title, lambda access, call=call, way=way: way(access, "v1beta1", call))
    for title, call in REFUSED:
        suite.refused(title, lambda access, call=call, way=way: way(access, version, call))
