"""No source may call what runs data as code. Run with `pytest tests/test_untrusted.py`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from dirtune.io import yamlfile

ROOT = Path(__file__).resolve().parents[1]

PICKLES = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib", "jsonpickle"}
LOADERS = {"load", "loads", "Unpickler", "open"}
BUILT_IN = {"eval", "exec", "compile", "__import__"}
NEVER = {
    "read_pickle",
    "unsafe_load",
    "full_load",
    "load_all",
    "unsafe_load_all",
    "popen",
    "system",
    "run_path",
    "run_module",
    "exec_module",
    "unpack_archive",
    "getoutput",
    "getstatusoutput",
}

# Every entry has the reason why no other user can write what is loaded there.
ALLOWED = {
    (
        "dirtune/tuning/execution/tune_run.py",
        "cloudpickle.loads",
    ): "an error that the driver's own Tune wrote into a "
    "temporary folder that no other user can open; it came from a worker of this sweep, as everything that Ray transfers",
    ("dirtune/plugins.py", "spec.loader.exec_module"): "a plug-in: code that the user has named, or allowed to run",
    (
        "dirtune/data/fork_server.py",
        "runpy.run_path",
    ): "the script that this session's own Ray names, through a socket in a temporary folder that no other user can open",
    ("benchmarks/inline_sweeps.py", "pickle.loads"): "the result of a fork of this process, through a pipe of its own",
    ("dirtune/io/yamlfile.py", "yaml.load"): "with a loader that is a SafeLoader; see below",
}


def list_sources() -> list[Path]:
    folders = ("dirtune", "pipelines", "search_spaces", "benchmarks")
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def find_dangerous_calls(text: str) -> Iterator[str]:
    """Find the calls of a source that could run data as code."""
    tree = ast.parse(text)
    yield from _find_loader_imports(tree)
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        if _is_dangerous(name.rpartition("."), call):
            yield name


def _find_loader_imports(tree: ast.AST) -> Iterator[str]:
    """Find imports such as `from pickle import loads`, after which a call has no module name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PICKLES:
            yield from (f"{node.module}.{each.name}" for each in node.names if each.name in LOADERS)


def _is_dangerous(name: tuple[str, str, str], call: ast.Call) -> bool:
    owner, _, function = name
    module = owner.rpartition(".")[2]
    if function in NEVER or (module in PICKLES and function in LOADERS):
        return True
    settings = {word.arg: ast.unparse(word.value) for word in call.keywords}
    if any(settings.get(name, "False") != "False" for name in ("trust_remote_code", "shell")):
        return True
    if settings.get("allow_pickle") == "True" or (not owner and function in BUILT_IN):
        return True
    if function in {"eval", "query"} and module in {"pd", "pandas", "frame", "df"}:
        # Expressions of pandas can call functions.
        return True
    if function == "load" and module == "torch":
        return settings.get("weights_only") != "True"
    if function == "load" and module in {"np", "numpy"}:
        return settings.get("allow_pickle") != "False"
    return function == "load" and module in {"yaml", "hub", "jit"}


@pytest.mark.slow
def test_no_source_runs_data_as_code() -> None:
    found = [
        (file, name)
        for path in list_sources()
        for file in [str(path.relative_to(ROOT))]
        for name in find_dangerous_calls(path.read_text())
        if (file, name) not in ALLOWED
    ]
    assert not found


def test_every_allowed_call_exists_once() -> None:
    for file, name in ALLOWED:
        assert [*find_dangerous_calls((ROOT / file).read_text())].count(name) == 1


def test_studies_and_manifests_are_read_by_a_safe_loader() -> None:
    loaders = [loader for each in yamlfile._LOADERS.values() for loader in each]
    assert len(loaders) >= 2
    assert all(issubclass(loader, yaml.constructor.SafeConstructor) for loader in loaders)
    text = "name: !!python/object/apply:os.getcwd []"
    with pytest.raises(ValueError, match=r"where:1: not readable as YAML \(could not determine a constructor"):
        yamlfile.parse_yaml(text, where="where")


@pytest.mark.parametrize(
    "text",
    [
        "import pickle; pickle.load(f)",
        "from ray import cloudpickle; cloudpickle.loads(b)",
        "from pickle import loads",
        "import pickle as p\nfrom pickle import Unpickler",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "torch.load(f, weights_only=ask)",
        "np.load(f)",
        "np.load(f, allow_pickle=True)",
        "open_it(f, allow_pickle=True)",
        "pd.read_pickle(f)",
        "yaml.load(t, Loader=L)",
        "yaml.unsafe_load(t)",
        "torch.hub.load(r)",
        "eval(t)",
        "exec(t)",
        "__import__(t)",
        "os.system(t)",
        "subprocess.run(t, shell=True)",
        "SentenceTransformer(n, trust_remote_code=True)",
        "frame.query(t)",
        "shutil.unpack_archive(f)",
    ],
)
def test_a_dangerous_call_is_found(text: str) -> None:
    assert [*find_dangerous_calls(text)]


@pytest.mark.parametrize(
    "text",
    [
        "model.eval()",
        "json.loads(t)",
        "torch.load(f, weights_only=True)",
        "yaml.safe_load(t)",
        "np.load(f, allow_pickle=False)",
        "subprocess.run([t])",
        "re.compile(t)",
        "query(t)",
    ],
)
def test_a_harmless_call_is_not_found(text: str) -> None:
    assert not [*find_dangerous_calls(text)]
