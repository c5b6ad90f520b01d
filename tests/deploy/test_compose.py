"""deploy/compose: what must be true of it for calls to be counted once and streams to end whole."""

import http.client
import http.server
import json
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from gateway import Process

from facts import (
    BINARY,
    COMPOSE,
    amount,
    check,
    compose,
    defaults,
    demand_variables,
    free_port,
    image_environment,
    is_pinned,
    megabytes,
    settings,
    store_timeout,
)

PATIENCE_SECONDS = 20


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
        files = [value for value in service["environment"].values() if value.startswith("/run/secrets/")]
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


def test_the_admin_listener_speaks_tls_as_it_is_set_up(copied, tmp_path):
    """The real binary does, to the health check and to who trusts the certificate that the script made."""
    secrets = copied / "secrets"
    for name, service in gateways().items():
        wanted = {name: value for name, value in service["environment"].items() if "_TLS_" in name}
        wanted = {name: value.replace("/run/secrets", str(secrets)) for name, value in wanted.items()}
        wanted |= {"TOLLGATE_ADMIN_KEY_FILE": str(secrets / "admin_key"), "TOLLGATE_ENV": "prod"}
        wanted |= {"TOLLGATE_LISTEN": "127.0.0.1:0", "TOLLGATE_ADMIN_LISTEN": f"127.0.0.1:{free_port()}"}
        wanted |= {"TOLLGATE_DATA_DIR": str(tmp_path / name), "OPENAI_API_KEY": "sk-planted", "RUST_LOG": "warn"}
        gateway = Process([BINARY, "serve"], tmp_path, wanted)
        try:
            command = [BINARY, *service["healthcheck"]["test"][2:]]
            asked = subprocess.run(command, env=wanted, cwd=tmp_path, capture_output=True, text=True)
            assert asked.returncode == 0, asked.stderr
            trust = ssl.create_default_context(cafile=secrets / "admin_tls_cert")
            address, port = gateway.admin.rsplit(":", 1)
            for host in ("localhost", name):
                with socket.create_connection((address, int(port)), 10) as plain:
                    with trust.wrap_socket(plain, server_hostname=host) as connection:
                        connection.sendall(b"GET /readyz HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n")
                        assert connection.recv(12) == b"HTTP/1.1 200", host
        finally:
            gateway.close()


def test_the_script_makes_secrets_once(copied):
    made = {path.name: path.read_text() for path in (copied / "secrets").iterdir()}
    assert set(compose()["secrets"]) - set(made) == {"openai_api_key"}
    assert made["postgres_password"] in made["database_url"] and made["redis_password"] in made["redis_url"]
    assert made["redis_auth.conf"] == f"requirepass {made['redis_password']}\n"
    assert len({made[name] for name in ("postgres_password", "redis_password", "admin_key")}) == 3
    # Readable by the containers' users, and by nobody else on this machine.
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in (copied / "secrets").iterdir())
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
    assert directive("proxy_http_version") == "1.1" and directive("proxy_set_header Connection") == "$connection_upgrade"
    # What was sent to one gateway is not sent to another: neither by POST nor for an answer of any status.
    assert directive("proxy_next_upstream") == "error timeout"
    logged = re.search(r"log_format calls (.*?);", text, re.DOTALL).group(1)
    assert not re.search(r"\$(request|request_uri|args|query_string|arg_key)\b", logged), "a key may stand in the query"


def test_limits_by_address_are_those_of_a_gateway():
    text, known = (COMPOSE / "nginx.conf").read_text(), defaults()
    private = re.search(r"geo \$is_private \{(.*?)\n    \}", text, re.DOTALL).group(1)
    assert re.findall(r"^\s*(\S+) 1;", private, re.MULTILINE) == known["listen.balancers"].split(",")
    assert directive("limit_conn") == f"clients {known['listen.connections_per_address']}"


class Echo(http.server.BaseHTTPRequestHandler):
    """A gateway as nginx sees it, which answers with what it got. At `/held` it waits."""

    protocol_version = "HTTP/1.1"
    held, arrived = threading.Event(), threading.Semaphore(0)

    def do_GET(self):
        if self.path == "/held":
            self.arrived.release()
            self.held.wait(PATIENCE_SECONDS)
        body = json.dumps(dict(self.headers)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def balancer(tmp_path):
    """nginx with the shipped file, but for addresses, paths, and a limit of two calls that holds for this machine."""
    gateway = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=gateway.serve_forever, args=(0.05,), daemon=True).start()
    port, text = free_port(), (COMPOSE / "nginx.conf").read_text()
    for old, new in {
        "/tmp/": f"{tmp_path}/",
        "/dev/stdout": f"{tmp_path}/access.log",
        "gateway-1:8080": f"127.0.0.1:{gateway.server_port}",
        "        server gateway-2:8080 max_fails=3 fail_timeout=2s;\n": "",
        "listen 8080 ": f"listen 127.0.0.1:{port} ",
        "127.0.0.0/8 1;": "",
        "limit_conn clients 1000;": "limit_conn clients 2;",
    }.items():
        assert old in text, old
        text = text.replace(old, new)
    (tmp_path / "nginx.conf").write_text(text)
    command = ["nginx", "-e", "stderr", "-g", "daemon off; user root;", "-c", tmp_path / "nginx.conf"]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline and child.poll() is None:
            with socket.socket() as knock:
                if knock.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
        assert child.poll() is None, child.stderr.read()
        yield f"http://127.0.0.1:{port}"
    finally:
        Echo.held.set()
        child.terminate()
        child.wait(PATIENCE_SECONDS)
        gateway.shutdown()
        gateway.server_close()


@pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed")
def test_the_balancer_bounds_an_address_and_no_client_says_that_it_is_another(balancer):
    asked = urllib.request.Request(balancer + "/", headers={"X-Forwarded-For": "192.0.2.1", "X-Kept": "yes"})
    with urllib.request.urlopen(asked, timeout=PATIENCE_SECONDS) as answer:
        seen = {name.lower(): value for name, value in json.loads(answer.read()).items()}
    assert seen["x-kept"] == "yes" and "x-forwarded-for" not in seen
    # A realtime session begins with these; with `close` or any other word the connection to a gateway would not be kept.
    for upgrade, passed in {"websocket": "upgrade", "WebSocket": "upgrade", "h2c": None, None: None}.items():
        named = {"Upgrade": upgrade, "Connection": "Upgrade"} if upgrade else {}
        asked = http.client.HTTPConnection(balancer.removeprefix("http://"), timeout=PATIENCE_SECONDS)
        asked.request("GET", "/", headers=named)
        seen = {name.lower(): value for name, value in json.loads(asked.getresponse().read()).items()}
        asked.close()
        assert seen.get("connection") == passed, upgrade
        assert seen.get("upgrade") == ("websocket" if passed else None), upgrade
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(urllib.request.urlopen, balancer + "/held", timeout=PATIENCE_SECONDS) for _ in range(2)]
        assert all(Echo.arrived.acquire(timeout=PATIENCE_SECONDS) for _ in calls)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(balancer + "/", timeout=PATIENCE_SECONDS)
        assert refused.value.code == 503
        Echo.held.set()
        for call in calls:
            with call.result() as answer:
                assert answer.status == 200


def test_redis_throws_nothing_away_and_keeps_nothing():
    conf, service = redis_conf(), compose()["services"]["redis"]
    assert (conf["maxmemory-policy"], conf["save"], conf["appendonly"]) == ("noeviction", '""', "no")
    assert megabytes(service["mem_limit"]) > amount(conf["maxmemory"])
    assert conf["include"].removeprefix("/run/secrets/") in service["secrets"]
