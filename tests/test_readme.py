"""What the README says is run: its commands in their order, its study, its loss. Run with `pytest tests/test_readme.py`."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from dirtune import cli
from dirtune.batch import TermInputs
from dirtune.study.resolve import resolve

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    found, lines, fence = [], [], None
    for line in TEXT.splitlines():
        if not line.startswith("```"):
            lines.append(line)
        elif fence is None:
            fence, lines = line[3:], []
        else:
            found += ["\n".join(lines)] if fence == language else []
            fence = None
    return found


def commands() -> list[str]:
    lines = [line.split("  #")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line]


def test_every_path_in_the_readme_exists() -> None:
    named = re.findall(r"`((?:dirtune|pipelines|tests|search_spaces|benchmarks)/[\w/.]*)`", TEXT)
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", TEXT)
    assert len(named) > 8
    assert pictures
    assert not [path for path in [*named, *pictures] if not (ROOT / path).exists()]


def test_every_file_of_the_map_exists() -> None:
    (layout,) = [block for block in blocks("") if block.startswith("dirtune/\n")]
    named = 0
    for line in layout.splitlines():
        folder = ROOT / "dirtune" if line.startswith("  ") else ROOT
        for name in re.split(r"\s{2,}", line.strip())[0].split():
            assert (folder / name).exists(), name
            named += 1
    assert named > 15


def test_the_goals_of_make_exist() -> None:
    goals = [line.split()[1] for line in commands() if line.startswith("make ")]
    assert goals == ["demo", "test"]
    for goal in goals:
        subprocess.run(["make", "--dry-run", goal], cwd=ROOT, check=True, capture_output=True)


def sentence_pairs(folder: Path) -> None:
    """A small STS-B-DIR in the real format."""
    header = [
        "index",
        "genre",
        "filename",
        "year",
        "old_index",
        "source1",
        "source2",
        "sentence1",
        "sentence2",
        "score",
    ]
    for split, rows in (("train", 40), ("dev", 10), ("test", 10)):
        lines = ["\t".join(header)]
        for row in range(rows):
            words = f"A {split} man plays {row} songs.", f"Somebody plays song {row * 7 % 11}."
            lines.append(
                "\t".join([str(row), "news", "f", "2012", str(row), "a", "b", *words, f"{row * 5 / rows:.3f}"])
            )
        (folder / f"{split}_new.tsv").write_text("\n".join(lines) + "\n")


@pytest.mark.ray
def test_every_command_runs_in_the_order_of_the_readme(
    ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    shorter = yaml.safe_load(blocks("yaml")[0]) | {"seeds": [0], "search": {"trials": 4}}
    shorter["base"]["recipe"]["epochs"] = 1
    Path("my_study.yaml").write_text(yaml.safe_dump(shorter))
    Path("DIR").mkdir()
    sentence_pairs(Path("DIR"))
    rows = [f"{row % 7},{row % 11},{row * 0.4:.1f}" for row in range(400)]
    Path("concrete.csv").write_text("\n".join(["cement,water,strength", *rows]) + "\n")
    verbs = [shlex.split(line)[1:] for line in commands() if line.startswith("dirtune ")]
    assert {verb for verb, *_ in verbs} == {
        "ingest",
        "inspect",
        "plan",
        "sweep",
        "status",
        "resume",
        "train",
        "table",
        "plot",
        "query",
        "list",
        "compact",
        "report",
        "tensorboard",
        "doctor",
    }
    for arguments in verbs:
        monkeypatch.setattr(sys, "argv", ["dirtune", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        printed = capsys.readouterr()
        # 1: this machine is not fit
        fine = {0, 1} if arguments[0] == "doctor" else {0}
        assert end.value.code in fine, f"{arguments}: {printed.err}"
        assert printed.out.strip(), arguments
    assert (tmp_path / "figures/quickstart-regions.png").stat().st_size > 10_000
    assert (tmp_path / "results/quickstart/results/trials").is_dir()


def test_the_study_of_the_readme_resolves() -> None:
    (study,) = blocks("yaml")
    resolved = resolve(yaml.safe_load(study.replace("2e-3", "0.002")), where="README.md")
    assert [arm.name for arm in resolved.arms] == ["vanilla", "conr"]


def test_the_loss_of_the_readme_is_a_term(tmp_path: Path) -> None:
    (source,) = blocks("python")
    # Pydantic reads the source again, for the documentation of the fields
    file = tmp_path / "spread.py"
    file.write_text(source.replace("from __future__ import annotations\n", ""))
    namespace: dict[str, object] = {"__name__": "readme"}
    exec(compile(file.read_text(), file, "exec"), namespace)
    spread = namespace["Spread"](weight=0.5)  # type: ignore[operator]
    z = torch.nn.functional.normalize(torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    bins = torch.tensor([0, 0, 1, 1, 2, 2])
    inputs = TermInputs(
        representations=z,
        labels=bins.float(),
        label_bins=bins,
        predictions=bins.float(),
        weights=torch.ones(6),
        samples=torch.arange(6),
        num_views=1,
        label_range=2.0,
    )
    pairs = [(i, j) for i in range(6) for j in range(6) if bins[i] != bins[j]]
    expected = sum(float(z[i] @ z[j]) for i, j in pairs) / len(pairs)
    assert float(spread(inputs)) == pytest.approx(expected, abs=1e-6)
