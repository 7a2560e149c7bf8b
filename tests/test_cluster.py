"""`cluster.yaml` is what `ray up` accepts, `docs/rayjob.yaml` what KubeRay does. Run with `pytest tests/test_cluster.py`."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import typer
import yaml

from dirtune.cli import app
from dirtune.cluster.machine import get_lowest_driver
from dirtune.tuning.plan.autoscaling import NodeType, read_node_types
from dirtune.tuning.plan.capacity import Node

ROOT = Path(__file__).resolve().parents[1]
PINNED_CUDA = "13.2"
"""Of the official build of the pinned torch."""


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    return config


def test_the_cluster_file_follows_the_schema_of_ray(cluster: dict[str, Any]) -> None:
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(cluster, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**cluster, "max_workers": "many"}, schema)


def test_the_head_is_a_known_node_type_and_workers_scale_from_zero(cluster: dict[str, Any]) -> None:
    types = cluster["available_node_types"]
    assert cluster["head_node_type"] in types
    workers = [kind for name, kind in types.items() if name != cluster["head_node_type"]]
    assert all(kind["min_workers"] == 0 < kind["max_workers"] <= cluster["max_workers"] for kind in workers)


def test_every_node_requires_the_token_and_the_dashboard_listens_on_loopback(cluster: dict[str, Any]) -> None:
    starts = [
        line
        for key in ("head_start_ray_commands", "worker_start_ray_commands")
        for line in cluster[key]
        if "ray start" in line
    ]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in line for line in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert cluster["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"


def test_only_workers_are_spot_instances(cluster: dict[str, Any]) -> None:
    options = {
        name: kind["node_config"].get("InstanceMarketOptions") for name, kind in cluster["available_node_types"].items()
    }
    assert options == {"head": None, "gpu_worker": {"MarketType": "spot"}}


def test_every_node_mounts_the_shared_storage_and_installs_dirtune(cluster: dict[str, Any]) -> None:
    commands = "\n".join(cluster["setup_commands"])
    assert re.search(r"mount -t nfs4 .* /shared\)", commands)
    assert "cd ~/dirtune && make install" in commands
    assert cluster["file_mounts"]["~/dirtune"] == "."


@pytest.fixture(scope="module")
def documents() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / "docs" / "rayjob.yaml").read_text()))


@pytest.fixture(scope="module")
def ray_job(documents: list[dict[str, Any]]) -> dict[str, Any]:
    _, manifest = documents
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayJob")
    spec: dict[str, Any] = manifest["spec"]
    return spec


def test_the_manifest_requires_a_token_and_has_the_tested_version_of_ray(ray_job: dict[str, Any]) -> None:
    pinned = re.search(r"^ray==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    cluster = ray_job["rayClusterSpec"]
    assert (cluster["authOptions"], cluster["rayVersion"]) == ({"mode": "token"}, pinned[1])
    base = (ROOT / "docs" / "Dockerfile").read_text()
    assert f"FROM rayproject/ray:{pinned[1]}-py311-gpu" in base


def test_all_pods_of_the_manifest_share_one_image_and_the_storage_of_its_commands(ray_job: dict[str, Any]) -> None:
    cluster = ray_job["rayClusterSpec"]
    pods = [group["template"]["spec"] for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]]
    assert len({pod["containers"][0]["image"] for pod in pods}) == 1
    for pod in pods:
        mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        assert mounts == {"shared": "/shared", "shm": "/dev/shm", "nodes": "/etc/dirtune"}
        assert {volume["name"] for volume in pod["volumes"]} == set(mounts)


def test_the_sweep_of_the_manifest_expects_the_nodes_that_may_be_started(
    documents: list[dict[str, Any]], ray_job: dict[str, Any], tmp_path: Path
) -> None:
    nodes, _ = documents
    (option,) = re.findall(r"--expect (\S+)", ray_job["entrypoint"])
    cluster = ray_job["rayClusterSpec"]
    (volume,) = (each for each in cluster["headGroupSpec"]["template"]["spec"]["volumes"] if each["name"] == "nodes")
    assert volume["configMap"] == {"name": nodes["metadata"]["name"]}
    file = tmp_path / "nodes.yaml"
    file.write_text(nodes["data"][option.removeprefix("/etc/dirtune/")])
    (group,) = cluster["workerGroupSpecs"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    node = Node(float(limits["cpu"]), float(limits["nvidia.com/gpu"]))
    assert read_node_types(file) == (NodeType(group["groupName"], node, group["maxReplicas"]),)


def test_every_node_names_an_image_of_its_own(cluster: dict[str, Any]) -> None:
    """Without one Ray takes an image whose Python and driver are too old for the pinned packages."""
    images = {name: kind["node_config"]["ImageId"] for name, kind in cluster["available_node_types"].items()}
    assert all("Ubuntu 24.04" in image for image in images.values())
    assert f"driver {get_lowest_driver(PINNED_CUDA)} or later" in images["gpu_worker"]


def test_the_commands_of_the_manifest_are_commands_of_dirtune(ray_job: dict[str, Any]) -> None:
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    seen = []
    for line in ray_job["entrypoint"].split(" && "):
        program, verb, *arguments = shlex.split(line)
        assert program == "dirtune"
        parsed = verbs[verb].make_context(verb, arguments).params
        assert (parsed["data"], parsed["results"]) == ("/shared/data", "/shared/results")
        seen.append(verb)
    assert seen == ["doctor", "sweep"]
