"""What the pages on many nodes name is there."""

import re

from facts import COMPOSE, KUBERNETES, ROOT, defaults

PAGE = (ROOT / "deploy" / "README.md").read_text()


def test_links_lead_somewhere():
    for page in (ROOT / "README.md", ROOT / "deploy" / "README.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page}: {target}"


def test_keys_that_are_named_are_keys():
    # Plans have names of the operator.
    sections = {key.split(".")[0] for key in defaults()} - {"plans"}
    texts = {"README": PAGE} | {path.name: path.read_text() for path in [*COMPOSE.glob("*.*"), *KUBERNETES.glob("*")]}
    for name, text in texts.items():
        for key in re.findall(r"(?<![\w/.-])([a-z]+\.[a-z_]+)(?![\w./-])", text):
            if key.split(".")[0] in sections and not key.endswith((".json", ".toml")):
                assert key in defaults(), f"{name}: {key}"
    assert "counters.lease_ttl" in defaults() and "counters.lease_ttl" in PAGE


def test_the_way_from_one_node_to_many_has_ten_lines():
    section = (ROOT / "README.md").read_text().split("## From one node to many\n\n")[1].split("\n\n")[0]
    assert [line.split(". ")[0] for line in section.splitlines()] == [str(number) for number in range(1, 11)]
