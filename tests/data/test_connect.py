"""Run with `pytest tests/data/test_connect.py`. Connections to a real cluster are tested in `tests/cluster/test_token_cluster.py`."""

from __future__ import annotations

import os
import platform
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from dirtune.data.auth_token import prepare_token
from dirtune.data.connect import (
    MODE,
    TOKEN,
    TOKEN_PATH,
    check_reachable,
    check_token,
    check_versions,
    connect_to_cluster,
    format_token_error,
    get_auth_mode,
    get_cluster_versions,
)
from dirtune.errors import InputError

SECRET = "0123456789abcdef-secret"


@pytest.fixture(autouse=True)
def without_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (MODE, TOKEN, TOKEN_PATH):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_an_unreachable_address_fails_before_ray_waits_for_it() -> None:
    # Bound, so that no other process gets the port, but not listening.
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(InputError, match=f"^{address}: not reachable"), connect_to_cluster(address):
            pass


def test_auto_is_examined_like_the_address_that_it_stands_for() -> None:
    # In a process of its own, which has no Ray. Ray prefers the variable to the clusters of the machine.
    code = "from dirtune.data.connect import connect_to_cluster\nwith connect_to_cluster('auto'): pass"
    # At every address of the machine, because Ray replaces 127.0.0.1 by the address of the node.
    with socket.socket() as unused:
        unused.bind(("", 0))
        port = unused.getsockname()[1]
        environment = {**os.environ, "RAY_ADDRESS": f"127.0.0.1:{port}"}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
        )
    assert re.search(rf"InputError: auto, [\d.]+:{port}: not reachable", done.stderr)


def test_a_url_is_not_the_address_of_a_driver() -> None:
    with pytest.raises(InputError, match="connects to a cluster at host:port"), connect_to_cluster("ray://host:10001"):
        pass


def test_a_listening_port_is_reachable_by_host_and_port_or_url() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        check_reachable(f"127.0.0.1:{port}", where="x")
        check_reachable(f"http://127.0.0.1:{port}", where="x")


@pytest.mark.parametrize("address", ["somewhere", "127.0.0.1:many", "gopher://host"])
def test_a_malformed_address_is_an_error(address: str) -> None:
    with pytest.raises(InputError, match="is not an address"):
        check_reachable(address, where=address)


def test_another_version_of_ray_or_python_is_a_one_line_error() -> None:
    here = (ray.__version__, platform.python_version())
    check_versions(here, where="x")
    for there in (("2.59.0", here[1]), (here[0], "3.9.1")):
        with pytest.raises(InputError) as caught:
            check_versions(there, where="x")
        said = str(caught.value)
        assert said.startswith(f"x: the cluster runs Ray {there[0]} on Python {there[1]}, this is Ray ")
        assert "\n" not in said


@pytest.mark.slow
def test_a_server_that_does_not_respond_as_a_cluster_fails_after_the_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dirtune.data.connect.HANDSHAKE_TIMEOUT", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(InputError, match="does not respond as a Ray cluster within 1 s"):
            get_cluster_versions(address)


def test_a_refused_token_and_a_missing_one_have_different_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    without = "the cluster requires a token and received none: set RAY_AUTH_MODE=token"
    assert format_token_error().startswith(without)
    monkeypatch.setenv(MODE, "token")
    monkeypatch.setenv(TOKEN, SECRET)
    assert format_token_error().startswith("the cluster refuses this token: ")
    assert format_token_error(is_missing=True).startswith(without)
    assert SECRET not in format_token_error()


def test_token_authentication_needs_a_token_in_a_variable_or_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    check_token(where="x")
    monkeypatch.setenv(MODE, "TOKEN")
    assert get_auth_mode() == "token"
    with pytest.raises(InputError, match=r"x: RAY_AUTH_MODE is token, but .*auth_token contains none"):
        check_token(where="x")
    file = tmp_path / "token"
    monkeypatch.setenv(TOKEN_PATH, str(file))
    for text in (None, "", " \n"):
        if text is not None:
            file.write_text(text)
        with pytest.raises(InputError, match=f"{file} contains none"):
            check_token(where="x")
    file.write_text(SECRET)
    check_token(where="x")
    file.unlink()
    monkeypatch.setenv(TOKEN, SECRET)
    check_token(where="x")


def test_the_token_of_local_sessions_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("RAY_AUTH_")]:
        monkeypatch.delenv(name)
    file = tmp_path / "home/.ray/auth_token"
    prepare_token(file)
    token = file.read_text()
    assert len(token) == 64
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o644)
    prepare_token(file)
    assert (file.read_text(), file.stat().st_mode & 0o777) == (token, 0o600)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    prepare_token(tmp_path / "none")
    assert not (tmp_path / "none").exists()
