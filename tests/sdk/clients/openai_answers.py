"""What the scripted provider answers in OpenAI's dialect, and what it charges for it."""

import base64
import json
import re
import struct

from wire import Answer, Truth, document

CREATED = 1_790_000_000
WORDS = ["The ", "toll ", "is ", "paid, ", "dear ", "traveller", "."]
PIXEL = base64.b64encode(b"\x89PNG scripted").decode()
SOUND = b"ID3 scripted sound " * 40
# The dated name that an alias is answered with.
SNAPSHOTS = {"gpt-4o-mini": "gpt-4o-mini-2024-07-18", "gpt-4o": "gpt-4o-2024-08-06"}


def answer(request, provider="openai"):
    path = request.path.removeprefix("/v1beta/openai") if provider == "gemini" else request.path.removeprefix("/v1")
    for method, pattern, handler in ROUTES:
        found = re.fullmatch(pattern, path)
        if method == request.method and found:
            return handler(request, provider, *found.groups())
    return failure(404, f"no script for {request.method} {request.path}")


def failure(status, message):
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return document({"error": error}, status=status)


def kinds(prompt, completion, **parts):
    tokens = {"prompt_tokens": prompt, "completion_tokens": completion}
    return tokens | {name + "_tokens": count for name, count in parts.items() if count}


def events(values, named=False, done=True):
    """Server-sent events, in pieces that end in the middle of one now and then."""
    text = "".join(
        (f"event: {value['type']}\n" if named else "") + f"data: {json.dumps(value, separators=(',', ':'))}\n\n"
        for value in values
    )
    raw = (text + ("data: [DONE]\n\n" if done else "")).encode()
    return [raw[at : at + 777] for at in range(0, len(raw), 777)]


def stream(values, truth, **options):
    return Answer(kind="text/event-stream; charset=utf-8", pieces=events(values, **options), truth=truth)


def filled(schema, root=None):
    """A value that fits a JSON schema."""
    root = root or schema
    if "$ref" in schema:
        return filled(root["$defs"][schema["$ref"].rsplit("/", 1)[1]], root)
    if "enum" in schema:
        return schema["enum"][0]
    match str(schema.get("type", "object")).lower():
        case "object":
            return {name: filled(part, root) for name, part in schema.get("properties", {}).items()}
        case "array":
            return [filled(schema.get("items", {}), root)]
        case "integer" | "number":
            return 7
        case "boolean":
            return True
    return "Paris"


# Chat completions


def tool_of(request):
    """The function to call next: the first, where the model may call one and none has answered yet."""
    tools = [tool.get("function", tool) for tool in request.json.get("tools") or [] if tool.get("type") == "function"]
    turns = request.json.get("messages") or request.json.get("input") or []
    has_answer = any(
        turn.get("role") == "tool" or turn.get("type") == "function_call_output"
        for turn in turns
        if isinstance(turn, dict)
    )
    if not tools or has_answer or request.json.get("tool_choice") == "none":
        return None
    return tools[0]["name"], json.dumps(filled(tools[0].get("parameters", {})))


def text_of(request):
    asked = request.json.get("response_format") or (request.json.get("text") or {}).get("format") or {}
    if asked.get("type") == "json_schema":
        return [json.dumps(filled(asked.get("json_schema", asked)["schema"]))]
    return WORDS


def chat(request, provider):
    body = request.json
    if match := re.fullmatch(r"error-(\d+)", body["model"]):
        return failure(int(match[1]), "The script has this error.")
    model = SNAPSHOTS.get(body["model"], body["model"])
    count = body.get("n") or 1
    prompt, reasoning = request.number("prompt", 30, 90), request.number("thought", 3, 20)
    visible = count * request.number("completion", 8, 40)
    spoken = visible - 3 if "audio" in (body.get("modalities") or []) else 0
    cached, written = request.number("cached", 1, 20), request.number("written", 1, 9)
    usage = {
        "prompt_tokens": prompt,
        "completion_tokens": visible + reasoning,
        "total_tokens": prompt + visible + reasoning,
        "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": reasoning,
            "audio_tokens": spoken,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
    parts = {"cached": cached, "cache_write": written, "reasoning": reasoning, "completion_audio": spoken}
    if provider == "gemini":
        # Gemini's compatible endpoint has thoughts in the total alone.
        usage = {"prompt_tokens": prompt, "completion_tokens": visible, "total_tokens": prompt + visible + reasoning}
        parts = {"reasoning": reasoning}
    truth = Truth(provider, "chat.completions", model, kinds(prompt, visible + reasoning, **parts), chat=True)
    head = {"id": "chatcmpl-" + request.fresh(), "created": CREATED, "model": model}
    if provider == "openai":
        head |= {"service_tier": "default", "system_fingerprint": "fp_script"}
    tool = tool_of(request)
    if body.get("stream"):
        return stream(chunks(head, request, tool, count, usage), truth)
    message = {
        "role": "assistant",
        "content": None if tool else "".join(text_of(request)),
        "refusal": None,
        "annotations": [],
    }
    if tool:
        message["tool_calls"] = [
            {"id": "call_scripted", "type": "function", "function": {"name": tool[0], "arguments": tool[1]}}
        ]
    if spoken:
        sound = base64.b64encode(SOUND).decode()
        message |= {
            "content": None,
            "audio": {"id": "audio_" + request.fresh(), "data": sound, "expires_at": CREATED, "transcript": "".join(WORDS)},
        }
    reason = "tool_calls" if tool else "stop"
    choices = [{"index": at, "message": message, "logprobs": None, "finish_reason": reason} for at in range(count)]
    return document(head | {"object": "chat.completion", "choices": choices, "usage": usage}, truth)


def chunks(head, request, tool, count, usage):
    asked = (request.json.get("stream_options") or {}).get("include_usage")
    head = head | {"object": "chat.completion.chunk"}
    beside = {"usage": None} if asked else {}

    def chunk(at, delta, reason=None):
        choice = {"index": at, "delta": delta, "logprobs": None, "finish_reason": reason}
        return head | {"choices": [choice]} | beside | {"obfuscation": "x7Qk"}

    for at in range(count):
        yield chunk(at, {"role": "assistant", "content": None if tool else "", "refusal": None})
        if tool:
            call = {
                "index": 0,
                "id": "call_scripted",
                "type": "function",
                "function": {"name": tool[0], "arguments": ""},
            }
            yield chunk(at, {"tool_calls": [call]})
            for half in (tool[1][:5], tool[1][5:]):
                yield chunk(at, {"tool_calls": [{"index": 0, "function": {"arguments": half}}]})
        else:
            for word in text_of(request):
                yield chunk(at, {"content": word})
        yield chunk(at, {}, "tool_calls" if tool else "stop")
    if asked:
        yield head | {"choices": [], "usage": usage, "obfuscation": ""}


def completions(request, provider):
    body = request.json
    prompt, completion = request.number("prompt", 5, 60), request.number("completion", 5, 60)
    truth = Truth(provider, "completions", body["model"], kinds(prompt, completion), chat=True)
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    head = {"id": "cmpl-" + request.fresh(), "object": "text_completion", "created": CREATED, "model": body["model"]}
    choice = {"index": 0, "logprobs": None, "finish_reason": "stop"}
    if not body.get("stream"):
        return document(head | {"choices": [choice | {"text": "".join(WORDS)}], "usage": usage}, truth)
    asked = (body.get("stream_options") or {}).get("include_usage")
    beside = {"usage": None} if asked else {}
    parts = [head | {"choices": [choice | {"text": word, "finish_reason": None}]} | beside for word in WORDS]
    parts.append(head | {"choices": [choice | {"text": ""}]} | beside)
    if asked:
        parts.append(head | {"choices": [], "usage": usage})
    return stream(parts, truth)


# Responses


def responses(request, provider):
    body = request.json
    model = SNAPSHOTS.get(body["model"], body["model"])
    prompt, output = request.number("prompt", 40, 90), request.number("output", 20, 60)
    cached, reasoning = request.number("cached", 1, 30), request.number("thought", 1, 15)
    usage = {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": prompt + output,
    }
    truth = Truth(provider, "responses", model, kinds(prompt, output, cached=cached, reasoning=reasoning), chat=True)
    tool, name = tool_of(request), request.fresh()
    if tool:
        item = {
            "type": "function_call",
            "id": "fc_" + name,
            "call_id": "call_scripted",
            "name": tool[0],
            "arguments": tool[1],
            "status": "completed",
        }
    else:
        text = {"type": "output_text", "text": "".join(text_of(request)), "annotations": [], "logprobs": []}
        item = {"type": "message", "id": "msg_" + name, "role": "assistant", "status": "completed", "content": [text]}
    begun = {
        "id": "resp_" + name,
        "object": "response",
        "created_at": CREATED,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": body.get("instructions"),
        "metadata": {},
        "model": model,
        "output": [],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "service_tier": "default",
        "usage": None,
    }
    ended = begun | {"status": "completed", "output": [item], "usage": usage}
    if not body.get("stream"):
        return document(ended, truth)
    said = [event | {"sequence_number": at} for at, event in enumerate(response_events(begun, ended, item))]
    return stream(said, truth, named=True, done=False)


def response_events(begun, ended, item):
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    if item["type"] == "function_call":
        at = {"item_id": item["id"], "output_index": 0}
        empty = item | {"arguments": "", "status": "in_progress"}
        yield {"type": "response.output_item.added", "output_index": 0, "item": empty}
        for half in (item["arguments"][:5], item["arguments"][5:]):
            yield {"type": "response.function_call_arguments.delta", "delta": half} | at
        yield {
            "type": "response.function_call_arguments.done",
            "arguments": item["arguments"],
            "name": item["name"],
        } | at
    else:
        at = {"item_id": item["id"], "output_index": 0, "content_index": 0}
        text = item["content"][0]["text"]
        yield {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": item | {"content": [], "status": "in_progress"},
        }
        yield {"type": "response.content_part.added", "part": item["content"][0] | {"text": ""}} | at
        for half in (text[:9], text[9:]):
            yield {"type": "response.output_text.delta", "delta": half, "logprobs": []} | at
        yield {"type": "response.output_text.done", "text": text, "logprobs": []} | at
        yield {"type": "response.content_part.done", "part": item["content"][0]} | at
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}
    yield {"type": "response.completed", "response": ended}


def compact(request, provider):
    prompt, output = request.number("prompt", 40, 90), request.number("output", 20, 60)
    truth = Truth(provider, "responses.compact", request.json["model"], kinds(prompt, output))
    usage = {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + output,
    }
    name = request.fresh()
    item = {"type": "compaction", "id": "cmp_" + name, "encrypted_content": "c2NyaXB0"}
    return document(
        {
            "id": "resp_" + name,
            "object": "response.compaction",
            "created_at": CREATED,
            "output": [item],
            "usage": usage,
        },
        truth,
    )


def decisions(request, provider):
    prompt, output = request.number("prompt", 40, 90), request.number("output", 2, 9)
    usage = {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + output,
    }
    model = request.json["model"]
    said = {"id": "dec_" + request.fresh(), "object": "decision", "created_at": CREATED, "model": model, "usage": usage}
    said["answers"] = [{"type": "predicate", "name": "is_paid", "probability": 0.75}]
    return document(said, Truth(provider, "decisions", model, kinds(prompt, output)))


# Embeddings, images, sound


def embeddings(request, provider):
    body = request.json
    vector = [0.5, -0.25, 0.125, 1.0]
    count = len(body["input"]) if isinstance(body["input"], list) and not isinstance(body["input"][0], int) else 1
    if body.get("encoding_format") == "base64":
        vector = base64.b64encode(struct.pack("<4f", *vector)).decode()
    prompt = request.number("prompt", 3, 50)
    data = [{"object": "embedding", "index": at, "embedding": vector} for at in range(count)]
    usage = {"prompt_tokens": prompt, "total_tokens": prompt}
    truth = Truth(provider, "embeddings", body["model"], kinds(prompt, 0))
    return document({"object": "list", "data": data, "model": body["model"], "usage": usage}, truth)


def images(request, provider):
    asked = request.json or request.form
    model = asked["model"]
    endpoint = "images.edits" if request.path.endswith("edits") else "images.generations"
    if not model.startswith("gpt-image"):
        truth = Truth(provider, endpoint, model, None, priced="unpriced")
        return document({"created": CREATED, "data": [{"b64_json": PIXEL, "revised_prompt": "A gate"}]}, truth)
    text, output = request.number("prompt", 5, 50), 1056
    image = 194 if endpoint == "images.edits" else 0
    usage = {
        "input_tokens": text + image,
        "input_tokens_details": {"image_tokens": image, "text_tokens": text},
        "output_tokens": output,
        "output_tokens_details": {"image_tokens": output, "text_tokens": 0},
        "total_tokens": text + image + output,
    }
    truth = Truth(provider, endpoint, model, kinds(text + image, output, prompt_image=image, completion_image=output))
    look = {"background": "opaque", "output_format": "png", "quality": "medium", "size": "1024x1024"}
    if str(asked.get("stream", "")).lower() != "true":
        return document({"created": CREATED, "data": [{"b64_json": PIXEL}], "usage": usage} | look, truth)
    name = "image_edit" if endpoint == "images.edits" else "image_generation"
    event = {"b64_json": PIXEL, "created_at": CREATED} | look
    partial = {"type": f"{name}.partial_image", "partial_image_index": 0} | event
    return stream([partial, {"type": f"{name}.completed", "usage": usage} | event], truth, named=True, done=False)


def transcriptions(request, provider):
    form = request.form
    model, shape = form["model"], form.get("response_format", "json")
    text = "".join(WORDS)
    name = "audio.translations" if request.path.endswith("translations") else "audio.transcriptions"
    unsaid = Truth(provider, name, model, None, priced="unpriced")
    if shape in ("text", "srt", "vtt"):
        said = f"1\n00:00:00,000 --> 00:00:02,000\n{text}\n" if shape == "srt" else text + "\n"
        return Answer(said.encode(), kind="text/plain; charset=utf-8", truth=unsaid)
    if name == "audio.translations":
        return document({"text": text}, unsaid)
    if model == "whisper-1":
        said = {"text": text, "usage": {"type": "duration", "seconds": 3}}
        if shape == "verbose_json":
            said |= {"task": "transcribe", "language": "english", "duration": 2.5, "segments": []}
        return document(said, Truth(provider, name, model, {}, quantities={"audio_ms": 3000}, priced="priced"))
    audio, output = 21, request.number("output", 5, 30)
    details = {"audio_tokens": audio, "text_tokens": 4}
    usage = {
        "type": "tokens",
        "input_tokens": audio + 4,
        "input_token_details": details,
        "output_tokens": output,
        "total_tokens": audio + 4 + output,
    }
    truth = Truth(provider, name, model, kinds(audio + 4, output, prompt_audio=audio))
    if form.get("stream", "").lower() != "true":
        return document({"text": text, "usage": usage}, truth)
    parts = [{"type": "transcript.text.delta", "delta": word} for word in WORDS]
    return stream([*parts, {"type": "transcript.text.done", "text": text, "usage": usage}], truth, done=False)


def speech(request, provider):
    model = request.json["model"]
    if request.json.get("stream_format") != "sse":
        truth = Truth(provider, "audio.speech", model, None)
        return Answer(kind="audio/mpeg", pieces=[SOUND[:300], SOUND[300:]], truth=truth)
    prompt, output = request.number("prompt", 5, 40), request.number("output", 50, 90)
    usage = {"input_tokens": prompt, "output_tokens": output, "total_tokens": prompt + output}
    sound = base64.b64encode(SOUND).decode()
    parts = [{"type": "speech.audio.delta", "audio": sound}, {"type": "speech.audio.done", "usage": usage}]
    return stream(parts, Truth(provider, "audio.speech", model, kinds(prompt, output)), done=False)


# What costs nothing

FILE = {
    "object": "file",
    "bytes": 5,
    "created_at": CREATED,
    "filename": "a.jsonl",
    "purpose": "batch",
    "status": "processed",
}
STORE = {
    "object": "vector_store",
    "created_at": CREATED,
    "name": "tolls",
    "usage_bytes": 0,
    "status": "completed",
    "file_counts": {"in_progress": 0, "completed": 0, "failed": 0, "cancelled": 0, "total": 0},
    "last_active_at": CREATED,
    "metadata": {},
}
STORED = {
    "object": "vector_store.file",
    "usage_bytes": 5,
    "created_at": CREATED,
    "status": "completed",
    "last_error": None,
    "attributes": {},
}
HARMS = ["harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent", "self-harm"]
HARMS += ["self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence", "violence/graphic"]


def free(value):
    return lambda request, provider: document(value)


def listed(*values):
    ends = {"first_id": values[0]["id"], "last_id": values[-1]["id"], "has_more": False}
    return free({"object": "list", "data": list(values)} | ends)


def made(kind, value):
    """What makes an object, whose name begins with this."""
    return lambda request, provider: document({"id": kind + request.fresh()} | value)


def kept(value):
    """An object, whatever it is called."""
    return lambda request, provider, name: document({"id": name} | value)


def deleted(kind):
    return kept({"object": kind, "deleted": True})


def upload_part(request, provider, upload):
    part = {"object": "upload.part", "created_at": CREATED, "upload_id": upload}
    return document({"id": "part_" + request.fresh()} | part)


def uploaded(request, provider, upload):
    file = {"id": "file-" + request.fresh()} | FILE
    return document({"id": upload} | UPLOAD | {"status": "completed", "file": file})


def store_file(request, provider, store):
    return document({"id": request.json["file_id"]} | STORED | {"vector_store_id": store})


def store_files(request, provider, store):
    return listed({"id": "file-scripted"} | STORED | {"vector_store_id": store})(request, provider)


def moderations(request, provider):
    result = {
        "flagged": False,
        "categories": dict.fromkeys(HARMS, False),
        "category_scores": dict.fromkeys(HARMS, 0.001),
        "category_applied_input_types": {harm: ["text"] for harm in HARMS},
    }
    return document(
        {"id": "modr-scripted", "model": request.json.get("model", "omni-moderation-latest"), "results": [result]}
    )


def model_named(name):
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "openai"}


UPLOAD = {
    "object": "upload",
    "bytes": 5,
    "created_at": CREATED,
    "expires_at": CREATED,
    "filename": "a.jsonl",
    "purpose": "batch",
}
CONVERSATION = {"object": "conversation", "created_at": CREATED, "metadata": {}}

ROUTES = [
    ("POST", "/chat/completions", chat),
    ("POST", "/completions", completions),
    ("POST", "/responses", responses),
    ("POST", "/responses/compact", compact),
    ("POST", "/decisions", decisions),
    ("POST", "/embeddings", embeddings),
    ("POST", "/images/(?:generations|edits)", images),
    ("POST", "/audio/(?:transcriptions|translations)", transcriptions),
    ("POST", "/audio/speech", speech),
    ("POST", "/responses/input_tokens", free({"object": "response.input_tokens", "input_tokens": 51})),
    (
        "POST",
        "/responses/([^/]+)/cancel",
        kept({"object": "response", "status": "cancelled", "output": [], "usage": None}),
    ),
    (
        "GET",
        "/responses/([^/]+)",
        kept({"object": "response", "status": "completed", "output": [], "usage": None}),
    ),
    ("DELETE", "/responses/([^/]+)", deleted("response")),
    ("POST", "/moderations", moderations),
    ("GET", "/models", listed(model_named("gpt-4o-mini"), model_named("gpt-image-1"))),
    ("GET", "/models/[^/]+", lambda request, provider: document(model_named(request.path.rsplit("/", 1)[1]))),
    (
        "GET",
        "/chat/completions",
        listed(
            {
                "id": "chatcmpl-scripted",
                "object": "chat.completion",
                "created": CREATED,
                "model": "gpt-4o-mini",
                "choices": [],
            }
        ),
    ),
    ("DELETE", "/chat/completions/([^/]+)", deleted("chat.completion.deleted")),
    ("POST", "/files", made("file-", FILE)),
    ("GET", "/files", listed({"id": "file-scripted"} | FILE)),
    ("GET", "/files/([^/]+)", kept(FILE)),
    (
        "GET",
        "/files/[^/]+/content",
        lambda request, provider: Answer(b"\x00\xffraw\n", kind="application/octet-stream"),
    ),
    ("DELETE", "/files/([^/]+)", deleted("file")),
    ("POST", "/uploads", made("upload_", UPLOAD | {"status": "pending"})),
    ("POST", "/uploads/([^/]+)/parts", upload_part),
    ("POST", "/uploads/([^/]+)/complete", uploaded),
    ("POST", "/vector_stores", made("vs_", STORE)),
    ("GET", "/vector_stores", listed({"id": "vs_scripted"} | STORE)),
    ("GET", "/vector_stores/([^/]+)", kept(STORE)),
    ("POST", "/vector_stores/([^/]+)/files", store_file),
    ("GET", "/vector_stores/([^/]+)/files", store_files),
    ("DELETE", "/vector_stores/([^/]+)", deleted("vector_store.deleted")),
    ("POST", "/conversations", made("conv_", CONVERSATION)),
    ("GET", "/conversations/([^/]+)", kept(CONVERSATION)),
    ("DELETE", "/conversations/([^/]+)", deleted("conversation.deleted")),
]
