"""A report in a real Chromium, driven by Selenium: which also executes its style and script."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from dirtune.results.report.page import write_report
from tests.results.record_factory import record, write_study

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="there is no Chromium with its driver on this machine"
)

EVIL = "<img src='https://example.invalid/x' onerror=\"document.title='owned'\"> <b>bold</b>"
# As texts in another order
ERRORS = {"vanilla": 9.5, EVIL: 10.2, "conr": 100.4, "accon": 8.25}
SIZE = (1280, 900)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("results")
    records = [
        record(arm, seed, error + seed / 10, trial_id=f"{position}-{seed}")
        for position, (arm, error) in enumerate(ERRORS.items())
        for seed in range(3)
    ]
    records += [record("broken", 0, status="failed", error=EVIL)]
    write_study(
        root,
        records,
        question=EVIL,
        reference="vanilla",
        seeds=[0, 1, 2],
        arms=[*ERRORS, "broken"],
        data={"name": "digits", "unit": "degrees"},
        configs={arm: {"x": position} for position, arm in enumerate(ERRORS)},
    )
    return write_report(root, "study", output=root / "report.html")


@pytest.fixture(scope="module")
def browser(file: Path) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    options.add_argument("--headless=new")
    # Tests run as root in containers
    options.add_argument("--no-sandbox")
    options.add_argument(f"--window-size={SIZE[0]},{SIZE[1]}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(str(DRIVER)))
    driver.get(file.as_uri())
    yield driver
    driver.quit()


def test_the_console_is_empty_and_only_the_file_is_requested(browser: webdriver.Chrome, file: Path) -> None:
    said = browser.get_log("browser")
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"}

    assert said == []
    assert asked == {file.as_uri()}


def test_a_click_on_a_heading_sorts_by_number_ascending_and_another_descending(browser: webdriver.Chrome) -> None:
    table = browser.find_element(By.CSS_SELECTOR, "#results table.sortable")
    (heading,) = [th for th in table.find_elements(By.CSS_SELECTOR, "thead th") if th.text == "all"]
    up = [EVIL, "accon", "broken", "conr", "vanilla"]
    up.sort(key=lambda arm: ERRORS.get(arm, np.inf))

    heading.find_element(By.TAG_NAME, "button").click()
    # Without a number last
    assert _read_first_column(table) == up
    assert heading.get_attribute("aria-sort") == "ascending"

    heading.find_element(By.TAG_NAME, "button").click()
    assert _read_first_column(table) == [*reversed(up[:-1]), up[-1]]
    assert heading.get_attribute("aria-sort") == "descending"


def test_untrusted_names_and_errors_are_shown_as_text(browser: webdriver.Chrome) -> None:
    assert browser.title == "study"
    assert browser.find_element(By.CLASS_NAME, "question").text == EVIL
    assert EVIL in [cell.text for cell in browser.find_elements(By.CSS_SELECTOR, "#missing td")]
    assert browser.find_elements(By.CSS_SELECTOR, "b, img") == []


def test_the_page_is_no_wider_than_the_window(browser: webdriver.Chrome) -> None:
    wide = "return document.documentElement.scrollWidth"

    assert browser.execute_script(wide) <= browser.execute_script("return innerWidth")
    try:
        browser.set_window_size(520, 900)
        assert browser.execute_script(wide) <= browser.execute_script("return innerWidth")
    finally:
        browser.set_window_size(*SIZE)


def test_the_page_and_its_figures_are_painted(browser: webdriver.Chrome) -> None:
    assert _measure_ink(browser.get_screenshot_as_png()) > 0.01
    figure = browser.find_element(By.CSS_SELECTOR, "figure svg")
    assert figure.size["width"] > 300
    assert figure.size["height"] > 150
    assert _measure_ink(figure.screenshot_as_png) > 0.01


def _read_first_column(table: WebElement) -> list[str]:
    return [cell.text for cell in table.find_elements(By.CSS_SELECTOR, "tbody th")]


def _measure_ink(png: bytes) -> float:
    """The share of pixels that differ from the commonest color."""
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).reshape(-1, 3)
    _, counts = np.unique(pixels, axis=0, return_counts=True)
    return float(1 - counts.max() / len(pixels))
