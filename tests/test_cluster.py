"""`cluster.yaml` is what `ray up` accepts. Run with `pytest tests/test_cluster.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    return config


def test_it_follows_the_schema_of_ray(cluster: dict[str, Any]) -> None:
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(cluster, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**cluster, "max_workers": "many"}, schema)


def test_the_head_is_a_known_node_type_and_workers_scale_from_none(cluster: dict[str, Any]) -> None:
    types = cluster["available_node_types"]
    assert cluster["head_node_type"] in types
    workers = [kind for name, kind in types.items() if name != cluster["head_node_type"]]
    assert all(
        kind["min_workers"] == 0 < kind["max_workers"] <= cluster["max_workers"] for kind in workers
    )


def test_every_node_asks_for_the_token_and_the_dashboard_stays_on_loopback(
    cluster: dict[str, Any],
) -> None:
    starts = [
        line
        for key in ("head_start_ray_commands", "worker_start_ray_commands")
        for line in cluster[key]
        if "ray start" in line
    ]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in line for line in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
