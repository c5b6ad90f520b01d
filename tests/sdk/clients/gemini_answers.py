"""What the scripted provider answers in Gemini's dialect, Vertex's included, and what it charges for it."""

import base64
import json
import re

import openai_answers
from openai_answers import PIXEL, WORDS, filled, kinds
from wire import Answer, Truth, document

NOW = "2026-09-21T12:00:00Z"
VERSION = "(?:v1|v1beta|v1alpha|v1beta1)"
PROJECT = "(?:/projects/[^/]+/locations/[^/]+)?"
MODEL = f"(?:/models|{PROJECT}/publishers/google/models)/([^/:]+)"


def answer(request):
    if request.path.startswith("/v1beta/openai/"):
        return openai_answers.answer(request, provider="gemini")
    for method, pattern, handler in ROUTES:
        found = re.fullmatch(pattern, request.path)
        if method == request.method and found:
            return handler(request, *found.groups())
    return failure(404, "NOT_FOUND", f"no script for {request.method} {request.path}")


def failure(status, name, message):
    return document({"error": {"code": status, "message": message, "status": name}}, status=status)


def tool_of(request):
    tools = [
        function for tool in request.json.get("tools") or [] for function in tool.get("functionDeclarations") or []
    ]
    parts = [part for content in request.json["contents"] for part in content.get("parts", [])]
    mode = ((request.json.get("toolConfig") or {}).get("functionCallingConfig") or {}).get("mode")
    if not tools or any("functionResponse" in part for part in parts) or mode == "NONE":
        return None
    # Either way of writing a member is right for this API.
    schemas = [tools[0].get(name) for name in ("parametersJsonSchema", "parameters_json_schema", "parameters")]
    schema = next((schema for schema in schemas if schema), {})
    return {"functionCall": {"id": "call_scripted", "name": tools[0]["name"], "args": filled(schema)}}


def texts_of(request):
    asked = request.json.get("generationConfig") or {}
    schema = asked.get("responseJsonSchema") or asked.get("responseSchema")
    return [json.dumps(filled(schema))] if schema else WORDS


def generation(request, model):
    """The usage and its truth, with what the parts of the answer are."""
    prompt, thoughts = request.number("prompt", 30, 90), request.number("thought", 3, 20)
    visible, cached = request.number("visible", 8, 40), request.number("cached", 1, 20)
    tools = request.number("tools", 1, 30)
    usage = {
        "promptTokenCount": prompt,
        "candidatesTokenCount": visible,
        "toolUsePromptTokenCount": tools,
        "totalTokenCount": prompt + tools + visible + thoughts,
        "cachedContentTokenCount": cached,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": prompt}],
        "thoughtsTokenCount": thoughts,
    }
    return usage, kinds(prompt + tools, visible + thoughts, cached=cached, reasoning=thoughts)


def generate(request, model):
    if match := re.fullmatch(r"error-(\d+)", model):
        return failure(int(match[1]), "INVALID_ARGUMENT", "The script has this error.")
    usage, tokens = generation(request, model)
    tool = tool_of(request)
    parts = [tool] if tool else [{"text": "".join(texts_of(request))}]
    candidate = {"content": {"parts": parts, "role": "model"}, "finishReason": "STOP", "index": 0}
    goes_on = b'"continuationToken"' in request.body
    if b"in two parts" in request.body and not goes_on:
        candidate |= {"finishReason": "CONTINUATION", "continuationToken": "c2NyaXB0ZWQ="}
    said = {"candidates": [candidate], "usageMetadata": usage, "modelVersion": model, "responseId": "scripted"}
    # What goes on with an answer is the same chat.
    return document(said, Truth("gemini", "generateContent", model, tokens, chat=not goes_on))


def generate_stream(request, model):
    if match := re.fullmatch(r"error-(\d+)", model):
        return failure(int(match[1]), "INVALID_ARGUMENT", "The script has this error.")
    usage, tokens = generation(request, model)
    tool = tool_of(request)
    parts = [tool] if tool else [{"text": text} for text in texts_of(request)]
    said = []
    for at, part in enumerate(parts):
        is_last = at == len(parts) - 1
        candidate = {"content": {"parts": [part], "role": "model"}, "index": 0} | (
            {"finishReason": "STOP"} if is_last else {}
        )
        # Usage grows from event to event, and not in every count.
        so_far = (
            usage
            if is_last
            else {"promptTokenCount": usage["promptTokenCount"] + 9, "totalTokenCount": usage["promptTokenCount"] + 9}
        )
        said.append(
            {"candidates": [candidate], "usageMetadata": so_far, "modelVersion": model, "responseId": "scripted"}
        )
    truth = Truth("gemini", "streamGenerateContent", model, tokens, chat=True)
    if request.query.get("alt") == "sse":
        text = "".join(f"data: {json.dumps(event)}\r\n\r\n" for event in said)
        kind = "text/event-stream"
    else:
        text, kind = (
            "[" + "\n,\r\n".join(json.dumps(event, indent=2) for event in said) + "]",
            "application/json; charset=UTF-8",
        )
    raw = text.encode()
    return Answer(kind=kind, pieces=[raw[at : at + 501] for at in range(0, len(raw), 501)], truth=truth)


def count_tokens(request, model):
    total = request.number("prompt", 30, 90)
    return document({"totalTokens": total, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": total}]})


def compute_tokens(request, model):
    return document({"tokensInfo": [{"tokenIds": ["1", "22"], "tokens": ["VGhl", "dG9sbA=="], "role": "user"}]})


def embed(request, model, method):
    """The newer model says what it charges, and the two routes spell it in two ways; the older says nothing."""
    prompt = request.number("prompt", 3, 40)
    says = model == "gemini-embedding-2"
    truth = Truth("gemini", method, model, kinds(prompt, 0) if says else None)
    vector = {"values": [0.5, -0.25, 0.125]}
    if method == "embedContent":
        usage = {
            "promptTokenCount": prompt,
            "totalTokenCount": prompt,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": prompt}],
        }
        said = {"embedding": vector}
    else:
        usage = {"promptTokenCount": prompt, "promptTokenDetails": [{"modality": "TEXT", "tokenCount": prompt}]}
        said = {"embeddings": [vector for _ in request.json["requests"]]}
    return document(said | ({"usageMetadata": usage} if says else {}), truth)


def predict(request, model):
    if "imagen" in model:
        said = {"predictions": [{"mimeType": "image/png", "bytesBase64Encoded": PIXEL}]}
        return document(said, Truth("gemini", "predict", model, {}, quantities={"images": 1}, priced="priced"))
    counts = [request.number(f"token{at}", 3, 20) for at, _ in enumerate(request.json["instances"])]
    predictions = [
        {"embeddings": {"values": [0.5, -0.25], "statistics": {"token_count": count, "truncated": False}}}
        for count in counts
    ]
    return document({"predictions": predictions}, Truth("gemini", "predict", model, kinds(sum(counts), 0)))


def predict_long(request, model):
    name = f"models/{model}/operations/{request.fresh()}"
    return document({"name": name}, Truth("gemini", "predictLongRunning", model, None, priced="unpriced"))


def operation(request, *_):
    name = request.json.get("operationName") or request.path.split("/", 2)[2]
    file = "video-" + name.rsplit("/", 1)[1]
    video = {"video": {"uri": f"{FILES}/{file}:download?alt=media"}}
    return document({"name": name, "done": True, "response": {"generateVideoResponse": {"generatedSamples": [video]}}})


FILES = "https://generativelanguage.googleapis.com/v1beta/files"
CACHE = {
    "model": "models/gemini-2.5-flash",
    "createTime": NOW,
    "updateTime": NOW,
    "expireTime": NOW,
}
FILE = {
    "mimeType": "text/plain",
    "sizeBytes": "5",
    "createTime": NOW,
    "updateTime": NOW,
    "sha256Hash": base64.b64encode(b"scripted").decode(),
    "state": "ACTIVE",
    "source": "UPLOADED",
}
STORE = {"displayName": "tolls", "createTime": NOW, "updateTime": NOW}


def cache(request, *_):
    total = request.number("cache", 1000, 4000)
    name = "cachedContents/" + request.fresh()
    said = {"name": name} | CACHE | {"usageMetadata": {"totalTokenCount": total}}
    return document(said, Truth("gemini", "cachedContents", "gemini-2.5-flash", kinds(total, 0), priced="incomplete"))


def upload(request, *_):
    command = request.headers.get("x-goog-upload-command", "")
    if command == "start":
        to = f"{request.origin}{request.path}?upload_id={request.fresh()}&upload_protocol=resumable"
        return Answer(
            headers={
                "x-goog-upload-url": to,
                "x-goog-upload-status": "active",
                "x-goog-upload-chunk-granularity": "262144",
            }
        )
    if "finalize" in command:
        return document({"file": file(request.fresh())}, headers={"x-goog-upload-status": "final"})
    return Answer(headers={"x-goog-upload-status": "active"})


def file(name):
    return {"name": f"files/{name}"} | FILE | {"uri": f"{FILES}/{name}"}


def imported(request, store):
    return document({"name": f"{store}/operations/{request.fresh()}", "done": True, "response": {}})


def free(value):
    return lambda request, *_: document(value)


def made(collection, value):
    """What makes an object of a collection."""
    return lambda request: document({"name": f"{collection}/{request.fresh()}"} | value)


def kept(value):
    """An object, whatever it is called."""
    return lambda request, name: document({"name": name} | value)


def model_named(name):
    methods = ["generateContent", "countTokens"]
    return {
        "name": f"models/{name}",
        "version": "1",
        "displayName": name,
        "inputTokenLimit": 1000,
        "outputTokenLimit": 100,
        "supportedGenerationMethods": methods,
    }


ROUTES = [
    ("POST", f"/{VERSION}{MODEL}:generateContent", generate),
    ("POST", f"/{VERSION}{MODEL}:streamGenerateContent", generate_stream),
    ("POST", f"/{VERSION}{MODEL}:countTokens", count_tokens),
    ("POST", f"/{VERSION}{MODEL}:(embedContent|batchEmbedContents)", embed),
    ("POST", f"/{VERSION}{MODEL}:predict", predict),
    ("POST", f"/{VERSION}{MODEL}:predictLongRunning", predict_long),
    ("GET", f"/{VERSION}/models/[^/]+/operations/[^/]+", operation),
    ("POST", f"/{VERSION}{MODEL}:computeTokens", compute_tokens),
    ("POST", f"/{VERSION}{MODEL}:fetchPredictOperation", operation),
    ("GET", f"/{VERSION}/operations/[^/]+", operation),
    ("GET", f"/{VERSION}/tunedModels", free({"tunedModels": [{"name": "tunedModels/scripted"}]})),
    ("GET", f"/{VERSION}/models", free({"models": [model_named("gemini-2.5-flash"), model_named("imagen-4")]})),
    ("GET", f"/{VERSION}{PROJECT}/publishers/google/models/([^/]+)", lambda request, name: document(model_named(name))),
    ("GET", f"/{VERSION}/models/([^/]+)", lambda request, name: document(model_named(name))),
    ("POST", f"/{VERSION}{PROJECT}/cachedContents", cache),
    (
        "GET",
        f"/{VERSION}/cachedContents",
        free({"cachedContents": [{"name": "cachedContents/scripted"} | CACHE]}),
    ),
    ("GET", f"/{VERSION}{PROJECT}/(cachedContents/[^/]+)", kept(CACHE)),
    ("PATCH", f"/{VERSION}{PROJECT}/(cachedContents/[^/]+)", kept(CACHE)),
    ("DELETE", f"/{VERSION}/cachedContents/[^/]+", free({})),
    ("POST", f"/upload/{VERSION}/files", upload),
    ("POST", f"/upload/{VERSION}/fileSearchStores/[^/:]+:uploadToFileSearchStore", upload),
    ("GET", f"/{VERSION}/files", free({"files": [file("scripted")]})),
    ("GET", f"/{VERSION}/files/([^/:]+)", lambda request, name: document(file(name))),
    ("GET", f"/{VERSION}/files/[^/:]+:download", lambda request: Answer(b"\x00video\xff", kind="video/mp4")),
    ("DELETE", f"/{VERSION}/files/[^/]+", free({})),
    ("POST", f"/{VERSION}/fileSearchStores", made("fileSearchStores", STORE)),
    ("GET", f"/{VERSION}/fileSearchStores", free({"fileSearchStores": [{"name": "fileSearchStores/scripted"} | STORE]})),
    ("GET", f"/{VERSION}/(fileSearchStores/[^/]+)", kept(STORE)),
    ("DELETE", f"/{VERSION}/fileSearchStores/[^/]+", free({})),
    ("POST", f"/{VERSION}/(fileSearchStores/[^/:]+):importFile", imported),
]
