"""The Google SDK for Python, blocking and not, of the version that is installed: every call that it has for the table.

python_genai.py NAME [API VERSION]
"""

import asyncio
import inspect
import io
import ssl
import sys

from google import genai
from google.genai import types

from suite import Suite, after

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
VEO = {"model": "veo-3.0-generate-001", "prompt": "A toll gate opens."}


def greeting() -> str:
    """How one greets at the gate."""
    return "Hello"


def fetched(begin):
    """Begins a batch and asks for it until it is done: the second time."""
    ask = lambda c, job: c.batches.get(name=job.name)  # noqa: E731
    return lambda c: after(begin(c), lambda job: after(ask(c, job), lambda _: ask(c, job)))


BATCH = {"model": MODEL, "src": [types.InlinedRequest(contents="What is the toll?")] * 2}
VECTORS = types.EmbeddingsBatchJobSource(inlined_requests=types.EmbedContentBatch(contents=["one", "two"]))

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
    (
        "operations",
        lambda c: c.operations.get(
            types.GenerateVideosOperation(name="models/veo-3.0-generate-001/operations/scripted")
        ),
    ),
    ("cachedContents", lambda c: c.caches.create(model=MODEL, config=CACHE)),
    ("stored cachedContents", lambda c: c.caches.list()),
    ("stored cachedContents", lambda c: c.caches.get(name="cachedContents/scripted")),
    ("stored cachedContents", lambda c: c.caches.update(name="cachedContents/scripted", config={"ttl": "600s"})),
    ("stored cachedContents", lambda c: c.caches.delete(name="cachedContents/scripted")),
    ("batches (Gemini)", fetched(lambda c: c.batches.create(**BATCH))),
    ("batches (Gemini)", lambda c: c.batches.list()),
    ("batches (Gemini)", lambda c: c.batches.cancel(name="batches/later")),
    ("batches (Gemini)", lambda c: c.batches.delete(name="batches/later")),
    (
        "batches (Gemini), embeddings",
        fetched(lambda c: c.batches.create_embeddings(model="gemini-embedding-001", src=VECTORS)),
    ),
    ("models (Gemini)", lambda c: c.models.list()),
    ("models (Gemini)", lambda c: c.models.get(model=MODEL)),
    ("files (Gemini)", lambda c: c.files.list()),
    ("files (Gemini)", lambda c: c.files.get(name="files/scripted")),
    ("files (Gemini)", lambda c: c.files.delete(name="files/scripted")),
    ("files (Gemini), upload", lambda c: c.files.upload(file=io.BytesIO(b"tolls"), config={"mime_type": "text/plain"})),
    ("files (Gemini), download", lambda c: c.files.download(file="files/scripted")),
    ("fileSearchStores", lambda c: c.file_search_stores.create(config={"display_name": "tolls"})),
    ("fileSearchStores", lambda c: c.file_search_stores.list()),
    (
        "fileSearchStores, import",
        lambda c: c.file_search_stores.import_file(
            file_search_store_name="fileSearchStores/scripted", file_name="files/scripted"
        ),
    ),
    ("fileSearchStores", lambda c: c.file_search_stores.get(name="fileSearchStores/scripted")),
    ("fileSearchStores", lambda c: c.file_search_stores.delete(name="fileSearchStores/scripted")),
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
    for title, call in VERTEX:
        suite.case(title, lambda access, call=call, way=way: way(access, "v1beta1", call))
    for title, call in REFUSED:
        suite.refused(title, lambda access, call=call, way=way: way(access, version, call))
