"""README and documentation: every command, study and loss in them runs. Run with `pytest tests/test_documentation.py`."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from dirtune import cli
from dirtune.study import files, starter
from dirtune.study.resolve import resolve
from dirtune.tuning import recommend
from tests.plugin_sources import forgotten_plugins

__all__ = ["forgotten_plugins"]
ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
# In the order in which their commands are run
PAGES = [README, *(ROOT / "docs" / f"{name}.md" for name in ["running", "studies", "data", "results", "cluster"])]
PAGES += sorted(set((ROOT / "docs").glob("*.md")) - set(PAGES))
TUTORIALS = sorted((ROOT / "docs/tutorials").glob("*.md"))
"""Their commands are run by `test_tutorials.py`."""


def read_blocks(page: Path) -> list[tuple[str, str]]:
    """Return the language and the text of every fenced block, in order."""
    found, lines, fence = [], [], None
    for line in page.read_text().splitlines():
        if not line.startswith("```"):
            lines.append(line)
        elif fence is None:
            fence, lines = line[3:], []
        else:
            found.append((fence, "\n".join(lines)))
            fence = None
    return found


def blocks(language: str, page: Path) -> list[str]:
    """Return the fenced blocks of one language, in order."""
    return [text for each, text in read_blocks(page) if each == language]


def write_named_blocks(page: Path, folder: Path) -> None:
    """Write the Python and YAML blocks of a page that begin with the name of a file."""
    for block in [*blocks("python", page), *blocks("yaml", page)]:
        name, _, content = block.partition("\n")
        if re.fullmatch(r"# [\w.]+\.(py|yaml)", name):
            (folder / name[2:]).write_text(content + "\n")


def commands() -> list[str]:
    lines = [
        line.split("  #")[0].strip() for page in PAGES for block in blocks("bash", page) for line in block.splitlines()
    ]
    return [line for line in lines if line]


def test_the_readme_is_one_screen() -> None:
    assert len(README.read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", [*PAGES, *TUTORIALS], ids=lambda page: page.name)
def test_every_path_and_link_exists(page: Path) -> None:
    text = page.read_text()
    named = re.findall(r"`((?:dirtune|pipelines|tests|search_spaces|benchmarks|docs)/[\w/.-]*)`", text)
    named += re.findall(r"python (benchmarks/\w+\.py)", text)
    linked = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    linked += re.findall(r'src="([^"]+)"', text)
    missing = [path for path in named if not (ROOT / path).exists()]
    missing += [link for link in linked if not (page.parent / link).exists()]
    assert not missing


def test_every_page_is_linked_from_the_readme() -> None:
    text = README.read_text()
    assert not [page.name for page in PAGES if page != README and f"(docs/{page.name})" not in text]


def test_every_folder_of_the_tree_exists() -> None:
    (layout,) = [block for block in blocks("", README) if block.startswith("dirtune/\n")]
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
    for goal in [*goals, "check", "soak", "lint", "bench"]:
        subprocess.run(["make", "--dry-run", goal], cwd=ROOT, check=True, capture_output=True)


def write_sentence_pairs(folder: Path) -> None:
    """Write a small STS-B-DIR in the real format."""
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


def write_scans(folder: Path) -> None:
    """Write three images, as of handwritten digits."""
    folder.mkdir()
    drawn = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(drawn.integers(0, 256, (32, 32), dtype=np.uint8)).save(folder / f"scan-{number}.png")


def lighten(base: dict[str, Any]) -> None:
    """Change the settings of all arms: one epoch, and on digits a tenth of the rows and a small network."""
    base["recipe"]["epochs"] = 1
    if base["data"]["name"] == "digits":
        base["data"]["fraction"] = 0.1
        base["model"]["encoder"]["channels"] = 2


def shorten(study: str, folder: Path) -> files.StudyFile:
    """Return a shipped study with one epoch, two seeds and one concurrent trial, written into a folder."""
    plain = files.find_study(study).read_plain()
    lighten(plain["base"])
    plain["seeds"] = plain["seeds"][:2]
    # Of more samples, t-SNE takes seconds.
    plain["representations"] = 40
    # One worker: another one would take longer to start than the trials.
    plain["resources"] = {**plain.get("resources", {}), "concurrent": 1}
    path = folder / f"{study}.yaml"
    path.write_text(yaml.safe_dump(plain, sort_keys=False))
    return files.StudyFile(path=path)


# Some two hundred commands, with sweeps
@pytest.mark.timeout(1500)
@pytest.mark.usefixtures("forgotten_plugins")
def test_every_command_runs_in_the_order_of_the_pages(
    ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (study,) = blocks("yaml", README)
    shorter = yaml.safe_load(study) | {"seeds": [0], "search": {"trials": 4}}
    lighten(shorter["base"])
    shorter["resources"] = {"concurrent": 1}
    Path("my_study.yaml").write_text(yaml.safe_dump(shorter))
    shipped = files.list_shipped_studies() | {name: shorten(name, tmp_path) for name in ["quickstart", "sts_b_accon"]}
    monkeypatch.setattr(files, "list_shipped_studies", lambda wanted=None: shipped)
    Path("DIR").mkdir()
    write_sentence_pairs(Path("DIR"))
    sizes = [f"{'MFI'[row % 3]},{row % 7},{row % 11},1,1,1,1,1,{1 + row % 29}\n" for row in range(600)]
    Path("DIR/abalone.data").write_text("".join(sizes))
    rows = [f"{row % 7},{row % 11},{row * 0.4:.1f}" for row in range(400)]
    Path("concrete.csv").write_text("\n".join(["cement,water,strength", *rows]) + "\n")
    write_named_blocks(ROOT / "docs/extending.md", Path())
    Path("my.csv").write_text("\n".join(["a,b,y", *rows]) + "\n")
    for module, values in {starter: {"EPOCHS": 2, "STEPS": 2}, recommend: {"MAX_SETTINGS": 1, "MAX_SEEDS": 2}}.items():
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)
    write_scans(Path("scans"))
    words = [shlex.split(line)[1:] for line in commands() if line.startswith("dirtune ")]
    # Without the redirection of a shell
    verbs = [each[: each.index(">")] if ">" in each else each for each in words]
    assert {verb for verb, *_ in verbs} == {
        "init",
        "recommend",
        "schema",
        "ingest",
        "inspect",
        "plan",
        "sweep",
        "status",
        "resume",
        "train",
        "table",
        "intervals",
        "check",
        "plot",
        "query",
        "list",
        "compact",
        "report",
        "log",
        "doctor",
        "predict",
        "export",
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
    (example,) = blocks("python", ROOT / "docs/models.md")
    exec(compile(example, "docs/models.md", "exec"), {"__name__": "example"})
    assert "sample_id" in capsys.readouterr().out
    assert (tmp_path / "predictions.csv").read_text().count("\n") == 4


def test_the_study_of_the_readme_resolves() -> None:
    (study,) = blocks("yaml", README)
    resolved = resolve(yaml.safe_load(study.replace("2e-3", "0.002")), where="README.md")
    assert [arm.name for arm in resolved.arms] == ["vanilla", "conr"]
