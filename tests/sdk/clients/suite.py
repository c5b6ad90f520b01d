"""What the Python clients of the matrix are made of: each case is one call, made directly and through the gateway."""

import base64
import contextlib
import dataclasses
import inspect
import itertools
import json
import os
import re
import sys
import traceback
import urllib.request

# What tells of the connection or of the moment, and not of the answer.
BESIDE = {"sdk_http_response", "sdkHttpResponse", "http_response"}
TENANT = "tollgate-client-{}-{}"

_numbers = itertools.count(1)


@dataclasses.dataclass
class Access:
    """Where a client connects: what a user of it would configure."""

    root: str
    key: str

    @property
    def openai(self):
        return self.root + "/v1"

    @property
    def compatible(self):
        return self.root + "/v1beta/openai"


class Suite:
    def __init__(self, client):
        self.client = client
        self.only = os.environ.get("STAND_ONLY")

    def case(self, call, ask, client=None):
        """`ask(access)` gives what the client got; both ways have to give the same, an error where `call` says so."""
        if self.only and self.only not in call:
            return
        client, tenant = client or self.client, TENANT.format(os.getpid(), next(_numbers))
        direct = outcome(ask, Access(os.environ["STAND_DIRECT"], "direct"))
        through = outcome(ask, Access(os.environ["STAND_THROUGH"], tenant))
        said = {"client": client, "call": call, "tenant": tenant, "direct": direct, "through": through}
        tell("/case", said | {"ending": "failed" if "an error" in call else "answered"})

    def refused(self, call, ask, client=None):
        """The plan has no chat left: the client has to see the 402 as an error, and the provider nothing."""
        if self.only and self.only not in call:
            return
        client, tenant = client or self.client, TENANT.format(os.getpid(), next(_numbers))
        tell("/plan", {"tenant": tenant, "plan": "none"})
        through = outcome(ask, Access(os.environ["STAND_THROUGH"], tenant))
        text = json.dumps(through)
        if "error" not in (through if isinstance(through, dict) else {}) or not re.search("402|0 of 0 chats", text):
            raise AssertionError(f"{client}: no 402, but {text[:400]}")
        tell(
            "/case",
            {"client": client, "call": call, "tenant": tenant, "direct": None, "through": None, "ending": "refused"},
        )


def after(first, then):
    """What `then` makes of what a call gave, of a client that blocks and of one that does not."""
    if not inspect.isawaitable(first):
        return then(first)

    async def run():
        result = then(await first)
        return await result if inspect.isawaitable(result) else result

    return run()


def own(make, use):
    """A call that uses what another one made: the gateway lets a tenant at nothing else."""
    return lambda client: after(make(client), lambda made: use(client, made))


def outcome(ask, access):
    try:
        return plain(ask(access))
    except Exception as error:
        if os.environ.get("STAND_TRACE"):
            traceback.print_exc()
        # An address or a key in it differs by the way.
        text = re.sub(r"http://[^\s'\"]*", "ADDRESS", str(error)).replace(access.key, "KEY")
        return {"error": type(error).__name__, "text": text[:2000]}


def plain(value):
    """Anything that a client gives, as JSON. Nothing is left out that an answer has, but for members that are null:
    where the gateway asks for the usage of a stream, the provider says `"usage":null` in each event before it."""
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="python", exclude_none=True, warnings=False)
    elif dataclasses.is_dataclass(value):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        return {str(name): plain(part) for name, part in value.items() if name not in BESIDE and part is not None}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if hasattr(value, "model_fields_set") or hasattr(value, "__dict__"):
        return {
            name: plain(part) for name, part in vars(value).items() if not name.startswith("_") and name not in BESIDE
        }
    return str(value)


def tell(path, said):
    body = json.dumps(said).encode()
    request = urllib.request.Request(os.environ["STAND_CONTROL"] + path, body, {"Content-Type": "application/json"})
    with contextlib.closing(urllib.request.urlopen(request, timeout=60)) as answer:
        if answer.status != 200:
            sys.exit(f"the stand says {answer.status}")
