"""Clients of the command line: curl, whose answers are compared to the byte, and `llm`."""

import base64
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from suite import Suite

CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "What is the toll, please? ü€"}]}
STREAM = CHAT | {"stream": True}
USAGE = STREAM | {"stream_options": {"include_usage": True}}
ASK = {"contents": [{"role": "user", "parts": [{"text": "What is the toll, please? ü€"}]}]}
EMBED = {"content": {"parts": [{"text": "one two three"}]}}
PREDICT = {"instances": [{"content": "one two"}]}
CACHE = {"model": "models/gemini-2.5-flash", "contents": ASK["contents"], "ttl": "300s"}
GEMINI = "/v1beta/models/gemini-2.5-flash"
VERTEX = "/v1beta1/projects/tolls/locations/europe-west4"
VEO = "/v1beta/models/veo-3.0-generate-001:predictLongRunning"
INTERACTION = {"model": "gemini-2.5-flash", "input": "What is the toll, please?"}
START = ["X-Goog-Upload-Protocol: resumable", "X-Goog-Upload-Command: start"]
SPEECH = {"model": "gpt-4o-mini-tts", "voice": "alloy", "input": "Please pay."}
KEYS = {"bearer": "Authorization: Bearer ", "google": "x-goog-api-key: ", "azure": "api-key: "}


def curl(path, body=None, key="bearer", method=None, form=(), headers=(), prefix=""):
    """The status, the type and the bytes of an answer, as they came."""

    def call(access):
        words = ["curl", "-sS", "-N", "--max-time", "30", "-o", "-", "-w", "%{stderr}%{http_code} %{content_type}"]
        # The prefix that names a provider is the gateway's own.
        target = access.root + (path if access.key == "direct" else prefix + path)
        if key == "query":
            target += ("&" if "?" in target else "?") + "key=" + access.key
        else:
            words += ["-H", KEYS[key] + access.key]
        if body is not None:
            words += ["-H", "Content-Type: application/json", "--data-binary", json.dumps(body)]
        for field in form:
            words += ["-F", field]
        for header in headers:
            words += ["-H", header]
        if method:
            words += ["-I"] if method == "HEAD" else ["-X", method]
        done = subprocess.run([*words, target], capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr
        if method == "HEAD":
            return done.stderr.decode()
        # What the gateway asks for in a stream is a member that is null in each event before the usage.
        is_asked = "stream_options" in (body or {})
        raw = done.stdout if is_asked else done.stdout.replace(b',"usage":null', b"")
        return [done.stderr.decode(), base64.b64encode(raw).decode()]

    return call


def own(make, name_of, use):
    """`use(name)` is a call that needs the name of what another one made, which its answer tells."""

    def call(access):
        return use(name_of(json.loads(base64.b64decode(make(access)[1]))))(access)

    return call


def name_of(said):
    return said.get("name") or said["id"]


def thread(use):
    return own(curl("/v1/threads", {}), name_of, lambda name: use("/v1/threads/" + name))


def run(use):
    """A run that is finished, and so billed."""

    def begin(assistant):
        body = {"assistant_id": assistant}
        return thread(lambda at: own(curl(at + "/runs", body), name_of, lambda name: ended(at, name)))

    def ended(at, name):
        path = f"{at}/runs/{name}"
        return own(curl(path), name_of, lambda _: use(path))

    return own(curl("/v1/assistants", {"model": "gpt-4o-mini"}), name_of, begin)


def video_of(said):
    """The address of the video that an operation tells of, without its host."""
    (sample,) = said["response"]["generateVideoResponse"]["generatedSamples"]
    return "/" + sample["video"]["uri"].split("/", 3)[3]


def video(use):
    ended = lambda name: own(curl("/v1beta/" + name, key="google"), video_of, use)  # noqa: E731
    return own(curl(VEO, PREDICT, key="google"), name_of, ended)


suite = Suite("curl")
with tempfile.TemporaryDirectory() as directory:
    sound = pathlib.Path(directory) / "a.wav"
    sound.write_bytes(b"RIFF" + bytes(5000))
    large = pathlib.Path(directory) / "large.wav"
    large.write_bytes(b"RIFF" + bytes(3 * 1024 * 1024))
    suite.case("chat", curl("/v1/chat/completions", CHAT))
    suite.case("chat, by a prefix", curl("/v1/chat/completions", CHAT, key="azure", prefix="/openai"))
    suite.case("generateContent, by a prefix", curl(GEMINI + ":generateContent", ASK, prefix="/gemini"))
    suite.case("chat, gzip", curl("/v1/chat/completions", CHAT, headers=["Accept-Encoding: gzip"]))
    suite.case("chat, stream", curl("/v1/chat/completions", STREAM))
    suite.case("chat, stream with usage", curl("/v1/chat/completions", USAGE))
    suite.case("responses", curl("/v1/responses", {"model": "gpt-4o-mini", "input": "What?"}))
    suite.case("responses, stream", curl("/v1/responses", {"model": "gpt-4o-mini", "input": "What?", "stream": True}))
    suite.case("speech", curl("/v1/audio/speech", SPEECH))
    suite.case("speech, events", curl("/v1/audio/speech", SPEECH | {"stream_format": "sse"}))
    for name, file in (("transcription", sound), ("transcription, 3 MB", large)):
        suite.case(name, curl("/v1/audio/transcriptions", form=[f"file=@{file}", "model=gpt-4o-transcribe"]))
    suite.case("models", curl("/v1/models"))
    suite.case("models", curl("/v1/models", method="HEAD"))
    filed = curl("/v1/files", form=["purpose=batch", f"file=@{sound}"])
    suite.case("files", own(filed, name_of, lambda name: curl(f"/v1/files/{name}/content")))
    suite.case("generateContent", curl(GEMINI + ":generateContent", ASK, key="query"))
    suite.case("streamGenerateContent", curl(GEMINI + ":streamGenerateContent?alt=sse", ASK, key="google"))
    suite.case("streamGenerateContent, an array", curl(GEMINI + ":streamGenerateContent", ASK, key="query"))
    suite.case("embed, one", curl("/v1beta/models/gemini-embedding-2:embedContent", EMBED, key="google"))
    suite.case("predict (Imagen)", curl("/v1beta/models/imagen-4.0-generate-001:predict", PREDICT, key="google"))
    suite.case("predictLongRunning (Veo)", curl(VEO, PREDICT, key="google"))
    suite.case("cachedContents", curl("/v1beta/cachedContents", CACHE, key="google"))
    suite.case("files (Gemini), download", video(lambda path: curl(path, key="query")))
    google = f"{VERTEX}/publishers/google/models/gemini-2.5-flash"
    suite.case("Vertex, generateContent", curl(google + ":generateContent", ASK))
    suite.case("Vertex, computeTokens", curl(google + ":computeTokens", ASK))
    begun = curl(VERTEX + "/publishers/google/models/veo-3.0-generate-001:predictLongRunning", PREDICT)
    operation = lambda name: curl(google + ":fetchPredictOperation", {"operationName": name})  # noqa: E731
    suite.case("Vertex, operations", own(begun, name_of, operation))
    suite.case("Vertex, models", curl(google))
    suite.case("Vertex, models", curl("/v1beta1/publishers/google/models/gemini-2.5-flash"))
    cached = curl(VERTEX + "/cachedContents", CACHE)
    suite.case("Vertex, cachedContents", cached)
    suite.case("Vertex, stored cachedContents", own(cached, name_of, lambda name: curl(f"{VERTEX}/{name}")))
    kept_on = lambda name: curl(f"{VERTEX}/{name}", {"ttl": "600s"}, method="PATCH")  # noqa: E731
    suite.case("Vertex, stored cachedContents", own(cached, name_of, kept_on))
    suite.case("models (Gemini)", curl("/v1beta/tunedModels", key="google"))
    operation = lambda name: curl("/v1beta/operations/" + name.rsplit("/", 1)[1], key="google")  # noqa: E731
    suite.case("operations", own(curl(VEO, PREDICT, key="google"), name_of, operation))
    made = curl("/v1beta/fileSearchStores", {"displayName": "tolls"}, key="google")
    into = lambda name: f"/upload/v1beta/{name}:uploadToFileSearchStore"  # noqa: E731
    upload = lambda name: curl(into(name), {}, key="google", headers=START)  # noqa: E731
    suite.case("fileSearchStores, upload", own(made, name_of, upload))
    suite.case("batches (Gemini), results", video(lambda path: curl("/download" + path, key="google")))
    said = curl("/v1beta/interactions", INTERACTION, key="google")
    suite.case("interactions", said)
    for method, path, body in (("GET", "", None), ("DELETE", "", None), ("POST", "/cancel", {})):
        stored = lambda name: curl(f"/v1beta/interactions/{name}{path}", body, "google", method)  # noqa: B023, E731
        suite.case("interactions, stored", own(said, name_of, stored))
    suite.case("threads", curl("/v1/threads", {}))
    suite.case("threads", thread(lambda at: curl(at, method="DELETE")))
    for path in ("", "/messages"):
        suite.case("threads", thread(lambda at: curl(at + path)))  # noqa: B023
    for path, body in (("", None), ("/steps", None), ("/cancel", {})):
        suite.case("threads", run(lambda at: curl(at + path, body)))  # noqa: B023
    suite.case("assistants", curl("/v1/assistants"))
    suite.case("compatible chat", curl("/v1beta/openai/chat/completions", CHAT | {"model": "gemini-2.5-flash"}))

# A user's own model of `llm`, in a directory of its own.
MODEL = """
- model_id: toll
  model_name: gpt-4o-mini
  api_base: {}
  api_key_name: toll
  supports_tools: true
  supports_schema: true
"""


def llm(*words):
    def call(access):
        with tempfile.TemporaryDirectory() as directory:
            (pathlib.Path(directory) / "extra-openai-models.yaml").write_text(MODEL.format(access.openai))
            home = {"LLM_USER_PATH": directory, "HOME": directory, "PATH": os.environ["PATH"]}
            home |= {"OPENAI_API_KEY": access.key, "OPENAI_BASE_URL": access.openai}
            command = [sys.executable, "-m", "llm", *(word.replace("KEY", access.key) for word in words)]
            done = subprocess.run(
                command, env=home, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
            )
            assert done.returncode == 0, done.stderr
            return done.stdout

    return call


SAY = ["prompt", "-m", "toll", "--key", "KEY", "-s", "Be brief.", "What is the toll?"]
suite = Suite("llm")
suite.case("chat", llm(*SAY, "--no-stream"))
suite.case("chat, stream", llm(*SAY))
suite.case("chat, structured", llm(*SAY, "--no-stream", "--schema", "city, country"))
suite.case("chat, tools by itself", llm(*SAY, "--no-stream", "-T", "llm_version"))
suite.case("embeddings", llm("embed", "-m", "3-small", "-c", "one two three"))
suite.refused("a 402", llm(*SAY, "--no-stream"))
