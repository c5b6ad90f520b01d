"""What the scripted provider finishes later than it answers, and what it charges for it then: responses in the background
and batches. A unit is unfinished when it is first asked for, and done the second time."""

import re
import threading
import urllib.parse

from openai_answers import CREATED, SNAPSHOTS, WORDS, failure, kinds
from wire import Truth, document

VERSION = "/(?:v1|v1beta|v1alpha)"


class Desk:
    """The units that one door began, by their names."""

    def __init__(self):
        self.lock = threading.Lock()
        self.units = {}

    def begin(self, name, make):
        with self.lock:
            self.units[name] = [0, make(name)]
            return self.units[name][1]

    def look(self, name):
        """How often the unit was asked for, and what there is to say of it."""
        with self.lock:
            unit = self.units.get(name)
            if unit:
                unit[0] += 1
            return (unit[0], unit[1]) if unit else (0, None)


DESKS = {}
DESKS_LOCK = threading.Lock()


def answer(request):
    """The answer to what begins a unit or asks for one, and nothing for everything else."""
    with DESKS_LOCK:
        desk = DESKS.setdefault(request.origin, Desk())
    for method, pattern, handler in ROUTES:
        found = re.fullmatch(pattern, request.path)
        if method == request.method and found:
            return handler(request, desk, *found.groups())
    return None


def asked(desk, name, at):
    count, said = desk.look(name)
    if said is None:
        return failure(404, f"no unit {name}")
    return document(said[min(count, at)])


# OpenAI


def response(request, desk):
    body = request.json
    if not body.get("background") or body.get("stream"):
        return None
    model = SNAPSHOTS.get(body["model"], body["model"])
    prompt, output = request.number("prompt", 40, 90), request.number("output", 20, 60)
    usage = {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + output,
    }
    text = {"type": "output_text", "text": "".join(WORDS), "annotations": [], "logprobs": []}
    item = {"type": "message", "id": "msg_later", "role": "assistant", "status": "completed", "content": [text]}

    def make(name):
        begun = {
            "id": name,
            "object": "response",
            "created_at": CREATED,
            "status": "queued",
            "background": True,
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "metadata": {},
            "model": model,
            "output": [],
            "parallel_tool_calls": True,
            "temperature": 1.0,
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "service_tier": "auto",
            "usage": None,
        }
        done = {"status": "completed", "output": [item], "usage": usage, "service_tier": "default"}
        return [begun, begun | {"status": "in_progress"}, begun | done]

    said = desk.begin("resp_later_" + request.fresh(), make)
    truth = Truth("openai", "responses", model, kinds(prompt, output), chat=True, begun_as=model)
    return document(said[0], truth)


def stored_response(request, desk, name):
    return asked(desk, name, 2) if name in desk.units else None


def batch(request, desk):
    model = "gpt-4o-mini-2024-07-18"
    prompt, output = 1_000_000 + request.number("prompt", 40, 90), 200_000 + request.number("output", 20, 60)
    usage = {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + output,
    }

    def make(name):
        begun = {
            "id": name,
            "object": "batch",
            "endpoint": request.json["endpoint"],
            "input_file_id": request.json["input_file_id"],
            "completion_window": "24h",
            "status": "validating",
            "created_at": CREATED,
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
        }
        counts = {"total": 3, "completed": 3, "failed": 0}
        done = {"status": "completed", "model": model, "output_file_id": "file-" + name, "usage": usage}
        return [begun, begun | {"status": "in_progress"}, begun | done | {"request_counts": counts}]

    truth = Truth("openai", "batches", model, kinds(prompt, output), priced="priced", begun_as="")
    return document(desk.begin("batch_later_" + request.fresh(), make)[0], truth)


def stored_batch(request, desk, name):
    return asked(desk, name, 2)


def batches(request, desk):
    if "x-goog-api-key" in request.headers:
        return document({"operations": []})
    return document({"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False})


# Gemini


def generations(request, desk, model, method):
    prompt, output = request.number("prompt", 30, 90), request.number("visible", 8, 40)
    part = {
        "candidates": [{"content": {"parts": [{"text": "".join(WORDS)}], "role": "model"}, "finishReason": "STOP"}],
        "usageMetadata": {
            "promptTokenCount": prompt,
            "candidatesTokenCount": output,
            "totalTokenCount": prompt + output,
        },
        "modelVersion": model,
    }
    embedding = {"embedding": {"values": [0.5, 0.25]}, "tokenCount": prompt}
    embeds = method == "asyncBatchEmbedContent"

    def make(name):
        state = {"model": f"models/{model}", "displayName": "tolls", "createTime": "2026-09-21T12:00:00Z"}
        begun = {"name": name, "metadata": state | {"state": "BATCH_STATE_PENDING"}}
        running = {"name": name, "metadata": state | {"state": "BATCH_STATE_RUNNING"}}
        listed = {"inlinedResponses": [{"response": embedding if embeds else part}] * 2}
        output = {"inlinedEmbedContentResponses" if embeds else "inlinedResponses": listed}
        done = {"name": name, "metadata": state | {"state": "BATCH_STATE_SUCCEEDED", "output": output}, "done": True}
        return [begun, running, done]

    tokens = kinds(2 * prompt, 0 if embeds else 2 * output)
    begun = desk.begin("batches/later-" + request.fresh(), make)[0]
    return document(begun, Truth("gemini", method, model, tokens, begun_as=model))


def stored_generations(request, desk, name):
    return asked(desk, urllib.parse.unquote(name), 2)


def free(value):
    return lambda request, desk: document(value)


def thread(request, desk):
    return document({"id": "thread_" + request.fresh()} | THREAD)


def assistant(request, desk):
    said = {"object": "assistant", "created_at": CREATED, "model": request.json["model"], "tools": [], "metadata": {}}
    return document({"id": "asst_" + request.fresh()} | said)


def run_begun(request, desk, thread):
    """A run is finished when it is first asked for."""
    said = {"id": "run_" + request.fresh(), "thread_id": thread} | RUN | {"status": "queued", "usage": None}
    prompt, output = RUN["usage"]["prompt_tokens"], RUN["usage"]["completion_tokens"]
    truth = Truth("openai", "threads.runs", RUN["model"], kinds(prompt, output), chat=True, begun_as=RUN["model"])
    return document(said, truth)


def interaction(request, desk):
    used, model = INTERACTION["usage"], INTERACTION["model"]
    tokens = kinds(used["total_input_tokens"], used["total_output_tokens"])
    truth = Truth("gemini", "interactions", model, tokens, chat=True)
    return document({"id": "int_" + request.fresh()} | INTERACTION, truth)


def kept(value):
    """An object, whatever it is called."""
    return lambda request, desk, name: document({"id": name} | value)


def run(status):
    return lambda request, desk, thread, name: document({"id": name, "thread_id": thread} | RUN | {"status": status})


THREAD = {"object": "thread", "created_at": CREATED, "metadata": {}}
RUN = {
    "object": "thread.run",
    "assistant_id": "asst_scripted",
    "created_at": CREATED,
    "model": "gpt-4o-mini-2024-07-18",
    "usage": {"prompt_tokens": 20, "completion_tokens": 3, "total_tokens": 23},
}
INTERACTION = {
    "object": "interaction",
    "status": "completed",
    "model": "gemini-2.5-flash",
    "usage": {"total_input_tokens": 8, "total_output_tokens": 2, "total_tokens": 10},
}
LIST = {"object": "list", "data": []}

ROUTES = [
    ("POST", "/v1/responses", response),
    ("GET", "/v1/responses/([^/]+)", stored_response),
    ("POST", "/v1/batches", batch),
    ("GET", "/v1/batches/(batch_[^/]+)", stored_batch),
    ("POST", "/v1/batches/(batch_[^/]+)/cancel", stored_batch),
    ("GET", f"{VERSION}/batches", batches),
    ("POST", f"{VERSION}/models/([^/:]+):(batchGenerateContent|asyncBatchEmbedContent)", generations),
    ("GET", f"{VERSION}/(batches/[^/:]+)", stored_generations),
    ("POST", f"{VERSION}/batches/[^/:]+:cancel", free({})),
    ("DELETE", f"{VERSION}/batches/[^/:]+", free({})),
    ("GET", f"/download{VERSION}/files/[^/:]+:download", free({"key": "1", "response": {}})),
    ("POST", f"{VERSION}/interactions", interaction),
    ("GET", f"{VERSION}/interactions/([^/]+)", kept(INTERACTION)),
    ("DELETE", f"{VERSION}/interactions/[^/]+", free({})),
    ("POST", f"{VERSION}/interactions/([^/]+)/cancel", kept(INTERACTION | {"status": "cancelled"})),
    ("GET", "/v1/assistants", free(LIST)),
    ("POST", "/v1/assistants", assistant),
    ("POST", "/v1/threads", thread),
    ("GET", "/v1/threads/([^/]+)", kept(THREAD)),
    ("DELETE", "/v1/threads/[^/]+", free({"deleted": True})),
    ("GET", "/v1/threads/[^/]+/(?:messages|runs/[^/]+/steps)", free(LIST)),
    ("POST", "/v1/threads/([^/]+)/runs", run_begun),
    ("GET", "/v1/threads/([^/]+)/runs/([^/]+)", run("completed")),
    ("POST", "/v1/threads/([^/]+)/runs/([^/]+)/cancel", run("cancelled")),
]
