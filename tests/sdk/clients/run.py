"""Runs suites of clients, each on a stand of its own, and prints which client can make which call through the gateway.

run.py SUITE=COMMAND... [--rows README.md metered.rs]

A suite whose name ends in "over TLS" has a stand with TLS.
"""

import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

from stand import PROVIDER_KEYS, Stand

SUITE_SECONDS = 240
# As many as there are cores on the smallest machine that this is run on.
AT_ONCE = 2


def run(binary, name, command):
    """The cases of one suite, the log of its process if it failed, and how long it took."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tollgate-clients-") as directory:
        stand = Stand(binary, pathlib.Path(directory), name.endswith("over TLS"))
        home = {
            "HOME": directory,
            "PATH": os.environ.get("PATH", ""),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONWARNINGS": "ignore",
        }
        home |= {name: os.environ[name] for name in ("STAND_ONLY", "STAND_TRACE") if name in os.environ}
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        cases, failure = [], None
        try:
            try:
                options |= {"env": home | stand.environment(), "timeout": SUITE_SECONDS}
                done = subprocess.run(shlex.split(command), **options)
                if os.environ.get("STAND_TRACE"):
                    print(done.stdout)
                if done.returncode != 0:
                    failure = f"{name} ended with {done.returncode}:\n{done.stdout[-6000:]}"
                cases = stand.judge()
                stand.verify()
            finally:
                stand.close()
        except (AssertionError, subprocess.TimeoutExpired) as error:
            failure = f"{name}: {error}"
    return cases, failure, time.monotonic() - started


def matrix(cases):
    """A line for each call, a column for each client."""
    clients = list(dict.fromkeys(case.client for case in cases))
    calls = list(dict.fromkeys(case.call for case in cases))
    verdicts = {}
    for case in cases:
        mark = "✘" if case.problems else "→" if case.goes_past else "✔"
        verdicts.setdefault((case.client, case.call), set()).add(mark)
    width = max(map(len, calls), default=0) + 1
    for at, client in enumerate(clients):
        print(f"  {'':{width}}" + "│ " * at + f"┌ {client}")
    for call in calls:
        marks = [next(mark for mark in "✘→✔·" if mark in verdicts.get((client, call), "·")) for client in clients]
        print(f"  {call:{width}}" + " ".join(marks))
    print("  ✔ passed, ✘ failed, → passed, in part past the gateway, · not offered, or not asked of this client")


def rows(cases, readme, fixtures):
    """The lines of the table of routes, with the cases that each has."""
    table = readme.read_text().split("<!-- routes -->")[1].split("<!-- /routes -->")[0]
    lines = re.findall(r"^\| (openai|gemini) \| ([A-Z, ]+) \| `([^`]+)` \|", table, re.MULTILINE)
    calls = [
        (provider_of(call), call.method, call.target.split("?")[0])
        for case in cases
        if not case.problems
        for call in case.forwarded
    ]
    recorded = fixtures.read_text()
    bare = 0
    for provider, methods, path in lines:
        pattern = path_pattern(path)
        fits = [
            way == provider and method in methods.split(", ") and pattern.fullmatch(at) for way, method, at in calls
        ]
        clients = sum(map(bool, fits))
        fixture = f'"{path}"' in recorded
        bare += not clients and not fixture
        missing = "" if clients or fixture else "(none) "
        print(f"  {missing}{provider} {methods} {path}: {clients} calls of clients{', a fixture' * fixture}")
    print(f"table: {len(lines) - bare} of {len(lines)} rows with a client or a fixture")
    return bare


def provider_of(call):
    """Whose key the gateway sent a call with."""
    values = " ".join(value for _, value in call.headers)
    return next((provider for provider, key in PROVIDER_KEYS.items() if key in values), None)


def path_pattern(path):
    """The pattern of a path of the table; what stands for a model is spelled out below it."""
    vertex = "/(?:v1beta1|v1)(?:/projects/[^/]+/locations/[^/]+)?/publishers/google/models"
    resource = f"(?:/(?:v1beta|v1|v1alpha)/(?:models|tunedModels)|{vertex})/[^/:]+"
    parts = []
    for part in re.findall(r"\{model\}(?=:)|\{[^}]+\}|/\*\*|(?:(?!/\*\*)[^{])+", path):
        if part == "{model}":
            parts.append(resource)
        elif "," in part:
            parts.append("(?:" + "|".join(part[1:-1].split(",")) + ")")
        elif part.startswith("{"):
            parts.append("[^/:]+")
        else:
            parts.append("(?:/.*)?" if part == "/**" else re.escape(part))
    return re.compile("".join(parts))


def main(words):
    wanted = None
    if "--rows" in words:
        at = words.index("--rows")
        wanted, words = [pathlib.Path(word) for word in words[at + 1 : at + 3]], words[:at]
    suites = [word.split("=", 1) for word in words]
    binary = os.environ["TOLLGATE_BINARY"]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = list(pool.map(lambda suite: run(binary, *suite), suites))
    cases = [case for found, _, _ in results for case in found]
    failures = [failure for _, failure, _ in results if failure]
    for case in cases:
        for problem in case.problems:
            print(f"✘ {case.client}, {case.call}: {problem}")
    for failure in failures:
        print(failure)
    matrix(cases)
    bare = rows(cases, *wanted) if wanted else 0
    for (name, _), (found, _, seconds) in zip(suites, results, strict=True):
        print(f"  {name}: {len(found)} cases in {seconds:.1f} s")
    bad = sum(bool(case.problems) for case in cases)
    print(f"clients: {len(cases) - bad} passed, {bad + len(failures)} failed")
    return 1 if bad or failures or bare or not cases else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
