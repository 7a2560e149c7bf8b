"""The web view of results in this process. Run with `pytest tests/serve/test_app.py`."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from dirtune.io.storage import Storage
from dirtune.results.analysis.status import PROGRESS
from dirtune.results.figures import FIGURES
from dirtune.results.records.store import write_record
from dirtune.results.tables.comparison import TableRequest, compare
from dirtune.results.tables.render.grids import make_grids
from dirtune.serve import pages
from dirtune.serve.app import EXAMPLES, make_app
from tests.results.record_factory import record, write_study
from tests.trackers.test_trackers import make_record

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
    assert all(
        f"<option>{kind}</option>" in client.get("/study/study/figures").text for kind in FIGURES if kind != "regions"
    )
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
        "select 1; select 2",
        "select nothing from trials",
    ):
        assert "secret\n" not in run(sql, 400)
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


def test_a_root_without_studies_says_so(tmp_path: Path) -> None:
    client = TestClient(make_app(str(tmp_path / "none"), TOKEN))
    assert "There is no study here yet" in client.get(f"/?token={TOKEN}").text
