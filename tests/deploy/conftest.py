"""A gateway of the real binary, to ask what its routes answer."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "sdk" / "python"))

from bench import Gateway  # noqa: E402
from facts import BINARY  # noqa: E402


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    gateway = Gateway(BINARY, tmp_path_factory.mktemp("gateway"))
    yield gateway
    gateway.close()
