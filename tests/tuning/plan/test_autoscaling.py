"""Nodes that an autoscaler may start. Run with `pytest tests/tuning/plan/test_autoscaling.py`; one test starts a cluster that grows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from ray._private.services import get_node_ip_address
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID
from ray.autoscaler._private.util import validate_config

from dirtune.errors import InputError
from dirtune.tuning.plan.autoscaling import (
    NodeType,
    find_startable_nodes,
    format_node_types,
    list_nodes,
    read_node_types,
)
from dirtune.tuning.plan.capacity import Node
from tests.cluster.heads import end, find_free_ports, wait_until
from tests.training.conftest import SETTINGS
from tests.tuning.sweeps import rows

PROVIDER = {
    "type": "fake_multinode",
    "use_node_id_as_ip": True,
    "head_node_id": FAKE_HEAD_NODE_ID,
    "disable_node_updaters": True,
    "disable_launch_config_check": True,
}
GROWING = {
    "cluster_name": "growing",
    "max_workers": 2,
    "idle_timeout_minutes": 5,
    "upscaling_speed": 1.0,
    "head_node_type": "ray.head.default",
    "available_node_types": {
        "ray.head.default": {"resources": {}, "node_config": {}, "max_workers": 0},
        "small": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2},
    },
}
LISTS = (
    "cluster_synced_files",
    "rsync_exclude",
    "rsync_filter",
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)
NOTHING_ELSE = {
    **GROWING,
    "auth": {},
    "docker": {},
    "file_mounts": {},
    "file_mounts_sync_continuously": False,
    **{name: [] for name in LISTS},
}
"""Ray's own defaults for its pretended nodes are in no wheel."""

ROOT = Path(__file__).resolve().parents[3]
GPU = NodeType("gpu_worker", Node(8, 1), 4)


def file(folder: Path, text: str) -> Path:
    path = folder / "cluster.yaml"
    path.write_text(text)
    return path


def test_the_shipped_cluster_file_has_four_nodes_with_a_gpu() -> None:
    assert read_node_types(ROOT / "cluster.yaml") == (GPU,)
    assert str(GPU) == "4 nodes of type gpu_worker (8 CPUs and 1 GPUs each) can be started"
    assert list_nodes([GPU]) == [Node(8, 1)] * 4


def test_without_a_file_no_node_is_startable() -> None:
    assert read_node_types(None) == ()


def test_the_nodes_of_a_type_are_limited_by_those_of_the_cluster(tmp_path: Path) -> None:
    text = """
    max_workers: 3
    head_node_type: head
    available_node_types:
      head: {resources: {CPU: 4}}
      many: {resources: {CPU: 2}, max_workers: 9}
      few: {resources: {CPU: 2, GPU: 0.5}, max_workers: 1}
      unsaid: {resources: {CPU: 1}}
    """
    many, few, unsaid = read_node_types(file(tmp_path, text))
    assert many == NodeType("many", Node(2, 0), 3)
    assert few == NodeType("few", Node(2, 0.5), 1)
    assert unsaid == NodeType("unsaid", Node(1, 0), 3)


def test_live_nodes_are_not_startable_again() -> None:
    small = NodeType("small", Node(2, 0), 2)
    assert find_startable_nodes([GPU, small], [Node(4), Node(8, 1), Node(8.0, 1.0)]) == (GPU._replace(number=2), small)
    assert find_startable_nodes([small], [Node(2)] * 5) == ()


def test_formatted_node_types_read_back_and_contain_nothing_else(tmp_path: Path) -> None:
    types = read_node_types(ROOT / "cluster.yaml")
    assert read_node_types(file(tmp_path, format_node_types(types))) == types
    assert set(yaml.safe_load(format_node_types(types))) == {"available_node_types"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("just text", "available_node_types: must be the node types of a cluster"),
        ("available_node_types: 3", "available_node_types: must be the node types of a cluster"),
        ("available_node_types: {a: {max_workers: 2}}", "available_node_types.a.resources: must name"),
        ("available_node_types: {a: {resources: {GPU: 1}}}", "a.resources: must name the CPUs"),
        ("available_node_types: {a: {resources: {CPU: many}}}", "CPU: must be a number, got 'many'"),
        ("available_node_types: {a: {resources: {CPU: 1}, max_workers: -1}}", "a.max_workers: must"),
    ],
)
def test_an_invalid_cluster_file_is_reported_with_its_key(tmp_path: Path, text: str, said: str) -> None:
    path = file(tmp_path, text)
    with pytest.raises(InputError) as refused:
        read_node_types(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert said in str(refused.value)
    with pytest.raises(InputError, match="no such file"):
        read_node_types(tmp_path / "none.yaml")


@pytest.fixture
def growing() -> Iterator[tuple[dict[str, str], Path]]:
    """A cluster whose head has no CPU, and the file by which it may start two nodes of one CPU each."""
    # Not the folder of pytest, whose long path leaves no room for the name of a socket.
    home, ports = Path(tempfile.mkdtemp(prefix="dirtune-", dir="/tmp")), find_free_ports()
    # Where the pretended nodes look for it
    address = f"{get_node_ip_address()}:{ports['port']}"
    config = {**NOTHING_ELSE, "provider": {**PROVIDER, "gcs_address": address}}
    validate_config(config)
    (home / "cluster.yaml").write_text(json.dumps(config))
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = {**plain, "HOME": str(home), "RAY_AUTH_MODE": "disabled", "RAY_ADDRESS": address}
    command = [
        str(Path(sys.executable).parent / "ray"),
        "start",
        "--head",
        "--block",
        "--num-cpus=0",
        f"--autoscaling-config={home / 'cluster.yaml'}",
        "--include-dashboard=false",
        f"--temp-dir={home / 'ray'}",
        "--disable-usage-stats",
        *(f"--{name}={port}" for name, port in ports.items() if name != "dashboard-port"),
    ]
    special = {
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
    }
    start = {name: value for name, value in environment.items() if name != "RAY_ADDRESS"} | special
    with (home / "log").open("wb") as log:
        head = subprocess.Popen(command, env=start, stdout=log, stderr=log, cwd=home, start_new_session=True)
    try:
        wait_until(lambda: b"Ray runtime started" in (home / "log").read_bytes(), head)
        yield environment, home / "cluster.yaml"
    finally:
        end(head)
        shutil.rmtree(home)


@pytest.mark.soak
@pytest.mark.ray
def test_a_cluster_without_a_single_cpu_grows_for_a_sweep_that_expects_it(
    growing: tuple[dict[str, str], Path], data_root: Path, tmp_path: Path, study_file: Callable[..., str]
) -> None:
    environment, cluster = growing
    study = study_file(arms={"vanilla": {}}, base={**SETTINGS, "recipe": {**SETTINGS["recipe"], "epochs": 1}})

    def called(*words: object) -> subprocess.CompletedProcess[str]:
        roots = ["--data", data_root, "--results", tmp_path / "results"]
        return subprocess.run(
            [sys.executable, "-m", "dirtune.cli", *map(str, [*words, study, *roots])],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    refused = called("plan")
    assert refused.returncode == 2
    assert "one trial needs 1 CPUs and 0 GPUs, the cluster has 0 and 0" in refused.stderr
    done = called("sweep", "--expect", cluster)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tiny: 2 trials, 0 recorded, 2 at once" in done.stdout
    found = rows("select status from trials", tmp_path / "results")
    assert found["status"].tolist() == ["complete"] * 2
