"""One gateway for all tests of the suite."""

import os
import pathlib

import pytest

from bench import Gateway


@pytest.fixture(scope="session")
def gateway(tmp_path_factory):
    root = pathlib.Path(__file__).resolve().parents[3]
    binary = os.environ.get("TOLLGATE_BINARY", str(root / "target" / "debug" / "tollgate"))
    gateway = Gateway(binary, tmp_path_factory.mktemp("gateway"))
    yield gateway
    gateway.close()


@pytest.fixture(params=["sync", "async"])
def mode(request):
    return request.param
