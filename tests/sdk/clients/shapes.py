"""Whether the scripted provider answers in the shapes that the real ones have.

shapes.py TAPES: a file of recorded exchanges, one JSON object a line (see tests/it/tapes.rs). Each recorded request is put
to the scripted provider. Members that it answers with and that no recording of the route has are invented, and so are
values of another type; each makes the check fail. Routes without a recording cannot be checked.
"""

import json
import re
import sys
import urllib.parse

from stand import scripted
from wire import Request

# Maps by a name that a client chose, and answers of models: their members are no shape.
FREE_FORM = {"args", "metadata", "labels"}
# What the providers' specifications and SDKs have, and no recording of the route happens to.
UNRECORDED = {
    "chat/completions": [".choices[].logprobs"],
    "chat/completions, streamed": [".usage.prompt_tokens_details.cache_write_tokens"],
    "responses, streamed": ["(response.function_call_arguments.done).name"],
    "responses/compact": [".usage.input_tokens_details.cache_write_tokens"],
    "{model}:streamGenerateContent": [
        ".candidates[].content.parts[].functionCall.id",
        ".usageMetadata.cachedContentTokenCount",
        ".usageMetadata.toolUsePromptTokenCount",
    ],
    "{model}:streamGenerateContent, streamed": [".usageMetadata.cachedContentTokenCount"],
}


def main(path):
    recorded, answered = {}, {}
    tapes = [json.loads(line) for line in open(path, encoding="utf-8")]
    for tape in tapes:
        if tape["status"] != 200:
            continue
        answer = scripted(request_of(tape))
        if answer.status != 200:
            print(f"✘ {tape['id']} {tape['path']}: the script answers {answer.status}")
            return 1
        body = b"".join(answer.pieces) if answer.pieces else answer.body
        route = route_of(tape)
        recorded.setdefault(route, {})
        answered.setdefault(route, {})
        for message in messages(tape["body"]):
            shape(message, "", recorded[route])
        for message in messages(body.decode()):
            shape(message, "", answered[route])
    bad = 0
    for route in sorted(answered):
        for member, kinds in sorted(answered[route].items()):
            known = recorded[route].get(member, set())
            if not kinds <= known and member not in UNRECORDED.get(route, []):
                bad += 1
                print(f"✘ {route}: {member or 'the message'} is {kinds}, recorded as {known or 'nothing'}")
    members = sum(map(len, answered.values()))
    print(f"shapes: {members - bad} members of {len(answered)} routes as recorded, {bad} not")
    return 1 if bad else 0


def request_of(tape):
    parts = urllib.parse.urlsplit(tape["path"])
    headers = {"content-type": "application/json"}
    headers |= {"x-goog-api-key": "k"} if tape["provider"] == "google" else {"authorization": "Bearer k"}
    body = json.dumps(tape["request"]).encode()
    query = dict(urllib.parse.parse_qsl(parts.query))
    return Request(tape["method"], parts.path, query, headers, body, "http://127.0.0.1")


def route_of(tape):
    """Its path without versions, projects and names of models, and whether it is a stream."""
    path = urllib.parse.urlsplit(tape["path"]).path
    path = re.sub(r".*/models/[^/:]+", "{model}", path)
    return re.sub(r"^(/upload)?/v1(beta1?|alpha)?/(openai/)?", "", path) + (", streamed" if tape["stream"] else "")


def messages(text):
    """The documents of an answer, however it is framed."""
    data = [line[5:].strip() for line in text.splitlines() if line.startswith("data:")]
    if data:
        return [json.loads(line) for line in data if line != "[DONE]"]
    found = json.loads(text)
    return found if isinstance(found, list) else [found]


def shape(value, at, found):
    """The types that stand at each path below `value`; elements of a list share theirs."""
    # Events of a stream have shapes of their own.
    if not at and isinstance(value, dict) and isinstance(value.get("type"), str):
        at = f"({value['type']})"
    found.setdefault(at, set()).add(kind(value))
    if isinstance(value, dict) and at.rsplit(".", 1)[-1] not in FREE_FORM:
        for name, member in value.items():
            shape(member, f"{at}.{name}", found)
    elif isinstance(value, list):
        for element in value:
            shape(element, f"{at}[]", found)


def kind(value):
    if value is None:
        return "null"
    # A fraction may happen to be whole.
    return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
