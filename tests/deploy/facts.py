"""What the gateway itself says, which everything in deploy/ is compared with, and how its files are read."""

import json
import os
import pathlib
import re
import socket
import subprocess

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "deploy" / "compose"
KUBERNETES = ROOT / "deploy" / "kubernetes"
BINARY = os.environ.get("TOLLGATE_BINARY", str(ROOT / "target" / "debug" / "tollgate"))

UNITS = {
    "": 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600,
    "MiB": 1 << 20, "GiB": 1 << 30, "Mi": 1 << 20, "Gi": 1 << 30, "mb": 1 << 20,
}


def amount(text):
    """Seconds of a duration, bytes of a size: 30s, 512MiB, 1Gi."""
    number, unit = re.fullmatch(r"(\d+)([A-Za-z]*)", str(text)).groups()
    return int(number) * UNITS[unit]


def megabytes(text):
    """A size as docker writes it: 512m."""
    return int(re.fullmatch(r"(\d+)m", str(text)).group(1)) << 20


def check(environment, cwd=ROOT):
    """What `tollgate check` says in this environment, and nothing else."""
    done = subprocess.run([BINARY, "check", "--json"], env=environment, cwd=cwd, capture_output=True, text=True)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def settings(checked):
    return {row["key"]: row["value"] for row in checked["settings"]}


def defaults():
    return settings(check({}))


def variables():
    """Every variable that sets a key, and whether it is a secret, which a file may hold."""
    known = {"TOLLGATE_CONFIG": False}
    for line in (ROOT / "config" / "tollgate.toml").read_text().splitlines():
        if line.startswith("# Environment: "):
            names, _, from_file = line.removeprefix("# Environment: ").partition("; or from a file")
            known |= {name: bool(from_file) for name in names.split(" or ")}
    assert known["DATABASE_URL"] and known["OPENAI_API_KEY"] and not known["TOLLGATE_LISTEN"]
    return known


def demand_variables(environment):
    """Each variable exists, and what is secret comes by file."""
    known = variables()
    for name in environment:
        plain = name.removesuffix("_FILE")
        if plain != name:
            assert known.get(plain), f"{name}: {plain} is no secret of the configuration"
        else:
            assert name in known, f"{name} sets nothing"
            assert not known[name], f"{name} is a secret: give it by file"


def image_environment():
    """ENV of the Dockerfile."""
    text = (ROOT / "Dockerfile").read_text()
    block = re.search(r"^ENV ((?:.*\\\n)*.*)", text, re.MULTILINE).group(1)
    return dict(pair.split("=", 1) for pair in block.replace("\\\n", " ").split())


def store_timeout():
    """How long /readyz waits for a ledger that is silent."""
    text = (ROOT / "src" / "edge" / "api" / "mod.rs").read_text()
    return int(re.search(r"STORE_TIMEOUT: Duration = Duration::from_secs\((\d+)\)", text).group(1))


def is_pinned(image):
    """A version, not a name that means another image tomorrow."""
    return re.fullmatch(r"[a-z/.]+:\d+\.\d+(\.\d+)?(-[a-z]+)?", image) is not None


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def compose():
    return yaml.safe_load((COMPOSE / "compose.yaml").read_text())


def manifests():
    """Every document of deploy/kubernetes but its kustomization, by kind and name."""
    documents = {}
    for path in sorted(KUBERNETES.glob("*.yaml")):
        if path.name != "kustomization.yaml":
            for document in yaml.safe_load_all(path.read_text()):
                documents[document["kind"], document["metadata"]["name"]] = document
    return documents
