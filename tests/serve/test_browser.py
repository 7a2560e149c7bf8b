"""The web view in a real Chromium. Run with `pytest tests/serve/test_browser.py`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
import uvicorn
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from dirtune.serve.app import make_app
from tests.serve.test_app import EVIL, PATHS, TOKEN, root

__all__ = ["root"]
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="there is no Chromium with its driver on this machine"
)
PHONE = (400, 800)


@pytest.fixture(scope="module")
def address(root: Path) -> Iterator[str]:
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
def browser(address: str) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    options.add_argument("--headless=new")
    # Tests run as root in containers
    options.add_argument("--no-sandbox")
    options.add_argument("--window-size=1280,900")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(str(DRIVER)))
    driver.get(f"{address}/?token={TOKEN}")
    yield driver
    driver.quit()


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
    # The refreshed text replaces what was there.
    browser.execute_script("document.querySelector('[data-live] p').textContent = 'old'")
    for _ in range(100):
        if "trials recorded" in browser.find_element(By.CSS_SELECTOR, "[data-live] p").text:
            break
        browser.execute_async_script("setTimeout(arguments[0], 200)")
    assert "trials recorded" in browser.find_element(By.CSS_SELECTOR, "[data-live] p").text
    browser.get(f"{address}/sql")
    field = browser.find_element(By.ID, "sql")
    field.clear()
    field.send_keys("select count(*) as n from trials", Keys.TAB, Keys.ENTER)
    assert browser.find_element(By.CSS_SELECTOR, "tbody td").text == "7"
    browser.get(f"{address}/study/study/table")
    assert EVIL.strip("\u202e") in browser.find_element(By.TAG_NAME, "main").text
