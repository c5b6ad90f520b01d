"""What the SDK suites stand on: the real binary with its simulated provider, and the ledger's word on each tenant.

The gateway runs in dev mode, so that each test has a tenant of its own by naming one.
"""

import http.client
import itertools
import json
import os
import pathlib
import sys
import threading
import time
import urllib.parse
import urllib.request
from decimal import Decimal

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))

from gateway import Process

BOOKED_SECONDS = 10

_numbers = itertools.count(1)


class Gateway:
    """`tollgate demo` as a child process on free ports."""

    def __init__(self, binary, directory):
        free = "127.0.0.1:0"
        command = [binary, "demo", "--listen", free, "--admin-listen", free, "--data-dir", str(directory / "data")]
        self.process = Process(command, directory, {"PATH": os.environ.get("PATH", ""), "RUST_LOG": "warn"})
        self.url, self.admin = "http://" + self.process.proxy, "http://" + self.process.admin

    def close(self):
        self.process.close()

    def tenant(self, name="sdk"):
        """A tenant that nothing was booked for yet."""
        return f"{name}-{next(_numbers)}"

    def billing(self, path, tenant):
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {tenant}"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read(), parse_float=Decimal)

    def usage(self, tenant):
        return self.billing("/billing/usage?range=month", tenant)

    def booked(self, tenant, requests, failed=0):
        """The tenant's usage as soon as so many calls are in the ledger, and no more than those."""
        deadline = time.monotonic() + BOOKED_SECONDS
        while True:
            usage = self.usage(tenant)
            calls = (usage["requests"], usage["failed_requests"])
            assert calls[0] <= requests and calls[1] <= failed, f"{calls} booked, not {(requests, failed)}"
            if calls == (requests, failed):
                return usage
            assert time.monotonic() < deadline, f"{calls} booked, not {(requests, failed)}"
            time.sleep(0.02)

    def chats_used(self, tenant):
        return self.billing("/billing/limits", tenant)["used"]

    def use_up(self, tenant):
        """Makes all chats of the starter plan."""
        host = urllib.parse.urlsplit(self.url).netloc
        body = json.dumps({"model": "words-1", "messages": [{"role": "user", "content": "x"}]})
        headers = {"Authorization": f"Bearer {tenant}", "Content-Type": "application/json"}

        def calls(count):
            connection = http.client.HTTPConnection(host, timeout=30)
            for _ in range(count):
                connection.request("POST", "/v1/chat/completions", body, headers)
                answer = connection.getresponse()
                text = answer.read()
                assert answer.status == 200, text
            connection.close()

        threads = [threading.Thread(target=calls, args=(125,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert self.chats_used(tenant) == 500


def pico_usd(amount):
    """Dollars as whole pico-dollars."""
    pico = Decimal(amount).scaleb(12)
    assert pico == int(pico), amount
    return int(pico)


def demand(usage, prompt, completion, *, model=None):
    """The ledger has these tokens, none of them estimated, and their exact cost where the model is named."""
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (prompt, completion)
    assert usage["total_tokens"] == prompt + completion
    assert usage["estimated"]["requests"] == 0
    if model is not None:
        into, out = PRICES[model]
        assert pico_usd(usage["estimated_cost_usd"]) == prompt * into + completion * out
        assert usage["unpriced_requests"] == 0


# Pico-dollars a token, in and out: the providers' public price lists.
PRICES = {
    "gpt-4o-mini": (150_000, 600_000),
    "gpt-3.5-turbo-instruct": (1_500_000, 2_000_000),
    "text-embedding-3-small": (20_000, 0),
    "gemini-2.5-flash": (300_000, 2_500_000),
}
