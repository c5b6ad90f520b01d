"""Sessions of the scripted provider, which are websockets: what it says in one, and what it charges for each turn.

The frames are made by hand, whole and short ones, as clients of a test send them.
"""

import base64
import hashlib
import json

from wire import Truth

# RFC 6455, 1.3.
AGREED = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
FRAME_BYTES_MAX = 1024 * 1024
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class Peer:
    """The client's end, once the protocol is switched."""

    def __init__(self, reads, writes):
        self.reads, self.writes = reads, writes
        # What was sent since the last turn was charged, for the comparison of both ways.
        self.sent = b""

    def agree(self, headers):
        accepted = base64.b64encode(hashlib.sha1(headers["sec-websocket-key"].encode() + AGREED).digest())
        lines = [b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade"]
        lines.append(b"Sec-WebSocket-Accept: " + accepted)
        if protocols := headers.get("sec-websocket-protocol"):
            lines.append(b"Sec-WebSocket-Protocol: " + protocols.split(",")[0].strip().encode())
        self.writes.write(b"\r\n".join(lines) + b"\r\n\r\n")
        self.writes.flush()

    def frame(self, opcode, payload):
        long = len(payload) > 125
        length = bytes([126]) + len(payload).to_bytes(2, "big") if long else bytes([len(payload)])
        self.writes.write(bytes([0x80 | opcode]) + length + payload)
        self.writes.flush()

    def say(self, message, opcode=TEXT):
        self.frame(opcode, json.dumps(message).encode())

    def hear(self):
        """The next message; `None` at the end."""
        text = b""
        while True:
            head = self.reads.read(2)
            if len(head) < 2:
                return None
            length = head[1] & 0x7F
            if length >= 126:
                length = int.from_bytes(self.reads.read(2 if length == 126 else 8), "big")
            assert length <= FRAME_BYTES_MAX and head[1] & 0x80 and not head[0] & 0x70, "a frame of no client"
            mask = self.reads.read(4)
            payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(self.reads.read(length)))
            opcode = head[0] & 0x0F
            if opcode == CLOSE:
                self.frame(CLOSE, payload[:2])
                return None
            if opcode == PING:
                self.frame(PONG, payload)
            if opcode >= CLOSE:
                continue
            text += payload
            if head[0] & 0x80:
                self.sent += text
                return json.loads(text)


def serve(request, peer, charge):
    """One session. `charge(truth)` writes down what a turn costs, before the client hears of it."""
    if request.path.endswith("/realtime"):
        realtime(request.query.get("model"), peer, charge)
    elif request.path.endswith("/live/sessions"):
        live(peer, charge)
    else:
        gemini(peer, charge)


def realtime(model, peer, charge):
    session = {"type": "realtime", "object": "realtime.session", "id": "sess_scripted", "model": model}
    peer.say({"type": "session.created", "event_id": "event_1", "session": session})
    turn = 0
    while message := peer.hear():
        match message["type"]:
            case "session.update":
                peer.say({"type": "session.updated", "event_id": "event_2", "session": session | message["session"]})
            case "conversation.item.create":
                peer.say({"type": "conversation.item.added", "event_id": "event_3", "item": message["item"]})
            case "response.create":
                turn += 1
                respond(model, f"resp_{turn}", turn, peer, charge)


def respond(model, name, turn, peer, charge):
    beside = {"event_id": "event_4", "response_id": name, "item_id": "item_1", "output_index": 0, "content_index": 0}
    response = {"object": "realtime.response", "id": name, "output": []}
    peer.say({"type": "response.created", "event_id": "event_5", "response": response | {"status": "in_progress"}})
    for word in ("Please ", "pay."):
        peer.say({"type": "response.output_text.delta", "delta": word} | beside)
    details = {"text_tokens": 10 * turn, "audio_tokens": 5, "cached_tokens": 4}
    details["cached_tokens_details"] = {"text_tokens": 2, "audio_tokens": 2}
    usage = {
        "input_tokens": 10 * turn + 5,
        "output_tokens": 7,
        "total_tokens": 10 * turn + 12,
        "input_token_details": details,
        "output_token_details": {"text_tokens": 4, "audio_tokens": 3},
    }
    kinds = {"prompt_tokens": 10 * turn + 5, "cached_tokens": 4, "prompt_audio_tokens": 5, "cached_audio_tokens": 2}
    kinds |= {"completion_tokens": 7, "completion_audio_tokens": 3}
    charge(Truth("openai", "realtime", model, kinds, chat=True, priced="priced"))
    response |= {"status": "completed", "usage": usage}
    peer.say({"type": "response.done", "event_id": "event_6", "response": response})


def live(peer, charge):
    session = {}
    while message := peer.hear():
        match message["type"]:
            case "session.start":
                session = {"id": "live_scripted"} | message["session"]
                peer.say({"type": "session.started", "event_id": "event_1", "session": session})
            case "session.input_audio.append":
                for seconds in (1.5, 3.0):
                    usage = {"seconds": seconds}
                    peer.say({"type": "session.usage.updated", "event_id": "event_2", "usage": usage})
            case "session.close":
                heard = {"audio_ms": 3500}
                charge(Truth("openai", "live", session["model"], {}, chat=True, quantities=heard, priced="priced"))
                closed = {"reason": "close_requested", "session": session, "usage": {"seconds": 3.5}}
                peer.say({"type": "session.closed", "event_id": "event_3"} | closed)


def gemini(peer, charge):
    model, turn = None, 0
    while message := peer.hear():
        if setup := message.get("setup"):
            model = setup["model"].removeprefix("models/")
            peer.say({"setupComplete": {}}, BINARY)
        elif (message.get("clientContent") or message.get("client_content")) is not None:
            turn += 1
            for word in ("Please ", "pay."):
                content = {"modelTurn": {"role": "model", "parts": [{"text": word}]}}
                peer.say({"serverContent": content}, BINARY)
            peer.say({"serverContent": {"generationComplete": True}}, BINARY)
            usage = {"promptTokenCount": 9 * turn, "responseTokenCount": 6, "thoughtsTokenCount": 2}
            usage["totalTokenCount"] = 9 * turn + 8
            kinds = {"prompt_tokens": 9 * turn, "completion_tokens": 8, "reasoning_tokens": 2}
            charge(Truth("gemini", "bidiGenerateContent", model, kinds, chat=True))
            peer.say({"serverContent": {"turnComplete": True}, "usageMetadata": usage}, BINARY)
