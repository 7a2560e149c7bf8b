"""The web view of results in this process. Run with `pytest tests/serve/test_app.py`."""

from __future__ import annotations

import json
import re
import secrets
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import boto3
import pytest
from starlette.testclient import TestClient

import dirtune
from dirtune import plugins
from dirtune.errors import InputError
from dirtune.io.storage import Storage
from dirtune.results.analysis.status import PROGRESS
from dirtune.results.figures import FIGURES
from dirtune.results.records.store import write_record
from dirtune.results.tables.comparison import TableRequest, compare
from dirtune.results.tables.render.grids import make_grids
from dirtune.serve import pages
from dirtune.serve.app import EXAMPLES, make_app
from tests.data.s3server import s3_server
from tests.plugin_sources import forgotten_plugins, write
from tests.results.record_factory import record, write_study
from tests.trackers.test_trackers import make_record

__all__ = ["forgotten_plugins"]
FIGURE = """
import dirtune
from dirtune.results.figures import FigureKind
from matplotlib.figure import Figure


def draw(data):
    figure = Figure()
    figure.subplots().plot([0, 1], [0, 1])
    return figure


dirtune.register.figure("dots")(FigureKind(lambda request: None, draw))
"""
EVIL = "<img src=x onerror=alert(1)>\"'&\u202e"
TOKEN = secrets.token_urlsafe(8)
VOID = {"meta", "link", "img", "input", "br"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("served")
    records = [make_record(arm, seed) for arm in ("vanilla", EVIL) for seed in (0, 1, 2)]
    records += [record("broken", 0, status="failed", error=EVIL)]
    arms = ["vanilla", EVIL, "broken"]
    folder = write_study(
        root,
        records,
        question=EVIL,
        reference="vanilla",
        seeds=[0, 1, 2],
        arms=arms,
        data={"name": "digits", "unit": "degrees"},
    )
    running = {
        "trial": {"arm": EVIL, "seed": 9, "epochs_run": 1, "epochs_planned": 4, "objective": 3.5},
        "config": {"a": EVIL},
    }
    folder.write(f"trials/running/{PROGRESS}", json.dumps({**running, "epochs": [{"val/all/mae": 3.5}]}).encode())
    folder.write("trials/broken-0/traceback.txt", f"Traceback of {EVIL}".encode())
    (root / "secret.txt").write_text("secret")
    return root


@pytest.fixture(scope="module")
def client(root: Path) -> Iterator[TestClient]:
    with TestClient(make_app(str(root), TOKEN)) as client:
        assert client.get(f"/?token={TOKEN}").status_code == 200
        yield client


class Page(HTMLParser):
    """A page whose elements are closed in order: anything else fails."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(client: TestClient, path: str, status: int = 200) -> Page:
    answer = client.get(path)
    assert answer.status_code == status, answer.text
    return Page(answer.text)


def test_every_request_needs_the_token_and_has_the_headers(root: Path, client: TestClient) -> None:
    stranger = TestClient(make_app(str(root), TOKEN), follow_redirects=False)
    for path in (
        "/",
        "/study/study",
        "/static/page.css",
        "/sql?sql=select+1",
        "/nowhere",
        "/?token=",
        f"/?token={TOKEN}x",
        "/?token=\u00e9",
    ):
        answer = stranger.get(path)
        assert (answer.status_code, "study" in answer.text) == (403, False), path
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    opened = stranger.get(f"//elsewhere.example/?token={TOKEN}")
    assert (opened.status_code, opened.headers["location"]) == (303, "/")
    assert {"HttpOnly", "SameSite=strict"} <= set(opened.headers["set-cookie"].split("; "))
    assert stranger.get("/").status_code == 200
    assert client.post("/").status_code == 405


PATHS = [
    "/",
    "/sql",
    "/study/study",
    "/study/study/progress",
    "/study/study/table",
    "/study/study/figures",
    "/study/study/trials",
]
PATHS += [
    "/study/study/trials/running",
    "/study/study/trials/broken-0",
    "/study/study/trials/vanilla-1",
    "/study/study/figures?kind=forest",
]


@pytest.mark.parametrize("path", PATHS)
def test_pages_show_untrusted_names_as_text_and_load_only_from_here(client: TestClient, path: str) -> None:
    page = read(client, path)
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        assert tag != "img" or str(attributes["src"]).startswith("data:image/svg+xml;base64,")
        for name in ("href", "src", "data-live", "action"):
            assert re.match(r"(/static/|/study/|/sql|/$|#|\?|data:)", attributes.get(name) or "/"), attributes
    assert "\u202e" not in page.text
    if not path.endswith("progress"):
        assert [tag for tag, _ in page.tags].count("h1") == 1
        # Everything that is filled in has a label, and images have a text.
        fields = [tag for tag, _ in page.tags if tag in {"select", "input", "textarea"}]
        assert len(fields) == [tag for tag, _ in page.tags].count("label")
        assert all(attributes.get("alt") for tag, attributes in page.tags if tag == "img")
        for _, attributes in page.tags:
            if str(attributes.get("href", attributes.get("src"))).startswith("/static/"):
                assert client.get(str(attributes.get("href") or attributes["src"])).status_code == 200


def test_the_table_is_that_of_the_command_and_follows_new_records(root: Path, client: TestClient) -> None:
    page = read(client, "/study/study/table?metric=mae&region=few&region=all&margin=5%25")
    request = TableRequest(studies=("study",), metrics=("mae",), regions=("few", "all"), margin="5%")
    grid, *_ = make_grids(compare(root, request))
    for row in grid.rows:
        for cell in row.cells:
            assert cell.text in page.text
    assert [each for each in ("Findings", "broken") if each not in page.text] == []

    before = client.get("/study/study/table").text
    assert client.get("/study/study/table").text == before
    write_record(Storage.open(root / "study"), make_record("vanilla", 1, minute=9))
    changed = record("vanilla", 2, 40.0)
    write_record(Storage.open(root / "study"), changed)
    assert client.get("/study/study/table").text != before


def test_figures_are_drawn_or_say_why_not(client: TestClient) -> None:
    for kind in ("regions", "training_curves&y=val/all/mae"):
        assert any(
            tag == "img"
            for tag, _ in read(client, f"/study/study/figures?kind={kind}&metric=mae&region=few&arm=vanilla").tags
        )
    page = read(client, "/study/study/figures?kind=curve", 400)
    assert "alert" in {attributes.get("role") for _, attributes in page.tags}
    options = {attributes.get("name") for tag, attributes in page.tags if tag == "select"}
    assert {"kind", "metric", "region", "arm", "reference", "split", "selection"} <= options
    assert all(f">{kind}</option>" in client.get("/study/study/figures").text for kind in FIGURES if kind != "regions")
    assert "unknown plot" in read(client, "/study/study/figures?kind=../../secret", 400).text


def test_trials_are_listed_and_shown_with_configuration_and_error(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = read(client, "/study/study/trials/vanilla-0")
    for text in ("terms.conr.omega", "test/few/mae", "train/loss", "vanilla, seed 0: complete"):
        assert text in trial.text
    broken = read(client, "/study/study/trials/broken-0")
    assert "Traceback of <img" in broken.text
    assert "broken, seed 0: failed" in broken.text
    assert "1/4" in read(client, "/study/study/progress").text
    monkeypatch.setattr(pages, "TRIALS_PER_PAGE", 3)
    shown = [
        re.findall(r"/trials/([^\"]+)\"", client.get(f"/study/study/trials?page={page}").text) for page in (1, 2, 3)
    ]
    assert [len(names) for names in shown] == [3, 3, 1]
    assert len({name for names in shown for name in names}) == 7
    only = read(client, "/study/study/trials?arm=broken&status=failed")
    assert "1 recorded trials" in only.text


def test_sql_reads_the_results_and_nothing_else(
    client: TestClient, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(sql: str, status: int = 200) -> str:
        answer = client.get("/sql", params={"sql": sql})
        assert answer.status_code == status, answer.text
        return Page(answer.text).text

    assert "7" in run("select count(*) as n from trials")
    for sql in EXAMPLES:
        run(sql)
    for sql in (
        f"select * from read_text('{root}/secret.txt')",
        "drop table trials",
        "insert into trials select * from trials",
        "update trials set seed = 7",
        "create table mine as select 1",
        f"copy trials to '{root}/written.csv'",
        f"attach '{root}/written.db'",
        "set memory_limit = '100GB'",
        "install httpfs",
        "pragma database_list; select 1",
        "select 1; select 2",
        "select nothing from trials",
    ):
        assert "secret\n" not in run(sql, 400)
    assert not list(root.glob("written*"))
    assert "(1,000,000 characters)" in run("select repeat('x', 1000000) as long")
    monkeypatch.setattr(pages, "SQL_MEMORY", 50_000_000)
    assert "needs more memory than 50,000,000 bytes" in run("select list(range) from range(100000000)", 400)
    monkeypatch.setattr(pages, "SQL_ROWS", 5)
    assert "Stopped at" in run("select unnest(range(9)) as n")
    monkeypatch.setattr(pages, "SQL_SECONDS", 0.2)
    assert "took longer than 0.2 seconds" in run(
        "select count(*) from range(1000000) a, range(1000000) b where a.range * b.range = 7", 400
    )


@pytest.mark.parametrize(
    "path",
    [
        "/study/nothing",
        "/study/..%2f..%2fetc",
        "/study/study/trials/..%2f..%2fsecret.txt",
        "/study/study/trials/nothing",
        "/static/..%2fpages.py",
        "/static/secret.txt",
        "/study/secret.txt/table",
        "/nowhere",
    ],
)
def test_other_paths_lead_nowhere(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert "secret</" not in answer.text


def test_forms_send_names_as_they_are(client: TestClient) -> None:
    """A name is shown with its control characters escaped, and sent without."""
    page = read(client, "/study/study/trials")
    assert EVIL in [attributes.get("value") for tag, attributes in page.tags if tag == "option"]
    assert "3 recorded trials" in client.get("/study/study/trials", params={"arm": EVIL}).text


def open_client(root: Path | str) -> TestClient:
    client = TestClient(make_app(str(root), TOKEN))
    client.get(f"/?token={TOKEN}")
    return client


def test_a_damaged_study_is_named_and_hides_no_other(tmp_path: Path) -> None:
    for name in ("good", "damaged"):
        write_study(tmp_path, [make_record("vanilla", 0)], name=name, arms=["vanilla"], seeds=[0])
    (tmp_path / "damaged/study.json").write_text("[")
    client = open_client(tmp_path)
    studies = client.get("/").text
    assert "/study/good" in studies
    assert "damaged/study.json" in studies
    assert "damaged/study.json" in read(client, "/study/damaged", 404).text

    file = tmp_path / "good/results/trials/vanilla-0.parquet"
    file.write_bytes(file.read_bytes()[:-9])
    for path in ("", "/table", "/trials", "/trials/vanilla-0"):
        assert "vanilla-0.parquet" in client.get(f"/study/good{path}").text, path


def test_a_study_that_is_removed_is_gone_from_the_next_page_on(tmp_path: Path) -> None:
    for name in ("kept", "removed"):
        write_study(tmp_path, [make_record("vanilla", 0)], name=name, arms=["vanilla"], seeds=[0])
    client = open_client(tmp_path)
    pages_of = ["", "/progress", "/table", "/figures", "/trials", "/trials/vanilla-0"]
    assert {client.get(f"/study/removed{page}").status_code for page in pages_of} == {200}
    shutil.rmtree(tmp_path / "removed")
    for page in pages_of:
        assert "known: kept" in read(client, f"/study/removed{page}", 404).text
    assert "/study/removed" not in client.get("/").text


@pytest.mark.slow
def test_results_in_an_object_store_are_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-store")
    with s3_server() as (_, address):
        boto3.client("s3", endpoint_url=f"http://{address}", region_name="us-east-1").create_bucket(Bucket="served")
        url = f"s3://name:planted@served/results?region=us-east-1&scheme=http&endpoint_override={address}"
        url = url.replace("name:planted", "key:secret-of-the-store")
        storage = Storage.open(url).get_folder("study")
        storage.write("study.json", json.dumps({"arms": ["vanilla"], "seeds": [0, 1]}).encode())
        for seed in (0, 1):
            write_record(storage, make_record("vanilla", seed))
        client = open_client(url)
        for path in (
            "/",
            "/study/study",
            "/study/study/table",
            "/study/study/figures",
            "/study/study/trials/vanilla-0",
        ):
            answer = client.get(path)
            assert answer.status_code == 200, answer.text
            assert "secret-of-the-store" not in answer.text
        assert "2 of 2 trials recorded" in client.get("/study/study/progress").text
        assert "2" in read(client, "/sql?sql=select+count(*)+from+trials").text


def test_a_storage_that_fails_is_a_sentence_without_keys(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("s3://key:planted@bucket/results: 503 Slow Down")

    monkeypatch.setattr(pages.studies, "open_studies", fail)
    page = read(client, "/study/study", 503)
    assert "The results cannot be read now: s3://bucket/results: 503 Slow Down" in page.text


def test_a_root_without_studies_says_so(tmp_path: Path) -> None:
    client = TestClient(make_app(str(tmp_path / "none"), TOKEN))
    assert "There is no study here yet" in client.get(f"/?token={TOKEN}").text


@pytest.mark.slow
def test_figures_of_a_recorded_file_are_listed_if_its_code_may_run(
    root: Path, tmp_path: Path, forgotten_plugins: None
) -> None:
    shutil.copytree(root / "study", tmp_path / "with_figure")
    shutil.copytree(root / "study", tmp_path / "without")
    (tmp_path / "with_figure/plugins").mkdir()
    write(tmp_path / "with_figure/plugins", FIGURE, "my_figures.py")
    sentence = "the figures of my_figures.py, recorded with this study, run code; read it, then pass --allow-plugins"
    with pytest.raises(InputError, match=f"plot: unknown plot; {sentence}"):
        dirtune.plot("with_figure", "dots", results=tmp_path, output=tmp_path / "dots.svg")

    def open_pages(**options: Any) -> dict[str, str]:
        """Return the page of both studies, and that of the figure."""
        with TestClient(make_app(str(tmp_path), TOKEN, **options)) as client:
            client.get(f"/?token={TOKEN}")
            names = ("with_figure/figures", "without/figures", "with_figure/figures?kind=dots")
            return {name: client.get(f"/study/{name}").text for name in names}

    refused = open_pages()
    assert sentence in refused["with_figure/figures"]
    assert "Not listed" not in refused["without/figures"]
    assert ">dots</option>" not in refused["with_figure/figures"]
    assert "<img" not in refused["with_figure/figures?kind=dots"]
    assert "dots" not in FIGURES

    allowed = open_pages(allow_plugins=True)
    assert "Not listed" not in allowed["with_figure/figures"]
    assert ">dots</option>" in allowed["with_figure/figures"]
    assert ">dots</option>" not in allowed["without/figures"]
    assert "<img" in allowed["with_figure/figures?kind=dots"]
    drawn = dirtune.plot("with_figure", "dots", results=tmp_path, output=tmp_path / "dots.svg", allow_plugins=True)
    assert drawn.path.exists()

    # A file of one's own replaces the recorded one, and has its figures in all studies
    for plugin in plugins.list_registered():
        if plugin.name == "my_figures.py":
            plugins.unload(plugin)
    own = plugins.load_files([write(tmp_path, FIGURE + "# mine", "my_figures.py")])
    given = open_pages(given=own)
    assert all(
        ">dots</option>" in given[name] and "Not listed" not in given[name]
        for name in ("with_figure/figures", "without/figures")
    )


def test_a_recorded_file_that_cannot_be_loaded_is_a_sentence(
    root: Path, tmp_path: Path, forgotten_plugins: None
) -> None:
    shutil.copytree(root / "study", tmp_path / "study")
    (tmp_path / "study/plugins").mkdir()
    write(tmp_path / "study/plugins", "import nowhere_at_all\n", "my_figures.py")
    with TestClient(make_app(str(tmp_path), TOKEN, allow_plugins=True)) as client:
        client.get(f"/?token={TOKEN}")
        page = client.get("/study/study/figures")
    assert page.status_code == 200
    assert "figures of recorded plug-ins cannot be drawn (my_figures.py:1: cannot be loaded" in page.text
