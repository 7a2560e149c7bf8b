"""Run with `pytest tests/data/test_ray_data.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.ray

PROGRAM = """
import json
import pyarrow as pa
import ray.data
from ray.util import list_named_actors
from dirtune.data.session import ray_session

def double(batch):
    return pa.table({"x": [2 * value for value in batch["x"].to_pylist()]})

with ray_session():
    table = pa.table({"x": list(range(6))})
    passed = ray.data.from_arrow(table, override_num_blocks=3).map_batches(double, batch_format="pyarrow")
    found = sorted(row["x"] for row in passed.iter_rows())
    print(json.dumps([found, list_named_actors(all_namespaces=True)]))
"""


def test_a_pass_of_a_local_ray_needs_no_processes_beside_its_workers(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "[[0, 2, 4, 6, 8, 10], []]\n", done.stderr


SHARED = """
import json, time
import ray
import ray.data
from ray.data._internal.execution.resource_manager import ResourceManager
from dirtune.data.ray_data import queue_all_tasks, run_short_passes

def wait(row):
    # Longer than some rounds
    time.sleep(0.2)
    return row

limits, get_limits = [], ResourceManager.get_global_limits

def record(self):
    limits.append(get_limits(self))
    return limits[-1]

ResourceManager.get_global_limits = record
ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
with run_short_passes(is_local=False):
    assert ray.data.range(4, override_num_blocks=4).map(wait).materialize().count() == 4
with queue_all_tasks():
    inside = ray.data.range(4)
reserved = [each.map(wait).context.op_resource_reservation_enabled for each in (inside, ray.data.range(4))]
print(json.dumps([limits[0].cpu, limits[-1].cpu, ResourceManager.GLOBAL_LIMITS_UPDATE_INTERVAL_S, reserved]))
"""


def test_all_cpus_are_known_in_the_first_second_of_a_pass_and_queued_tasks_have_no_limits(tmp_path: Path) -> None:
    """Ray Data asks without waiting: its limits are zero until it looks for the answer."""
    done = subprocess.run([sys.executable, "-c", SHARED], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.splitlines()[-1:] == ["[0.0, 2.0, 1, [false, true]]"], done.stderr
