"""deploy/compose: what must be true of it for calls to be counted once and streams to end whole."""

import re
import shutil
import subprocess

import pytest

from facts import (
    BINARY,
    COMPOSE,
    amount,
    check,
    compose,
    defaults,
    demand_variables,
    image_environment,
    is_pinned,
    megabytes,
    settings,
    store_timeout,
)


def gateways():
    services = compose()["services"]
    return {name: service for name, service in services.items() if service["image"].startswith("tollgate:")}


def directive(name):
    """The value of a directive that nginx.conf has once."""
    values = re.findall(rf"^\s*{name}\s+(.*);", (COMPOSE / "nginx.conf").read_text(), re.MULTILINE)
    assert len(values) == 1, f"{name}: {values}"
    return values[0]


def redis_conf():
    lines = (line.split(None, 1) for line in (COMPOSE / "redis.conf").read_text().splitlines())
    return {words[0]: words[1] for words in lines if words and not words[0].startswith("#")}


@pytest.fixture
def copied(tmp_path):
    """A copy of the directory, with the secrets that its script makes."""
    shutil.copytree(COMPOSE, tmp_path / "compose", ignore=shutil.ignore_patterns("secrets"))
    subprocess.run([tmp_path / "compose" / "secrets.sh"], check=True, capture_output=True)
    return tmp_path / "compose"


def test_each_gateway_has_a_volume_of_its_own():
    volumes = [volume.split(":") for service in gateways().values() for volume in service["volumes"]]
    data = [source for source, target, *_ in volumes if target == image_environment()["TOLLGATE_DATA_DIR"]]
    assert len(data) == len(set(data)) == len(gateways()) == 2
    assert set(data) <= set(compose()["volumes"])


def test_every_image_is_pinned_and_what_is_mounted_is_there():
    for name, service in compose()["services"].items():
        assert is_pinned(service["image"]), name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (COMPOSE / source).exists(), volume


def test_every_variable_exists_and_secrets_come_by_file():
    declared = compose()["secrets"]
    for name, service in gateways().items():
        demand_variables(service["environment"])
        files = [path for variable, path in service["environment"].items() if variable.endswith("_FILE")]
        assert sorted(files) == sorted(f"/run/secrets/{secret}" for secret in service["secrets"]), name
    used = {secret for service in compose()["services"].values() for secret in service.get("secrets", [])}
    assert used == set(declared)


def test_the_environment_is_right(copied):
    """The real binary says so, of every gateway as it is started."""
    (copied / "secrets" / "openai_api_key").write_text("sk-planted")
    for service in gateways().values():
        environment = image_environment() | service["environment"]
        paths = {"/run/secrets": copied / "secrets", "/etc/tollgate": copied / "config"}
        for inside, outside in paths.items():
            environment = {name: value.replace(inside, str(outside)) for name, value in environment.items()}
        checked = check(environment)
        assert checked["ok"] and checked["warnings"] == [], checked
        found = settings(checked)
        assert found["env"] == "prod"
        assert found["storage.url"].startswith("postgres://") and "@postgres:5432/" in found["storage.url"]
        assert found["counters.url"].startswith("redis://") and "@redis:6379" in found["counters.url"]


def test_the_script_makes_secrets_once(copied):
    made = {path.name: path.read_text() for path in (copied / "secrets").iterdir()}
    assert set(compose()["secrets"]) - set(made) == {"openai_api_key"}
    assert made["postgres_password"] in made["database_url"] and made["redis_password"] in made["redis_url"]
    assert made["redis_auth.conf"] == f"requirepass {made['redis_password']}\n"
    assert len({made[name] for name in ("postgres_password", "redis_password", "admin_key")}) == 3
    assert (copied / "secrets").stat().st_mode & 0o777 == 0o700
    subprocess.run([copied / "secrets.sh"], check=True, capture_output=True)
    assert made == {path.name: path.read_text() for path in (copied / "secrets").iterdir()}
    assert subprocess.run(["git", "check-ignore", "-q", COMPOSE / "secrets" / "admin_key"]).returncode in (0, 128)


def test_an_end_is_waited_for():
    for name in [*gateways(), "balancer"]:
        grace = amount(compose()["services"][name]["stop_grace_period"])
        assert grace > amount(defaults()["shutdown.drain_limit"]) + 2, name


def test_health_is_asked_for_as_the_binary_answers():
    for name, service in gateways().items():
        kind, program, *arguments = service["healthcheck"]["test"]
        assert (kind, program) == ("CMD", "tollgate"), name
        assert "--ready" in arguments, name
        assert subprocess.run([BINARY, *arguments, "--help"], capture_output=True).returncode == 0, arguments
        assert amount(service["healthcheck"]["timeout"]) > store_timeout(), name


def test_only_the_balancer_is_open_to_others():
    published = {name: service.get("ports", []) for name, service in compose()["services"].items()}
    for name, ports in published.items():
        outside = [port for port in ports if not port.startswith("127.0.0.1:")]
        assert outside == (["8080:8080"] if name == "balancer" else []), name
    networks = compose()["networks"]
    assert networks["stores"]["internal"]
    for name in ("redis", "postgres"):
        assert compose()["services"][name]["networks"] == ["stores"], name


def test_the_balancer_knows_the_gateways_and_their_times():
    text = (COMPOSE / "nginx.conf").read_text()
    servers = re.findall(r"^\s*server (\S+):(\d+) ", text, re.MULTILINE)
    port = next(iter(gateways().values()))["environment"]["TOLLGATE_LISTEN"].rsplit(":", 1)[1]
    assert servers == [(name, port) for name in gateways()]
    known = defaults()
    for key in ("upstream.first_byte_timeout", "upstream.idle_timeout"):
        assert amount(directive("proxy_read_timeout")) > amount(known[key]), key
    upstream = re.search(r"upstream gateways \{(.*?)\n    \}", text, re.DOTALL).group(1)
    kept = re.search(r"keepalive_timeout (\w+);", upstream).group(1)
    assert amount(kept) < amount(known["listen.keepalive_timeout"]), "nginx closes idle connections first"
    assert amount(directive("worker_shutdown_timeout")) > amount(known["shutdown.drain_limit"])
    assert directive("proxy_buffering") == directive("proxy_request_buffering") == "off"
    assert directive("proxy_http_version") == "1.1" and directive("proxy_set_header Connection") == '""'
    # What was sent to one gateway is not sent to another: neither by POST nor for an answer of any status.
    assert directive("proxy_next_upstream") == "error timeout"
    logged = re.search(r"log_format calls (.*?);", text, re.DOTALL).group(1)
    assert not re.search(r"\$(request|request_uri|args|query_string|arg_key)\b", logged), "a key may stand in the query"


def test_redis_throws_nothing_away_and_keeps_nothing():
    conf, service = redis_conf(), compose()["services"]["redis"]
    assert (conf["maxmemory-policy"], conf["save"], conf["appendonly"]) == ("noeviction", '""', "no")
    assert megabytes(service["mem_limit"]) > amount(conf["maxmemory"])
    assert conf["include"].removeprefix("/run/secrets/") in service["secrets"]
