"""Health of the GPUs as the NVIDIA driver counts it: memory errors, repairs that wait for a reset, and who may use a GPU.

Read from `nvidia-smi -q -x`, whose elements differ between generations of GPUs and drivers; what is missing or "N/A" counts as not
known.
"""

import subprocess
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass

COMMAND = ("nvidia-smi", "-q", "-x")
TIMEOUT = 30.0
"""Seconds; on a node whose driver hangs, nvidia-smi hangs as well."""


@dataclass(frozen=True, kw_only=True)
class GpuHealth:
    """Health of one GPU."""

    number: int
    """As nvidia-smi counts."""
    name: str
    compute_mode: str = "Default"
    """"Default", "Exclusive_Process" or "Prohibited"."""
    uncorrectable: int = 0
    """Memory errors that could not be corrected since the driver was loaded."""
    waits_for_reset: bool = False
    """A repair of its memory waits for a reset."""
    is_beyond_repair: bool = False
    """Its memory could not be repaired."""
    action: str = ""
    """What the driver asks for, such as "Reset"; empty if nothing, or if the driver does not say."""


def read_gpu_health() -> tuple[GpuHealth, ...]:
    """Return the health of this machine's GPUs; nothing if there is no nvidia-smi, or if it fails."""
    try:
        ended = subprocess.run(
            COMMAND, capture_output=True, text=True, timeout=TIMEOUT, check=True, stdin=subprocess.DEVNULL
        )
        return parse_gpu_health(ended.stdout)
    except (OSError, subprocess.SubprocessError, ElementTree.ParseError):
        return ()


def parse_gpu_health(text: str) -> tuple[GpuHealth, ...]:
    """Return the health of the GPUs from the output of `nvidia-smi -q -x`.

    Raises:
        ParseError: it is no XML.
    """
    return tuple(
        GpuHealth(
            number=number,
            name=gpu.findtext("product_name", "GPU"),
            compute_mode=gpu.findtext("compute_mode", "Default"),
            uncorrectable=_count_uncorrectable(gpu),
            waits_for_reset=_has(gpu, "remapped_rows/remapped_row_pending")
            or _has(gpu, "retired_pages/pending_retirement")
            or _has(gpu, "ecc_errors/channel_repair_pending"),
            is_beyond_repair=_has(gpu, "remapped_rows/remapped_row_failure")
            or _has(gpu, "ecc_errors/unrepairable_memory"),
            action="" if (action := gpu.findtext("gpu_recovery_action", "None")) in ("None", "N/A") else action,
        )
        for number, gpu in enumerate(ElementTree.fromstring(text).iter("gpu"))
    )


def _count_uncorrectable(gpu: ElementTree.Element) -> int:
    """Return the uncorrectable errors since the driver was loaded, by place; before Ampere their total."""
    places = [each for each in gpu.iterfind("ecc_errors/volatile/*") if "uncorrectable" in each.tag]
    counts = [each.text or "" for each in places] or [gpu.findtext("ecc_errors/volatile/double_bit/total", "")]
    return sum(int(count) for count in counts if count.isdigit())


def _has(gpu: ElementTree.Element, path: str) -> bool:
    return gpu.findtext(path, "No") == "Yes"
