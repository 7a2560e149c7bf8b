"""Run with `pytest tests/cluster/test_gpu_health.py`: outputs of nvidia-smi in its format, none of them from a GPU of ours."""

from __future__ import annotations

import stat
from pathlib import Path
from xml.etree.ElementTree import ParseError

import pytest

from dirtune.cluster.gpu_health import GpuHealth, parse_gpu_health, read_gpu_health

HEAD = """<?xml version="1.0" ?>
<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">
<nvidia_smi_log>
\t<timestamp>Mon Nov 30 10:00:00 2026</timestamp>
\t<driver_version>580.65.06</driver_version>
\t<cuda_version>13.0</cuda_version>
\t<attached_gpus>1</attached_gpus>
"""
# Since Hopper, with drivers since 550
HOPPER = """\t<gpu id="00000000:19:00.0">
\t\t<product_name>NVIDIA H200</product_name>
\t\t<product_architecture>Hopper</product_architecture>
\t\t<minor_number>0</minor_number>
\t\t<gpu_recovery_action>{action}</gpu_recovery_action>
\t\t<compute_mode>{mode}</compute_mode>
\t\t<ecc_mode>
\t\t\t<current_ecc>Enabled</current_ecc>
\t\t\t<pending_ecc>Enabled</pending_ecc>
\t\t</ecc_mode>
\t\t<ecc_errors>
\t\t\t<volatile>
\t\t\t\t<sram_correctable>2</sram_correctable>
\t\t\t\t<sram_uncorrectable_parity>{parity}</sram_uncorrectable_parity>
\t\t\t\t<sram_uncorrectable_secded>0</sram_uncorrectable_secded>
\t\t\t\t<dram_correctable>7</dram_correctable>
\t\t\t\t<dram_uncorrectable>{dram}</dram_uncorrectable>
\t\t\t</volatile>
\t\t\t<aggregate>
\t\t\t\t<sram_correctable>2</sram_correctable>
\t\t\t\t<sram_uncorrectable_parity>40</sram_uncorrectable_parity>
\t\t\t\t<sram_uncorrectable_secded>0</sram_uncorrectable_secded>
\t\t\t\t<dram_correctable>7</dram_correctable>
\t\t\t\t<dram_uncorrectable>50</dram_uncorrectable>
\t\t\t\t<sram_threshold_exceeded>No</sram_threshold_exceeded>
\t\t\t</aggregate>
\t\t\t<channel_repair_pending>No</channel_repair_pending>
\t\t\t<tpc_repair_pending>No</tpc_repair_pending>
\t\t</ecc_errors>
\t\t<retired_pages>
\t\t\t<pending_blacklist>N/A</pending_blacklist>
\t\t\t<pending_retirement>N/A</pending_retirement>
\t\t</retired_pages>
\t\t<remapped_rows>
\t\t\t<remapped_row_corr>0</remapped_row_corr>
\t\t\t<remapped_row_unc>0</remapped_row_unc>
\t\t\t<remapped_row_pending>{pending}</remapped_row_pending>
\t\t\t<remapped_row_failure>{failure}</remapped_row_failure>
\t\t</remapped_rows>
\t</gpu>
"""
# Before Ampere: counts by kind of error, pages instead of rows
VOLTA = """\t<gpu id="00000000:3B:00.0">
\t\t<product_name>Tesla V100-SXM2-32GB</product_name>
\t\t<minor_number>1</minor_number>
\t\t<compute_mode>Default</compute_mode>
\t\t<ecc_errors>
\t\t\t<volatile>
\t\t\t\t<single_bit>
\t\t\t\t\t<device_memory>0</device_memory>
\t\t\t\t\t<total>0</total>
\t\t\t\t</single_bit>
\t\t\t\t<double_bit>
\t\t\t\t\t<device_memory>1</device_memory>
\t\t\t\t\t<total>1</total>
\t\t\t\t</double_bit>
\t\t\t</volatile>
\t\t</ecc_errors>
\t\t<retired_pages>
\t\t\t<pending_blacklist>Yes</pending_blacklist>
\t\t\t<pending_retirement>Yes</pending_retirement>
\t\t</retired_pages>
\t\t<remapped_rows>N/A</remapped_rows>
\t</gpu>
"""
# Of a card without error correction
GEFORCE = """\t<gpu id="00000000:01:00.0">
\t\t<product_name>NVIDIA GeForce RTX 4090</product_name>
\t\t<minor_number>0</minor_number>
\t\t<compute_mode>Default</compute_mode>
\t\t<ecc_errors>
\t\t\t<volatile>
\t\t\t\t<sram_correctable>N/A</sram_correctable>
\t\t\t\t<sram_uncorrectable_parity>N/A</sram_uncorrectable_parity>
\t\t\t\t<dram_uncorrectable>N/A</dram_uncorrectable>
\t\t\t</volatile>
\t\t</ecc_errors>
\t\t<retired_pages>
\t\t\t<pending_retirement>N/A</pending_retirement>
\t\t</retired_pages>
\t\t<remapped_rows>N/A</remapped_rows>
\t</gpu>
"""
USUAL = {"action": "None", "mode": "Default", "parity": "0", "dram": "0", "pending": "No", "failure": "No"}


def make_output(*gpus: str) -> str:
    return f"{HEAD}{''.join(gpus)}</nvidia_smi_log>\n"


def test_a_healthy_gpu_has_no_fault() -> None:
    found = parse_gpu_health(make_output(HOPPER.format(**USUAL), GEFORCE))
    assert found == (
        GpuHealth(number=0, name="NVIDIA H200"),
        GpuHealth(number=1, name="NVIDIA GeForce RTX 4090"),
    )


@pytest.mark.parametrize(
    ("changes", "name", "value"),
    [
        ({"action": "Reset"}, "action", "Reset"),
        ({"mode": "Exclusive_Process"}, "compute_mode", "Exclusive_Process"),
        ({"parity": "3", "dram": "4"}, "uncorrectable", 7),
        ({"pending": "Yes"}, "waits_for_reset", True),
        ({"failure": "Yes"}, "is_beyond_repair", True),
    ],
)
def test_each_fault_is_found(changes: dict[str, str], name: str, value: object) -> None:
    (found,) = parse_gpu_health(make_output(HOPPER.format(**{**USUAL, **changes})))
    assert found == GpuHealth(**{"number": 0, "name": "NVIDIA H200", name: value})  # type: ignore[arg-type]


def test_errors_are_counted_before_ampere() -> None:
    (found,) = parse_gpu_health(make_output(VOLTA))
    assert found == GpuHealth(number=0, name="Tesla V100-SXM2-32GB", uncorrectable=1, waits_for_reset=True)


def test_what_is_no_output_of_nvidia_smi_has_no_health(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ParseError):
        parse_gpu_health("Failed to initialize NVML: Driver/library version mismatch")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_gpu_health() == ()
    program = tmp_path / "nvidia-smi"
    (tmp_path / "output").write_text(make_output(VOLTA))
    for text, count in {
        "echo no XML": 0,
        "exit 9": 0,
        f'while read -r line; do echo "$line"; done < {tmp_path}/output': 1,
    }.items():
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        assert len(read_gpu_health()) == count
