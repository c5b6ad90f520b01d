"""Makes config/gemini_vocabulary.zst of the SentencePiece model that Google publishes for counting Gemini's tokens.

    python3 config/gemini_vocabulary.py gemma3_cleaned_262144_v2.spiece.model

The model is tokenizer/gemma3_cleaned_262144_v2.spiece.model of https://github.com/google/gemma_pytorch at commit
014acb7ac4563a5f77c76d7ff98f31b568c16508 (Apache-2.0, Copyright 2024 Google LLC); Google's own SDK counts with the same
file. Kept are the pieces in the order in which they are merged, each as a byte of its length, with the high bit where the
piece is never merged or taken apart, and its bytes. Left out are control pieces, single bytes and <unused…>, which no
text has. Needs zstd on the PATH.
"""

import hashlib
import pathlib
import struct
import subprocess
import sys

SHA256 = "1299c11d7cf632ef3b4e11937501358ada021bbdf7c47638d13c0ee982f2e79c"
NORMAL, USER_DEFINED = 1, 4


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def fields(data):
    """The fields of a protobuf message."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value, at = varint(data, at)
        elif key & 7 == 2:
            length, at = varint(data, at)
            value, at = data[at : at + length], at + length
        elif key & 7 == 5:
            value, at = data[at : at + 4], at + 4
        else:
            sys.exit(f"a field of wire type {key & 7}")
        yield key >> 3, value


def main():
    model = pathlib.Path(sys.argv[1]).read_bytes()
    if hashlib.sha256(model).hexdigest() != SHA256:
        sys.exit("this is another model")
    out, last = bytearray(), 1.0
    for field, message in fields(model):
        if field != 1:
            continue
        piece = dict(fields(message))
        text, kind = piece[1], piece.get(3, NORMAL)
        if kind not in (NORMAL, USER_DEFINED) or text.startswith(b"<unused"):
            continue
        score = struct.unpack("<f", piece.get(2, b"\0\0\0\0"))[0]
        if kind == NORMAL:
            assert score < last, "the pieces are not in the order of their merges"
            last = score
        assert 0 < len(text) < 128
        out += bytes([len(text) | (128 if kind == USER_DEFINED else 0)]) + text
    target = pathlib.Path(__file__).with_name("gemini_vocabulary.zst")
    target.write_bytes(subprocess.run(["zstd", "--ultra", "-22", "-c"], input=bytes(out), stdout=-1, check=True).stdout)
    print(f"{target.name}: {len(out)} bytes in {target.stat().st_size}")


main()
