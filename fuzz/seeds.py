#!/usr/bin/env python3
"""Writes the seeds of the fuzz targets into fuzz/corpus: recorded answers, requests and files, behind the bytes by which a
target chooses what to do with them (src/control.rs). Run it again when a target chooses otherwise."""

import pathlib
import re
import struct

HERE = pathlib.Path(__file__).parent
FIXTURES = HERE.parent / "tests/fixtures/providers"
SEED_BYTES_MAX = 4096


def seed(target, name, data):
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data[:SEED_BYTES_MAX])


def choices(name):
    """The index of each path of a target's list."""
    text = (HERE / "src" / f"{name}.rs").read_text()
    listed = re.search(r"const PATHS: \[&str; \d+\] = \[(.*?)\];", text, re.S).group(1)
    return {path: at for at, path in enumerate(re.findall(r'"([^"]+)"', listed))}


def cut(body):
    """Two places to cut at."""
    return struct.pack(">HH", len(body) // 3, len(body) // 2) + body


def answers():
    paths = choices("answers")
    for file in sorted(FIXTURES.iterdir()):
        name, body = file.name, file.read_bytes()
        path = {
            "openai_chat": "/v1/chat/completions",
            "openai_completions": "/v1/completions",
            "openai_responses": "/v1/responses",
            "openai_embeddings": "/v1/embeddings",
            "compat": "/v1beta/openai/chat/completions",
            "gemini_stream": "/v1beta/models/m:streamGenerateContent",
            "gemini_batch": "/v1beta/models/m:batchEmbedContents",
            "gemini": "/v1beta/models/m:generateContent",
        }
        at = paths[next(path[prefix] for prefix in path if name.startswith(prefix))]
        if file.suffix == ".sse":
            for request in (0, 1):
                seed("sse", f"{name}.{request}", bytes([at, request]) + cut(body))
            seed("sse_scanner", name, cut(body))
        elif "array" in name:
            seed("gemini_array", name, cut(body))
            seed("json_members", name, cut(body))
        else:
            seed("document", name, bytes([at, 2, 0]) + cut(body))
            seed("json_members", name, cut(body))
    events = b'data: {"type":"image_generation.completed","usage":{"input_tokens":9,"output_tokens":90,"total_tokens":99}}\n\n'
    seed("sse", "images", bytes([paths["/v1/images/generations"], 1]) + cut(events))
    events = b'data: {"type":"transcript.text.done","text":"a","usage":{"type":"tokens","input_tokens":4,"output_tokens":2,"total_tokens":6}}\r\n\r\n'
    seed("sse", "transcript", bytes([paths["/v1/audio/transcriptions"], 1]) + cut(events))
    seed("document", "transcript", bytes([paths["/v1/audio/transcriptions"], 2, 0]) + cut(b'{"text":"a","usage":{"type":"duration","seconds":3.5}}'))
    seed("document", "batch", bytes([paths["/v1/batches"], 2, 0]) + cut(b'{"id":"batch_1","object":"batch","status":"completed","output_file_id":"file-1","request_counts":{"total":2,"completed":2,"failed":0}}'))
    seed("document", "result", bytes([paths["/v1/batches"], 2, 0]) + cut(b'{"id":"r","custom_id":"1","response":{"status_code":200,"body":{"model":"m","usage":{"prompt_tokens":11,"completion_tokens":7,"total_tokens":18}}},"error":null}'))
    seed("document", "run", bytes([paths["/v1/threads/t/runs"], 2, 0]) + cut(b'{"id":"run_1","object":"thread.run","status":"completed","model":"m","usage":{"prompt_tokens":11,"completion_tokens":7,"total_tokens":18}}'))
    seed("document", "interaction", bytes([paths["/v1beta/interactions"], 2, 0]) + cut(b'{"id":"i","status":"completed","model":"m","usage":{"total_input_tokens":11,"total_output_tokens":7,"total_tokens":18}}'))
    seed("document", "cache", bytes([paths["/v1beta/cachedContents"], 2, 0]) + cut(b'{"name":"cachedContents/c","model":"models/m","usageMetadata":{"totalTokenCount":4096}}'))
    seed("sse_scanner", "odd", cut(b"\xef\xbb\xbf:c\r\rdata\rdata: a\ndata:b\r\n\r\nid: 1\nevent: x\ndata:  c"))
    for at, text in enumerate([b'{"a":1,"usage":{"b":[1,"]}"]},"model":null,"a":"\\u0061\\n"}', b'[{"a":"]}\\""},[1],2 ,"x",{}]', b"-0", b"12.50e-1", b"18446744073709551615", b'"\\ud83d\\ude00"']):
        seed("json_members", f"odd.{at}", cut(text))


def requests():
    paths = choices("requests")
    bodies = {
        "/v1/chat/completions": [
            b'{"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"Count to three."}],"max_tokens":50,"n":2}',
            b'{"model":"m","stream":true,"stream_options":{"include_usage":false,"x":[1]},"max_completion_tokens":9,"max_tokens":null,"service_tier":"flex","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x/y.png"}}]}],"tools":[{"type":"function","function":{"name":"f","parameters":{}}}],"web_search_options":{}}',
            b' { } ',
        ],
        "/v1/responses": [
            b'{"model":"m","input":"x","stream":true,"background":true,"max_output_tokens":16,"tools":[{"type":"web_search"},{"type":"file_search"}],"previous_response_id":"r","service_tier":"priority"}',
            b'{"model":"m","input":[{"role":"user","content":[{"type":"input_file","file_id":"f"}]}],"prompt":{"id":"p"},"max_output_tokens":16,"max_output_tokens":7}',
        ],
        "/v1beta/models/m:generateContent": [
            b'{"contents":[{"role":"user","parts":[{"text":"Count."},{"inlineData":{"mimeType":"image/png","data":"AAAA"}}]}],"generationConfig":{"maxOutputTokens":64,"candidateCount":2},"tools":[{"googleSearch":{}}],"cachedContent":"cachedContents/c"}',
            b'{"contents":[],"generation_config":{"max_output_tokens":"64"},"generationConfig":{},"continuationToken":"t"}',
        ],
        "/v1/embeddings": [b'{"model":"m","input":["a","b",[1,2]]}'],
        "/v1/images/generations": [b'{"model":"gpt-image-1","prompt":"x","n":3,"quality":"high","size":"1024x1024","stream":true}'],
        "/v1/audio/speech": [b'{"model":"tts-1","input":"Say \\u00e9 this.","voice":"alloy"}'],
        "/v1beta/interactions": [b'{"model":"m","input":"x","generation_config":{"max_output_tokens":5},"agent":null,"background":false}'],
        "/v1beta1/projects/p/locations/l/publishers/google/models/m:predict": [b'{"instances":[{"prompt":"x"}],"parameters":{"sampleCount":2}}'],
    }
    for path, all_of in bodies.items():
        for at, body in enumerate(all_of):
            seed("json_request", f"{paths[path]}.{at}", bytes([paths[path], 1]) + body)
    form = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n--\r\n--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n--b\r\nContent-Disposition: form-data; name=stream\r\n\r\ntrue\r\n--b--\r\n'
    head = b"multipart/form-data; boundary=b"
    seed("form", "form", bytes([len(head)]) + head + cut(form))
    routes = (HERE.parent / "README.md").read_text()
    for at, path in enumerate(sorted(set(re.findall(r"`(/[^` ]+)`", routes)))[:60]):
        seed("path", f"route.{at}", bytes([0, 1]) + re.sub(r"\{[^}]*\}", "x", path).encode())
    for at, path in enumerate([b"/openai/v1/chat/completions", b"/gemini/v1beta/models/gemini-2.5-flash:generateContent", b"/v1/files/%2e%2e/models", b"/v1//models", b"/v1/models/a%2fb", b"/v1beta/models/publishers%2Fgoogle:countTokens"]):
        for place in (1, 2):
            seed("path", f"odd.{at}.{place}", bytes([at % 2, place]) + path)


def sessions():
    messages = {
        0: [b'{"type":"response.create","event_id":"e","response":{"instructions":"Hi."}}', b'{"type":"response.created","response":{"id":"a","usage":null}}', b'{"type":"session.update","session":{"audio":{"input":{"turn_detection":null}}}}', b'{"type":"response.done","response":{"id":"a","usage":{"input_tokens":9,"output_tokens":1,"total_tokens":10}}}'],
        1: [b'{"type":"response.create"}', b'{"type":"session.closed","usage":{"seconds":4.5}}', b"{}", b'{"type":"response.event","event":{"type":"response.completed","response":{"model":"m","usage":{"input_tokens":1,"output_tokens":1}}}}'],
        2: [b'{"setup":{"model":"models/m"}}', b'{"setupComplete":{}}', b'{"clientContent":{"turns":[{"parts":[{"text":"Hi"}]}],"turnComplete":true}}', b'{"serverContent":{"turnComplete":true},"usageMetadata":{"promptTokenCount":9,"responseTokenCount":1,"totalTokenCount":10}}'],
    }
    for path, all_of in messages.items():
        seed("session", str(path), bytes([path]) + b"\n".join(all_of))
    masked = b"\x81\x85\x01\x02\x03\x04" + bytes(a ^ b for a, b in zip(b"hello", b"\x01\x02\x03\x04\x01"))
    seed("frames", "client", bytes([0, 4]) + cut(masked + b"\x89\x80\x00\x00\x00\x00" + b"\x88\x82\x00\x00\x00\x00\x03\xe8"))
    seed("frames", "server", bytes([1, 20]) + cut(b"\x01\x02he\x8a\x00\x80\x01l" + b"\x82\x7e\x00\x80" + b"x" * 128 + b"\x88\x02\x03\xe8"))


def number(value):
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def text(value):
    return number(len(value)) + value


def journal():
    """An event as src/adapters/file_journal/codec.rs has it, of each version."""
    first = bytes(range(16)) + text(b"acme") + b"\x01" + text(b"key_0123456789abcdef") + b"\x01" + text(b"u") + b"\x00"
    first += text(b"openai") + text(b"gpt-4o") + text(b"gpt-4o") + text(b"chat.completions") + number(1)
    first += b"".join(number(count) for count in (1100, 100, 0, 0, 0, 0, 70, 20, 0, 0))
    first += text(b"provider") + b"\x01" + (1234567).to_bytes(16, "little") + text(b"priced") + text(b"0123456789ab") + text(b"standard")
    first += struct.pack("<q", 1_790_000_000_000_000) + number(900_000) + b"\x01" + number(1000) + number(80) + number(200)
    first += text(b"completed") + b"\x01" + text(b"req_1")
    second = first + b"\x01" + text(b"batches/b") + number(5)
    third = first + b"\x00" + number(3) + b"".join(number(count) for count in (1, 2, 3, 4, 5))
    third += b"\x01" + (1234567).to_bytes(16, "little") + struct.pack("<i", 3600) + b"\x01" + bytes(range(16)) + text(b"unpriced")
    for at, event in enumerate((first, second, third)):
        seed("journal_event", str(at + 1), event)
    records = b"".join(bytes([kind]) + struct.pack(">H", length) for kind, length in ((0, 300), (1, 320), (2, 8), (1, 0), (0, 4088)))
    seed("journal_recovery", "whole", b"\x05" + records + b"\x40\x00")
    seed("journal_recovery", "changed", b"\x05" + records + b"\x40\x02" + struct.pack(">H", 340) + b"\x20\x04" + struct.pack(">H", 700) + b"\xff\x10")
    seed("journal_recovery", "cut", b"\x05" + records + b"\x40\x01" + struct.pack(">H", 500) + b"\x01")
    seed("journal_segment", "records", b"\x00" + b"\x10\x00\x01\xb7" + b"\x00" * 24 + b"\x08\x00\x03\xb7" + b"\x01" * 12)


def settings():
    toml = b'''env = "prod"
data_dir = "data"
[listen]
proxy = "127.0.0.1:8080"
body_limit = "64MiB"
header_timeout = "10s"
[providers.openai]
api_key = "sk-planted-5e1f0c9ab7d24836"
url = "https://api.openai.com"
[plans.starter]
chats_per_month = 1000
thresholds = [80, 100]
allowed_models = ["gpt-4o-mini*"]
on_counters_down = "lease"
hold = "worst_case"
when_short = "clamp"
user_cost_usd_per_day = 2.5
[storage]
url = "postgres://user:sk-planted-5e1f0c9ab7d24836@localhost/db?sslmode=require"
[counters]
url = "redis://:sk-planted-5e1f0c9ab7d24836@localhost:6379/1"
'''
    seed("config", "whole", toml)
    for at, part in enumerate(toml.split(b"\n[")):
        seed("config", f"part.{at}", part if at == 0 else b"[" + part)
    seed("config", "wrong", b'[plans.x]\nchats_per_month = -2\n"a\\nb" = 1\n[providers.openai]\napi_key = "sk-planted-5e1f0c9ab7d24836\\n"')
    prices = b'''{"format": 1, "base": "none", "about": {"x": 1}, "source": "s", "models": [
 {"provider": "gemini", "model": "gemini-2.5-pro", "match": ["gemini-2.5-pro*", "g#"], "except": ["*-tts"], "unverified": "u", "rates": [
  {"tier": "standard", "input": 1250000, "cached": 125000, "output": 10000000},
  {"tier": "standard", "above": 200, "input": 2500000, "cached": 250000, "output": 15000000},
  {"tier": "batch", "from": "2026-10-14", "input": 625000, "output": 5000000, "web_search": 1, "audio_hour": 7}]}]}'''
    seed("prices", "none", prices)
    seed("prices", "over", prices.replace(b'"base": "none", ', b""))
    for at, text in enumerate([b"acme", b"starter", b"key_0123456789abcdef", b"0193f5f0-0000-7000-8000-000000000000", bytes(range(40)), b"tg_live_" + b"0" * 38, b"2026-11-24T10:00:00.5Z", b"Europe/Berlin"]):
        seed("ids", str(at), bytes([at]) + text)
    seed("ids", "day", b"\x062026-11-24")
    seed("ids", "month", b"\x062026-11")


def doors():
    heads = [
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: a.b:8080\r\nContent-Length: 5\r\nAuthorization: Bearer k\r\n\r\nhello",
        b"\r\nGET http://a/v1/models?x=y HTTP/1.1\r\nhost: [::1]:80\r\nX-Odd:\r\nx_y: \tz \r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n",
        b"GET /v1/realtime HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\nContent-Length: 5\r\n folded\r\n\r\n",
    ]
    for at, head in enumerate(heads):
        seed("head", str(at), cut(head))
    for at, body in enumerate([b"5\r\nhello\r\n0\r\n\r\nGET", b"00a;x=y\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n", b"\r\n0\r\n\r\n", b"FFFFFFFFFFFFFFFF\r\n", b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"]):
        seed("chunks", str(at), cut(body))
    for at, text in enumerate([b"\nauthorization: Bearer k\nx-goog-api-key: k", b"alt=sse&%6bey=a%2Fb&$key=c\napi-key: a/b", b"a=b&%24http%48eaders=x\nsec-websocket-protocol: realtime, openai-insecure-api-key.k\nx-tollgate-user-id: u 1", b"key=x&key=y\nx-tollgate-kb-id: k"]):
        seed("credentials", str(at), text)
    google = b"https://generativelanguage.googleapis.com/upload/v1beta/files"
    for at, text in enumerate([google + b"?upload_id=ABC-_1&upload_protocol=resumable\ntollgate_upload=1790086400.acme.key_0123456789abcdef.00", google + b"?key=k&upload_id=1&tollgate_upload=x\nupload%5Fid=1", b"https://storage.googleapis.com/x?upload_id=1"]):
        seed("uploads", str(at), b"\x00\x09\x31\x00" + text)


def cells():
    seed("cells", "plain", b"gpt-4o\x00u1\x00\x00a,b\x00say \"hi\"")
    seed("cells", "formulas", "=1+1\0@SUM(A1)\0-1\0\uff1d1\0 +1\0a;=1\0\t=1\r\n=2\0\";=1;\"".encode())


for write in (answers, requests, sessions, journal, settings, doors, cells):
    write()
