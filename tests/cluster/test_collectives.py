"""Run with `pytest tests/cluster/test_collectives.py`: by gloo; NCCL has not been seen here."""

from __future__ import annotations

import re
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from dirtune.cluster import collectives
from dirtune.cluster.collectives import choose_members, judge, run_member
from dirtune.tuning.plan.capacity import Node


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ({"a": Node(4)}, ("gloo", [])),
        ({"a": Node(4), "b": Node(4)}, ("gloo", ["a", "b"])),
        ({"a": Node(4, 1)}, ("nccl", [])),
        ({"a": Node(4, 2)}, ("nccl", ["a", "a"])),
        ({"a": Node(4, 2), "b": Node(4), "c": Node(8, 8)}, ("nccl", ["a", "c"])),
    ],
)
def test_a_gpu_of_each_node_or_two_of_one_or_a_cpu_of_each_is_a_member(
    nodes: dict[str, Node], expected: tuple[str, list[str]]
) -> None:
    assert choose_members(nodes) == expected


def find_free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.slow
def test_members_add_up_a_tensor_and_the_first_one_measures_the_rate() -> None:
    port = find_free_port()
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(run_member, "gloo", "127.0.0.1", port, rank, 2) for rank in range(2)]
        (rate, fault), other = (run.result() for run in runs)
    assert (fault, other) == ("", ("", ""))
    assert re.fullmatch(r"\d+\.\d GB/s", rate)


@pytest.mark.slow
def test_a_member_that_meets_no_other_one_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collectives, "TEST_TIMEOUT", 1.0)
    assert run_member("gloo", "127.0.0.1", find_free_port(), 1, 2) == ("", "no result within 1 s")
    monkeypatch.undo()
    output, fault = run_member("unknown", "127.0.0.1", find_free_port(), 0, 1)
    assert output == ""
    assert "KeyError" in fault or "unknown" in fault.lower()


def test_a_fault_of_a_member_is_a_warning_that_names_the_node() -> None:
    names = {"1": "a", "2": "b"}
    good = judge("nccl", ["1", "2"], names, {"a, 0": ("11.2 GB/s", ""), "b, 1": ("", "")})
    assert (good.value, good.state) == ("nccl over 2 nodes, 11.2 GB/s", "ok")
    assert judge("nccl", ["1", "1"], names, {"a, 0": ("90.0 GB/s", ""), "a, 1": ("", "")}).value == (
        "nccl over 2 GPUs of a, 90.0 GB/s"
    )
    reason = "DistBackendError: NCCL error: remote process exited or there was a network error"
    bad = judge("nccl", ["1", "2"], names, {"a, 0": ("", ""), "b, 1": ("", reason)})
    assert (bad.value, bad.state) == (f"nccl over 2 nodes: {reason} on b", "warning")
    assert "NCCL_SOCKET_IFNAME" in bad.advice
    both = judge("gloo", ["1", "2"], names, {"a, 0": ("", "no result"), "b, 1": ("", "no result")})
    assert both.value == "gloo over 2 nodes: no result on a and 1 more"
    assert "GLOO_SOCKET_IFNAME" in both.advice
