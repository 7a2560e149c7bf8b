"""The tutorials, as a reader runs them. Run with `pytest tests/test_tutorials.py`.

Every file that a page shows is written, and every command and cell runs in the order of the page. The quick test runs them in this process
with shorter trainings; `pytest -m soak` runs each page unchanged in a shell without network, and looks for the output that the page shows.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dirtune import cli
from dirtune.io.yamlfile import dump_yaml, parse_yaml
from dirtune.study import files, starter
from dirtune.tuning import recommend
from tests.plugin_sources import forgotten_plugins
from tests.test_documentation import ROOT, TUTORIALS, lighten, read_blocks, shorten

__all__ = ["forgotten_plugins"]
# They start a Ray cluster of their own.
ON_A_CLUSTER = ("cluster", "slurm")
FILE = re.compile(r"# ([\w.]+\.(?:py|yaml|sh))\n(.*)", re.DOTALL)
LANGUAGES = {"bash", "python", "yaml", "sh", "text", "console"}
"""`text` is output; `console` is for other machines, and not run."""
SLURM = {
    "scontrol": "echo 127.0.0.1",
    # The options in front of the command are Slurm's own.
    "srun": 'while [[ "$1" == -* ]]; do shift; done; exec "$@"',
    "sbatch": 'SLURM_JOB_NODELIST=localhost SLURM_NNODES=1 SLURM_CPUS_PER_TASK=2 exec bash "$1"',
}
"""Stand-ins for the commands of Slurm: one node, on which a script runs at once."""
NAMESPACE = ["unshare", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
"""A shell of its own: no network but the loopback, and `ray stop` reaches the processes of the page alone."""
LOOPBACK = "ip link set lo up"
CELLS = """
import json
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance(colors="nocolor", history_length=0)
for cell in json.load(open("cells.json")):
    shell.run_cell(cell).raise_error()
"""


def find_file(language: str, text: str) -> tuple[str, str] | None:
    """Return name and content of a file that a block shows; None if it shows none."""
    found = FILE.fullmatch(text + "\n")
    return None if found is None or language in {"bash", "text", "console"} else (found[1], found[2])


def write_short_file(name: str, content: str) -> None:
    """Write a file of a page; a study with shorter trainings, fewer of them, and one worker."""
    if name.endswith(".yaml"):
        study = parse_yaml(content, where=name)
        lighten(study["base"])
        study |= {"seeds": study["seeds"][:1], "resources": {"concurrent": 1}}
        if "search" in study:
            study["search"] |= {"trials": 2, "scheduler": None}
        content = dump_yaml(study)
    Path(name).write_text(content)


def run_line(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Run a command of a page: of dirtune in this process, another one in a shell."""
    words = shlex.split(line, comments=True)
    if not words:
        return
    if words[0] != "dirtune":
        subprocess.run(["bash", "-c", line], check=True, env=make_environment(), stdout=subprocess.DEVNULL)
        return
    words, output = (words[:-2], Path(words[-1])) if words[-2] == ">" else (words, None)
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as end:
            cli.main()
    printed = capsys.readouterr()
    assert end.value.code == 0, f"{line}: {printed.err}"
    assert printed.out.strip(), line
    if output is not None:
        output.write_text(printed.out)


def make_environment(*folders: Path) -> dict[str, str]:
    """Return an environment in which `python` and `dirtune` are those of this process."""
    path = os.pathsep.join([*map(str, folders), str(Path(sys.executable).parent), os.environ["PATH"]])
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {**plain, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "80"}


@pytest.mark.soak
@pytest.mark.usefixtures("forgotten_plugins", "ray_session")
@pytest.mark.parametrize(
    "page", [page for page in TUTORIALS if page.stem not in ON_A_CLUSTER], ids=lambda page: page.stem
)
def test_every_step_of_a_tutorial_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    quickstart = shorten("quickstart", tmp_path)
    monkeypatch.setattr(files, "list_shipped_studies", lambda wanted=None: {"quickstart": quickstart})
    for module, values in {starter: {"EPOCHS": 1, "STEPS": 2}, recommend: {"MAX_SETTINGS": 1, "MAX_SEEDS": 3}}.items():
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)
    names: dict[str, object] = {"__name__": "cell"}
    for language, text in read_blocks(page):
        assert language in LANGUAGES
        if (file := find_file(language, text)) is not None:
            write_short_file(*file)
        elif language == "bash":
            for line in text.splitlines():
                run_line(line, capsys)
        elif language == "python":
            exec(compile(text, page.name, "exec"), names)


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_says_what_one_gets_and_what_is_next(page: Path) -> None:
    text = page.read_text()
    assert [part for part in ("**At the end** ", "\n## Next\n") if part not in text] == []
    assert f"](tutorials/{page.name})" in (ROOT / "docs/tutorials.md").read_text()


@pytest.mark.soak
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_gives_what_it_shows(page: Path, tmp_path: Path) -> None:
    output = run_script(make_script(page), tmp_path)
    printed = [reduce_line(line) for line in output.splitlines()]
    shown = [line for language, text in read_blocks(page) if language == "text" for line in text.splitlines()]
    assert [line for line in shown if not is_printed(line, printed)] == [], output


@pytest.mark.soak
def test_a_job_on_slurm_ends_before_its_limit_and_goes_on_when_it_is_submitted_again(tmp_path: Path) -> None:
    before, _, _ = make_script(ROOT / "docs/tutorials/slurm.md").partition("\nsbatch")
    script = f"""{before.replace("epochs: 2", "epochs: 20")}
sbatch first.sh &
while ! ls results/first/trials/*/progress.json 2> /dev/null; do sleep 0.2; done
kill -TERM $!
wait $! || true
ls results/first/trials/*/checkpoint/state.pt
sbatch first.sh
"""
    output = run_script(script, tmp_path)
    assert "Stopped by `dirtune stop` when every running trial had finished its epoch." in output
    assert "4 complete; 0 reused" in output


def run_script(script: str, folder: Path) -> str:
    """Run a script in a folder, with stand-ins for Slurm, and return what it prints."""
    if subprocess.run([*NAMESPACE, *LOOPBACK.split()], capture_output=True, check=False).returncode:
        pytest.skip("this user may not make a name space for the network")
    for name in ("bin", "page"):
        (folder / name).mkdir()
    for name, command in {**SLURM, "dirtune": f'exec {sys.executable} -m dirtune.cli "$@"'}.items():
        (folder / "bin" / name).write_text(f"#!/bin/bash\n{command}\n")
        (folder / "bin" / name).chmod(0o755)
    (folder / "page.sh").write_text(script)
    done = subprocess.run(
        [*NAMESPACE, "bash", str(folder / "page.sh")],
        cwd=folder / "page",
        env=make_environment(folder / "bin") | {"HOME": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    (folder / "output.txt").write_text(done.stdout)
    assert done.returncode == 0, done.stdout
    return done.stdout


def make_script(page: Path) -> str:
    """Return a shell script that writes the files of a page and runs its commands and cells."""
    lines, cells = ["set -e", LOOPBACK], []
    for language, text in read_blocks(page):
        if (file := find_file(language, text)) is not None:
            lines.append(f"cat > {file[0]} <<'END_OF_FILE'\n{file[1]}END_OF_FILE")
        elif language == "bash":
            lines.append(text)
        elif language == "python":
            cells.append(text)
    if cells:
        lines += [f"cat > cells.json <<'END_OF_FILE'\n{json.dumps(cells)}\nEND_OF_FILE"]
        lines += [f"cat > cells.py <<'END_OF_FILE'{CELLS}END_OF_FILE", "python cells.py"]
    return "\n".join(lines) + "\n"


def is_printed(shown: str, printed: list[str]) -> bool:
    """Return True if a line of a page is one of the lines that were printed; `...` stands for a rest."""
    start, shortened, _ = shown.partition("...")
    wanted = reduce_line(start)
    return any(line.startswith(wanted) if shortened else line == wanted for line in printed)


def reduce_line(line: str) -> str:
    """Return a line of output without what differs between machines: numbers, what follows from them, and blanks."""
    line = re.sub(r"\b(helps|hurts|same|open)\b.*", "WORD", line)
    return re.sub(r"[-+]?\d[\d.,e]*\*?", "#", " ".join(line.replace("\u2500", " ").split()))
