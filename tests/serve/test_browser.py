"""The web view in a real Chromium. Run with `pytest tests/serve/test_browser.py`."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest
import uvicorn
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from starlette.testclient import TestClient

from dirtune.results.tables.comparison import TableRequest, compare
from dirtune.results.tables.render.grids import make_grids
from dirtune.serve.app import make_app
from tests.serve.test_app import EVIL, PATHS, TOKEN, Page, root
from tests.training.conftest import data_root, toy
from tests.tuning.conftest import study_file
from tests.tuning.sweeps import ONE_WORKER, with_epochs

__all__ = ["data_root", "root", "study_file", "toy"]
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="there is no Chromium with its driver on this machine"
)
PHONE = (400, 800)


@contextmanager
def serve(root: Path) -> Iterator[str]:
    """Serve results in a thread, and yield the address."""
    server = uvicorn.Server(
        uvicorn.Config(make_app(str(root), TOKEN), port=0, log_level="error", ws="none", lifespan="off")
    )
    thread = Thread(target=server.run)
    thread.start()
    while not server.started:
        thread.join(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def address(root: Path) -> Iterator[str]:
    with serve(root) as address:
        yield address


@pytest.fixture(scope="module")
def driver() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    options.add_argument("--headless=new")
    # Tests run as root in containers
    options.add_argument("--no-sandbox")
    options.add_argument("--window-size=1280,900")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture
def browser(driver: webdriver.Chrome, address: str) -> webdriver.Chrome:
    driver.get(f"{address}/?token={TOKEN}")
    return driver


def test_pages_are_quiet_fit_a_phone_and_ask_no_other_host(browser: webdriver.Chrome, address: str) -> None:
    assert browser.current_url == f"{address}/"
    # A fixed width of the page alone, because a window has a minimum.
    size = {"width": PHONE[0], "height": PHONE[1], "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    # The progress is a part of a page.
    for path in (path for path in PATHS if not path.endswith("progress")):
        browser.get(address + path)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= PHONE[0], path
        assert browser.find_elements(By.CSS_SELECTOR, "img[src='x']") == []
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"}
    assert not [url for url in asked if not url.startswith((address, "data:"))]
    assert browser.get_log("browser") == []


def test_forms_work_by_keyboard_and_progress_is_refreshed(browser: webdriver.Chrome, address: str) -> None:
    browser.get(f"{address}/study/study")
    browser.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    assert browser.switch_to.active_element.text == "Skip to the content"
    # The refreshed text replaces what was there, under the reader's focus.
    browser.execute_script(
        "document.querySelector('[data-live] a').focus(); document.querySelector('[data-live] p').textContent = 'old'"
    )
    wait_for(browser, "trials recorded")
    assert browser.execute_script("return document.activeElement.textContent") == "running"
    browser.get(f"{address}/sql")
    field = browser.find_element(By.ID, "sql")
    field.clear()
    field.send_keys("select count(*) as n from trials", Keys.TAB, Keys.ENTER)
    assert browser.find_element(By.CSS_SELECTOR, "tbody td").text == "7"
    browser.get(f"{address}/study/study/table")
    assert EVIL.strip("\u202e") in browser.find_element(By.TAG_NAME, "main").text


def wait_for(browser: webdriver.Chrome, text: str) -> None:
    """Wait until the refreshed part of the page has a text."""
    for _ in range(100):
        # One script, as a refresh between finding an element and reading it makes the element stale.
        if text in browser.execute_script("return document.querySelector('[data-live] p').textContent"):
            return
        browser.execute_async_script("setTimeout(arguments[0], 200)")
    raise AssertionError(browser.find_element(By.TAG_NAME, "main").text)


@pytest.mark.soak
def test_the_page_stays_right_while_a_sweep_is_killed_and_resumed(
    driver: webdriver.Chrome, data_root: Path, tmp_path: Path, study_file: Callable[..., str]
) -> None:
    """Two `kill -9`, each with a trial under way; no page shows another number than the records have."""
    results = tmp_path / "results"
    path = study_file(**with_epochs(100), seeds=[0, 1, 2, 3], resources=ONE_WORKER)
    roots = ["--data", str(data_root), "--results", str(results)]

    def count_records() -> int:
        return len(list((results / "tiny/results/trials").glob("[!.]*.parquet")))

    def check_pages(client: TestClient) -> int:
        least = count_records()
        studies, progress, trials = (client.get(f"/{name}") for name in ("", "study/tiny", "study/tiny/trials"))
        most = count_records()
        assert {answer.status_code for answer in (studies, progress, trials)} == {200}
        shown = [
            re.search(r"tiny</a></th><td>(\d+)</td><td>8</td>", studies.text),
            re.search(r"(\d+) of 8 trials recorded", progress.text),
            re.search(r"(\d+) recorded trials", trials.text),
        ]
        assert all(found is not None and least <= int(found[1]) <= most for found in shown), (least, shown, most)
        # Without a complete trial there is no table yet.
        assert client.get("/study/tiny/table").status_code == 200 or least == 0
        return least

    with serve(results) as address, TestClient(make_app(str(results), TOKEN)) as client:
        assert "There is no study here yet" in client.get(f"/?token={TOKEN}").text
        looks = 0
        for verb, enough in (("sweep", 2), ("resume", 5), ("resume", 8)):
            command = [sys.executable, "-m", "dirtune.cli", verb, path if verb == "sweep" else "tiny", *roots]
            child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while not (results / "tiny/study.json").exists():
                time.sleep(0.05)
            if not looks:
                driver.get(f"{address}/?token={TOKEN}")
                driver.get(f"{address}/study/tiny")
            while check_pages(client) < enough:
                looks += 1
                assert child.poll() is None or count_records() == enough
            if enough < 8:
                os.kill(child.pid, signal.SIGKILL)
            child.wait()
            wait_for(driver, f"{count_records()} of 8 trials recorded")
        assert looks > 20
        assert driver.find_element(By.ID, "connection").text == ""
        assert driver.get_log("browser") == []
        table = Page(client.get("/study/tiny/table?metric=mae").text).text
    first, *_ = make_grids(compare(results, TableRequest(studies=("tiny",), metrics=("mae",))))
    assert [cell.text for row in first.rows for cell in row.cells if cell.text not in table] == []
