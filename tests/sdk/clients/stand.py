"""Where one suite of clients runs: a scripted provider with two doors, and a gateway before the second.

A client tells the stand of each case what it got directly and through the gateway. Judged is at the end, when the
gateway's ledger has everything, so that no case waits for another's.
"""

import itertools
import json
import os
import pathlib
import ssl
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass, field

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))

import gemini_answers
import later_answers
import openai_answers
import sessions
from gateway import Process
from wire import Port, read_form
from wire import document as answer_document

BOOKED_SECONDS = 15
PROVIDER_KEYS = {"openai": "sk-scripted-provider", "gemini": "AIza-scripted-provider"}
ADMIN_KEY = "admin-of-the-clients-suite-7c9e1f0ab35d4826"
# A certificate for `localhost` that vouches for itself, and its key.
_TLS = pathlib.Path(__file__).resolve().parents[2] / "fixtures" / "tls"
TLS = str(_TLS / "localhost.pem"), str(_TLS / "localhost.key")
KINDS = ["prompt", "cached", "cache_write", "prompt_audio", "prompt_image", "cached_audio"]
KINDS += ["completion", "reasoning", "completion_audio", "completion_image"]


def scripted(request):
    """Each dialect has paths of its own but for /v1, where a verb or Google's kind of key tells."""
    if later := later_answers.answer(request):
        return later
    google = "x-goog-api-key" in request.headers or "key" in request.query or ":" in request.path
    if not request.path.startswith("/v1/") or google:
        return gemini_answers.answer(request)
    return openai_answers.answer(request)


def converse(request, reads, writes, charge):
    peer = sessions.Peer(reads, writes)
    peer.agree(request.headers)

    def turn(truth):
        charge(truth, peer.sent)
        peer.sent = b""

    sessions.serve(request, peer, turn)


@dataclass
class Case:
    client: str
    call: str
    tenant: str
    direct: object
    through: object
    # What the provider saw of it: by the first door and by the second.
    asked: list
    forwarded: list
    # `answered`; `failed`: with an error of the provider's, both ways; `refused`: with the gateway's 402.
    ending: str
    problems: list = field(default_factory=list)
    # A part of it went to the provider's own address.
    goes_past: bool = False


class Stand:
    def __init__(self, binary, directory, over_tls=False):
        self.tls = TLS if over_tls else None
        self.direct, self.upstream = Port(scripted, converse, self.tls), Port(scripted, converse)
        self.control = Port(self._control)
        self.cases = []
        self.binary, self.directory = binary, directory
        self.settings = {
            "PATH": os.environ.get("PATH", ""),
            "RUST_LOG": "warn",
            "TOLLGATE_LISTEN": "127.0.0.1:0",
            "TOLLGATE_H2C": "true",
            "TOLLGATE_ADMIN_LISTEN": "127.0.0.1:0",
            "TOLLGATE_ADMIN_KEY": ADMIN_KEY,
            # What is finished later its client asks for: a question of the gateway's own would belong to no case.
            "TOLLGATE_POLL_INTERVAL": "1h",
            "TOLLGATE_DATA_DIR": str(directory / "data"),
            "TOLLGATE_OPENAI_URL": self.upstream.url,
            # As in prod: a tenant has what it made and nothing else. Lists are a matter of their own.
            "TOLLGATE_UNKNOWN_OBJECTS": "refuse",
            "TOLLGATE_OBJECT_LISTS": "allow",
            "TOLLGATE_GEMINI_URL": self.upstream.url,
            "OPENAI_API_KEY": PROVIDER_KEYS["openai"],
            "GEMINI_API_KEY": PROVIDER_KEYS["gemini"],
        }
        if over_tls:
            self.settings |= {"TOLLGATE_TLS_CERT": TLS[0], "TOLLGATE_TLS_KEY": TLS[1]}
        (directory / "tollgate.toml").write_text("[plans.none]\nchats_per_month = 0\n")
        self.process = Process([binary, "serve", "--config", "tollgate.toml"], directory, self.settings)
        self.url, self.admin = "http://" + self.process.proxy, "http://" + self.process.admin
        if over_tls:
            self.url = "https://localhost:" + self.process.proxy.split(":")[1]

    def environment(self):
        """What a client's process has to know."""
        trust = {"SSL_CERT_FILE": TLS[0], "NODE_EXTRA_CA_CERTS": TLS[0]} if self.tls else {}
        doors = {"STAND_DIRECT": self.direct.url, "STAND_THROUGH": self.url, "STAND_CONTROL": self.control.url}
        return doors | trust

    def _control(self, request):
        said = request.json
        if request.path == "/plan":
            # The tenant exists from its first call on.
            self.ask("/billing/limits", said["tenant"])
            self.ask("/billing/plan", ADMIN_KEY, {"tenant_id": said["tenant"], "plan": said["plan"]})
        else:
            case = Case(**said, asked=self.direct.claim(), forwarded=self.upstream.claim())
            self.cases.append(case)
        return answer_document({})

    def ask(self, path, key, body=None):
        base = self.admin if key == ADMIN_KEY else self.url
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        request = urllib.request.Request(base + path, body and json.dumps(body).encode(), headers)
        context = ssl.create_default_context(cafile=TLS[0]) if base.startswith("https:") else None
        with urllib.request.urlopen(request, timeout=20, context=context) as answer:
            return json.loads(answer.read())

    def judge(self):
        """Every case, with what is wrong with it."""
        # One wait for all of them: what is not booked by then is missing.
        deadline = time.monotonic() + BOOKED_SECONDS
        for case in self.cases:
            case.problems = [
                *seen_alike(case),
                *asked_alike(case),
                *no_key_upstream(case),
                *self._booked(case, deadline),
            ]
        strays = len(self.direct.claim()) + len(self.upstream.claim())
        assert strays == 0, f"{strays} calls that belong to no case"
        return self.cases

    def verify(self):
        """The gateway's own comparison of everything that has to be equal."""
        command = [self.binary, "verify", "--config", "tollgate.toml", "--set", f"listen.admin={self.admin[7:]}"]
        options = {"cwd": self.directory, "env": self.settings, "capture_output": True, "text": True, "timeout": 60}
        done = subprocess.run(command, **options)
        assert done.returncode == 0, done.stdout + done.stderr

    def _booked(self, case, deadline):
        """What the gateway's ledger has of the case, beside the provider's own."""
        truths = [line for call in case.forwarded if call.truth and call.status == 200 for line in call.truth.lines()]
        failed = sum(call.status >= 400 and call.method == "POST" for call in case.forwarded)
        while True:
            events = self.ask("/billing/events?limit=1000", case.tenant)["events"]
            if len(events) >= len(truths) + failed or time.monotonic() > deadline:
                break
            time.sleep(0.02)
        booked = [event for event in events if event["status"] < 400]
        if len(booked) != len(truths) or len(events) - len(booked) > failed:
            counts = f"{len(booked)} calls are booked and {len(events) - len(booked)} failed"
            yield f"{counts}, not {len(truths)} and {failed}"
            return
        for event, truth in zip(sorted(booked, key=line_of_event), sorted(truths, key=line_of_truth), strict=True):
            yield from differences(event, truth)

    def close(self):
        self.process.close()
        for port in (self.direct, self.upstream, self.control):
            port.close()


def line_of_event(event):
    return event["provider"], event["endpoint"], event["model"], event["prompt_tokens"], event["completion_tokens"]


def line_of_truth(truth):
    tokens = truth.kinds or {}
    return (
        truth.provider,
        truth.endpoint,
        truth.model,
        tokens.get("prompt_tokens", 0),
        tokens.get("completion_tokens", 0),
    )


def differences(event, truth):
    for name in ("provider", "endpoint", "model"):
        if event[name] != getattr(truth, name):
            yield f"{name} {event[name]} is booked, not {getattr(truth, name)}"
    if event["chats"] != int(truth.chat):
        yield f"{event['chats']} chats are booked, not {int(truth.chat)}"
    if event["outcome"] != truth.outcome:
        yield f"the outcome is {event['outcome']}"
    if truth.priced and event["priced"] != truth.priced:
        yield f"it is {event['priced']}, not {truth.priced}"
    for name, count in truth.quantities.items():
        if event[name] != count:
            yield f"{event[name]} {name} are booked, not {count}"
    # A price can be unknown, but then the line says so.
    if (event["estimated_cost_usd"] is None) != (event["priced"] == "unpriced"):
        yield f"it costs {event['estimated_cost_usd']} and is {event['priced']}"
    if truth.kinds is None:
        if truth.priced != "unpriced" and (event["usage_source"] != "estimate" or event["prompt_tokens"] == 0):
            yield f"{event['prompt_tokens']} tokens of the {event['usage_source']} are booked where an estimate is due"
        return
    if event["usage_source"] != "provider":
        yield "an estimate is booked where the provider said what it charged"
    booked = {name: event[name + "_tokens"] for name in KINDS if event[name + "_tokens"]}
    told = {name.removesuffix("_tokens"): count for name, count in truth.kinds.items() if count}
    if booked != told:
        yield f"{booked} is booked, but the provider charged {told}"


def seen_alike(case):
    if case.ending == "refused":
        if case.forwarded:
            yield f"{len(case.forwarded)} calls went to the provider"
        return
    failed = isinstance(case.direct, dict) and set(case.direct) == {"error", "text"}
    if failed != (case.ending == "failed"):
        yield f"the client got {json.dumps(case.direct)[:600]} directly"
    if case.direct != case.through:
        direct, through = json.dumps(case.direct)[:600], json.dumps(case.through)[:600]
        yield f"the client got {direct} directly and {through} through the gateway"


def asked_alike(case):
    """The provider was asked the same as often, but for the usage that the gateway asks for in streams."""
    if case.ending == "refused":
        return
    went_on = case.forwarded
    if len(went_on) == len(case.asked) + 1:
        went_on = without_question(went_on)
    if len(case.asked) != len(went_on) or not case.asked:
        yield f"the provider saw {len(case.asked)} calls directly and {len(case.forwarded)} from the gateway"
        return
    for asked, forwarded in zip(case.asked, went_on, strict=True):
        if asked.method != forwarded.method or target_of(asked) != target_of(forwarded):
            yield f"{asked.method} {target_of(asked)} went on as {forwarded.method} {target_of(forwarded)}"
        if body_of(asked) != body_of(forwarded):
            yield f"the body of {asked.method} {target_of(asked)} changed on its way"


def without_question(calls):
    """Without what the gateway asked by itself: before a DELETE, what is deleted, if that has no bill yet."""
    for at, (one, next_one) in enumerate(itertools.pairwise(calls)):
        # In the gateway's own version of the API.
        names = [target_of(call)[0].split("/", 2)[-1] for call in (one, next_one)]
        if (one.method, next_one.method) == ("GET", "DELETE") and names[0] == names[1]:
            return calls[:at] + calls[at + 1 :]
    return calls


def target_of(call):
    parts = urllib.parse.urlsplit(call.target)
    query = [(name, value) for name, value in urllib.parse.parse_qsl(parts.query) if name != "key"]
    # Google's SDK for Node puts two slashes before its sessions.
    return parts.path.replace("//ws/", "/ws/"), query


def body_of(call):
    """A body as it has to arrive: a form by its fields, as its boundary is drawn by lot; a stream with its usage."""
    kind = next((value for name, value in call.headers if name.lower() == "content-type"), "")
    if kind.startswith("multipart/form-data"):
        return read_form(kind, call.body)
    if b'"stream"' in call.body and kind.startswith("application/json"):
        body = json.loads(call.body)
        if body.get("stream") is True and ("messages" in body or "/completions" in call.target):
            body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
        return body
    return call.body


def no_key_upstream(case):
    for call in case.forwarded:
        everything = (
            call.target.encode()
            + b"\n"
            + "\n".join(f"{name}: {value}" for name, value in call.headers).encode()
            + call.body
        )
        if case.tenant.encode() in everything:
            yield "the tenant's key went to the provider"
        # An upload is sent to the address that the provider says, and the gateway hands on its own one. The SDK for
        # Python goes there itself, without a key: past the gateway, where nothing is billed.
        if "upload_id=" in call.target and not any(name.lower() == "x-goog-api-key" for name, _ in call.headers):
            case.goes_past = True
            continue
        if not any(key.encode() in everything for key in PROVIDER_KEYS.values()):
            yield "the provider's own key is missing"
