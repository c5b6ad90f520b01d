"""The scripted provider: it answers each request the same every time, but for the names of what it makes, and writes
down what it charged for it.

One provider listens twice, for clients that come directly and for the gateway, so that each has a ledger of its own.
What it answers is in `openai_answers.py` and `gemini_answers.py`. It uses the standard library alone.
"""

import dataclasses
import email.parser
import gzip
import json
import ssl
import threading
import urllib.parse
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Far more than any case sends.
BODY_BYTES_MAX = 32 * 1024 * 1024


@dataclass
class Truth:
    """What the provider charged for one call: a line of its own ledger."""

    provider: str
    endpoint: str
    model: str
    # Tokens by kind, as in a line item of the gateway; `None` where the provider does not say, and an estimate is due.
    kinds: dict | None
    chat: bool = False
    # What it charged beside tokens, as in a line item of the gateway.
    quantities: dict = field(default_factory=dict)
    # How the gateway has to price it; `None` where any is right.
    priced: str | None = None
    # Where it is charged later: the model that the beginning is booked with.
    begun_as: str | None = None
    outcome: str = "completed"

    def lines(self):
        """The line items that the gateway has of it: one, or where it is charged later the beginning and the bill."""
        if self.begun_as is None:
            return [self]
        begun = {"model": self.begun_as, "kinds": {}, "outcome": "deferred", "priced": "free"}
        return [dataclasses.replace(self, begun_as=None, **begun), dataclasses.replace(self, begun_as=None, chat=False)]


@dataclass
class Answer:
    body: bytes = b""
    kind: str = "application/json"
    truth: Truth | None = None
    status: int = 200
    # A stream is sent in these pieces.
    pieces: list | None = None
    headers: dict = field(default_factory=dict)


def document(value, truth=None, **options):
    return Answer(json.dumps(value, indent=2).encode(), truth=truth, **options)


@dataclass
class Request:
    method: str
    path: str
    query: dict
    headers: dict
    body: bytes
    # Where it came in, for addresses that an answer holds.
    origin: str
    # Gives the end of a name that nothing has yet: no two objects of a provider share theirs.
    fresh: Callable = lambda: "scripted"
    json: dict = field(default_factory=dict)
    form: dict = field(default_factory=dict)

    def __post_init__(self):
        kind = self.headers.get("content-type", "")
        # A piece of an upload is JSON by name at most.
        if kind.startswith("application/json") and self.body[:1] in (b"{", b"["):
            self.json = json.loads(self.body)
        elif kind.startswith("multipart/form-data"):
            self.form = read_form(kind, self.body)

    @property
    def words(self):
        """All texts of the request together: what the counts follow from."""
        return json.dumps(self.json.get("messages") or self.json.get("input") or self.json.get("contents") or self.json)

    def number(self, name, least, most):
        """A count that is the same each time this is asked and differs between requests."""
        return least + zlib.crc32((name + self.path + self.words).encode()) % (most - least)


def read_form(kind, body):
    """The fields of a form; files as their bytes."""
    message = email.parser.BytesParser().parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
    fields = {}
    for part in message.get_payload():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        fields[name] = content if part.get_filename() else content.decode()
    return fields


@dataclass
class Call:
    """One request as it arrived, and what was charged for it."""

    method: str
    target: str
    headers: list
    body: bytes
    truth: Truth | None
    status: int


class Port:
    """One of the provider's doors, with the calls that came in by it and no case has claimed."""

    def __init__(self, answer, converse=None, tls=None):
        """`converse(request, reads, writes, charge)` has a session with a client that asks for a websocket; `tls` are
        the files of a certificate for `localhost` and its key."""
        self.lock = threading.Lock()
        self.calls = []
        self.cases, self.made = 1, 0
        port = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Answers go out at once: a head and a body in two packets would wait for each other.
            wbufsize = -1
            disable_nagle_algorithm = True

            def handle_one(self):
                length = int(self.headers.get("Content-Length") or 0)
                assert 0 <= length <= BODY_BYTES_MAX
                chunked = self.headers.get("Transfer-Encoding") == "chunked"
                body = self.read_chunks() if chunked else self.rfile.read(length)
                parts = urllib.parse.urlsplit(self.path)
                headers = {name.lower(): value for name, value in self.headers.items()}
                query = dict(urllib.parse.parse_qsl(parts.query))
                request = Request(self.command, parts.path, query, headers, body, port.url, port.fresh)
                if converse and headers.get("upgrade", "").lower() == "websocket":
                    self.close_connection = True
                    converse(request, self.rfile, self.wfile, self.charge)
                    return
                said = answer(request)
                call = Call(self.command, self.path, self.headers.items(), body, said.truth, said.status)
                with port.lock:
                    port.calls.append(call)
                self.say(said, "gzip" in headers.get("accept-encoding", ""))

            def charge(self, truth, body):
                # Each turn of a session is a call like any other.
                with port.lock:
                    port.calls.append(Call(self.command, self.path, self.headers.items(), body, truth, 200))

            do_GET = do_HEAD = do_POST = do_PATCH = do_DELETE = handle_one

            def read_chunks(self):
                body = b""
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                    assert len(body) <= BODY_BYTES_MAX
                self.rfile.readline()
                return body

            def say(self, said, takes_gzip):
                self.send_response(said.status)
                self.send_header("Content-Type", said.kind)
                self.send_header("x-request-id", "req_scripted")
                for name, value in said.headers.items():
                    self.send_header(name, value)
                if said.pieces is not None:
                    self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()
                    for piece in said.pieces:
                        self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                        self.wfile.flush()
                    self.wfile.write(b"0\r\n\r\n")
                    return
                body = said.body
                # Long documents are compressed, as the providers do.
                if takes_gzip and len(body) > 600 and said.kind == "application/json":
                    body = gzip.compress(body, mtime=0)
                    self.send_header("Content-Encoding", "gzip")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, request, address):
                # A client that left in the middle is no error of the provider's.
                import sys

                if not isinstance(sys.exc_info()[1], ConnectionError):
                    super().handle_error(request, address)

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            # The handshake is each connection's own, in its own thread.
            options = {"server_side": True, "do_handshake_on_connect": False}
            self.server.socket = context.wrap_socket(self.server.socket, **options)
            self.url = f"https://localhost:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def fresh(self):
        """By the number of the case, and of the object in it: the other door has the same name for the same object,
        whatever went wrong in other cases."""
        with self.lock:
            self.made += 1
            return f"{self.cases}-{self.made}"

    def claim(self):
        """The calls since the last time, which were a case."""
        with self.lock:
            calls, self.calls = self.calls, []
            self.cases, self.made = self.cases + 1, 0
        return calls

    def close(self):
        self.server.shutdown()
        self.server.server_close()
