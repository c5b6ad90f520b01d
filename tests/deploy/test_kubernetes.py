"""deploy/kubernetes: what must be true of it for calls to be counted once and streams to end whole."""

import re
import secrets
import shutil
import subprocess
import urllib.request

import pytest
import yaml

from facts import (
    KUBERNETES,
    ROOT,
    amount,
    check,
    defaults,
    demand_variables,
    image_environment,
    is_pinned,
    manifests,
    settings,
    store_timeout,
)


FIXTURES = ROOT / "tests" / "fixtures" / "tls"


def spec(kind, name="tollgate"):
    return manifests()[kind, name]["spec"]


def pod():
    return spec("StatefulSet")["template"]["spec"]


def container():
    (only,) = pod()["containers"]
    return only


def environment():
    return {row["name"]: row["value"] for row in container()["env"]}


def mounts():
    return {mount["name"]: mount for mount in container()["volumeMounts"]}


def ports():
    return {port["name"]: port["containerPort"] for port in container()["ports"]}


def labels():
    return spec("StatefulSet")["template"]["metadata"]["labels"].items()


def test_the_kustomization_has_everything_but_the_example_of_a_secret():
    kustomization = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    files = {path.name for path in KUBERNETES.glob("*.yaml")} - {"kustomization.yaml", "secret.example.yaml"}
    assert set(kustomization["resources"]) == files
    for (kind, name), document in manifests().items():
        if kind != "Namespace":
            assert document["metadata"]["namespace"] == kustomization["namespace"] == "tollgate", (kind, name)
    (image,) = kustomization["images"]
    assert container()["image"] == f"{image['name']}:{image['newTag']}" and is_pinned(container()["image"])


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
def test_kustomize_takes_it():
    built = subprocess.run(["kubectl", "kustomize", KUBERNETES], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    kinds = [document["kind"] for document in yaml.safe_load_all(built.stdout)]
    assert sorted(kinds) == sorted(kind for kind, _ in manifests() if kind != "Secret")


def test_probes_ask_routes_that_answer_on_ports_that_are_open(demo):
    listeners = {"proxy": (demo.url, "TOLLGATE_LISTEN"), "admin": (demo.admin, "TOLLGATE_ADMIN_LISTEN")}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container()[probe]["httpGet"]
        url, variable = listeners[asked["port"]]
        assert environment()[variable] == f"0.0.0.0:{ports()[asked['port']]}", probe
        is_tls = variable.replace("LISTEN", "TLS_CERT") in environment()
        assert asked.get("scheme", "HTTP") == ("HTTPS" if is_tls else "HTTP"), probe
        assert urllib.request.urlopen(url + asked["path"], timeout=10).status == 200, probe
    readiness, liveness = container()["readinessProbe"], container()["livenessProbe"]
    # On the listener that a drain closes first; with time for a ledger that is silent.
    assert (readiness["httpGet"]["path"], readiness["httpGet"]["port"]) == ("/readyz", "proxy")
    assert readiness["timeoutSeconds"] > store_timeout()
    # What asks the ledger must not kill: it would take every gateway down with it.
    assert liveness["httpGet"]["path"] == "/healthz"


def test_an_end_is_waited_for():
    kind, seconds = container()["lifecycle"]["preStop"]["exec"]["command"]
    assert kind == "sleep"
    drain = amount(defaults()["shutdown.drain_limit"])
    assert pod()["terminationGracePeriodSeconds"] > int(seconds) + drain + 2


def test_every_variable_exists_and_secrets_come_by_file():
    assert all(set(row) == {"name", "value"} for row in container()["env"]), "no secret in a variable"
    assert "envFrom" not in container() and not pod()["enableServiceLinks"]
    demand_variables(environment())
    volumes = {volume["name"]: volume["secret"] for volume in pod()["volumes"] if "secret" in volume}
    there = []
    for name, volume in volumes.items():
        keys = manifests()["Secret", volume["secretName"]]["stringData"]
        there += [f"{mounts()[name]['mountPath']}/{key}" for key in keys]
        assert not volume["defaultMode"] & 0o007, name
    assert sorted(value for value in environment().values() if value.startswith("/run/secrets/")) == sorted(there)


def test_the_configuration_is_right(tmp_path):
    """The real binary says so, in the pod's environment."""
    directory = mounts()["config"]["mountPath"]
    for name, text in manifests()["ConfigMap", "tollgate"]["data"].items():
        (tmp_path / name).write_text(text)
    for name, text in manifests()["Secret", "tollgate"]["stringData"].items():
        (tmp_path / name).write_text(text)
    # A certificate has to be one.
    for name in manifests()["Secret", "tollgate-admin-tls"]["stringData"]:
        shutil.copy(FIXTURES / {"tls.crt": "localhost.pem", "tls.key": "localhost.key"}[name], tmp_path / name)
    found = image_environment() | environment()
    for inside in (directory, mounts()["secrets"]["mountPath"], mounts()["admin-tls"]["mountPath"]):
        found = {name: value.replace(inside, str(tmp_path)) for name, value in found.items()}
    # Not with the key of the example, which everybody can read.
    (error,) = check(found)["errors"]
    assert "admin.key" in error, error
    (tmp_path / "admin_key").write_text(secrets.token_hex(32))
    checked = check(found)
    assert checked["ok"] and checked["warnings"] == [], checked
    found = settings(checked)
    assert (found["env"], found["data_dir"]) == ("prod", mounts()["data"]["mountPath"])


def test_files_that_are_watched_can_change():
    for mount in container()["volumeMounts"]:
        assert "subPath" not in mount and "subPathExpr" not in mount, mount


def test_each_gateway_has_a_volume_of_its_own_that_outlives_it():
    (claim,) = spec("StatefulSet")["volumeClaimTemplates"]
    assert claim["metadata"]["name"] == "data" and claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert amount(claim["spec"]["resources"]["requests"]["storage"]) > 2 * amount(defaults()["journal.bytes_max"])
    assert set(spec("StatefulSet")["persistentVolumeClaimRetentionPolicy"].values()) == {"Retain"}


def test_the_budget_and_the_spread_are_of_these_pods():
    budget = spec("PodDisruptionBudget")
    assert budget["selector"]["matchLabels"].items() <= labels()
    assert budget["maxUnavailable"] < spec("StatefulSet")["replicas"]
    assert spec("StatefulSet")["selector"]["matchLabels"].items() <= labels()
    keys = [spread["topologyKey"] for spread in pod()["topologySpreadConstraints"]]
    assert keys == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    for spread in pod()["topologySpreadConstraints"]:
        assert spread["labelSelector"]["matchLabels"].items() <= labels()


def test_services_lead_to_ports_and_the_admin_listener_stays_inside():
    services = {name: document["spec"] for (kind, name), document in manifests().items() if kind == "Service"}
    for name, service in services.items():
        assert service["selector"].items() <= labels(), name
        assert service.get("type", "ClusterIP") == "ClusterIP", name
        assert all(port["targetPort"] in ports() for port in service["ports"]), name
    assert services[spec("StatefulSet")["serviceName"]]["clusterIP"] == "None"
    (rule,) = spec("Ingress")["rules"]
    (path,) = rule["http"]["paths"]
    backend = path["backend"]["service"]
    (port,) = services[backend["name"]]["ports"]
    assert port["name"] == backend["port"]["name"] and port["targetPort"] == "proxy"
    policy = spec("NetworkPolicy")
    assert policy["podSelector"]["matchLabels"].items() <= labels()
    assert {rule["ports"][0]["port"]: "from" in rule for rule in policy["ingress"]} == {"proxy": False, "admin": True}


def test_the_way_in_has_time_and_sends_nothing_twice():
    notes = manifests()["Ingress", "tollgate"]["metadata"]["annotations"]
    notes = {name.removeprefix("nginx.ingress.kubernetes.io/"): value for name, value in notes.items()}
    for key in ("upstream.first_byte_timeout", "upstream.idle_timeout"):
        assert int(notes["proxy-read-timeout"]) > amount(defaults()[key]), key
    assert notes["proxy-buffering"] == notes["proxy-request-buffering"] == "off"
    assert notes["proxy-next-upstream"] == "error timeout"
    assert spec("Ingress")["tls"]


def test_it_runs_without_rights():
    user = re.search(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    security = pod()["securityContext"]
    assert (security["runAsUser"], security["runAsGroup"]) == (int(user[1]), int(user[2]))
    assert security["fsGroup"] == security["runAsGroup"] and security["runAsNonRoot"]
    own = container()["securityContext"]
    assert own["readOnlyRootFilesystem"] and not own["allowPrivilegeEscalation"]
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert not pod()["automountServiceAccountToken"]


def test_memory_and_workers_are_enough():
    resources = container()["resources"]
    assert amount(resources["limits"]["memory"]) >= amount(defaults()["listen.buffer_total"]) + (256 << 20)
    assert environment()["TOLLGATE_WORKERS"] == resources["requests"]["cpu"]
