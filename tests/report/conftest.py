"""A headless browser, and a page object that reads what a report shows."""

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,900",
)
DRAWN_WITHIN_S = 60  # a hang, not a measure of speed


@dataclass
class Page:
    """A report that is open in the browser."""

    driver: Any

    def open(self, file: Path) -> "Page":
        self.driver.get_log("browser"), self.driver.get_log("performance")  # empties both
        self.driver.get(file.resolve().as_uri())
        give_up = time.monotonic() + DRAWN_WITHIN_S
        while not self.run("return document.documentElement.dataset.ready"):
            assert time.monotonic() < give_up, f"charts were not drawn; console: {self.console()}"
            time.sleep(0.02)
        return self

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def console(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """URLs outside the page that the browser asked for since the report was opened."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        urls = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        own = self.driver.current_url.partition("#")[0]
        inside = ("data:", "blob:", "chrome:")  # the last: the browser's own start page, still loading
        return [url for url in urls if url != own and not url.startswith(inside)]

    def undrawn(self) -> list[str]:
        """Titles of the charts that show no plotted mark."""
        return self.run(
            "return [...document.querySelectorAll('[data-chart]')].filter(c => !c.querySelector("
            "'.barlayer .point path, .heatmaplayer image, .scatterlayer .trace path'))"
            ".map(c => c.getAttribute('aria-label'))"
        )

    def charts(self) -> int:
        return self.run("return document.querySelectorAll('[data-chart] svg.main-svg').length > 0 "
                        "&& document.querySelectorAll('[data-chart]').length")  # fmt: skip

    def table(self, title: str) -> list[list[str]]:
        """Open the table with this title; return its rows as shown, the header first."""
        return self.run(
            "const holder = [...document.querySelectorAll('details[data-table]')].find("
            "d => d.firstChild.textContent === 'Table: ' + arguments[0]);"
            "holder.open = true;"
            "return new Promise(done => setTimeout(() => done([...holder.querySelectorAll('tr')].map("
            "row => [...row.children].map(cell => cell.textContent))), 50));",
            title,
        )


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A headless Chromium."""
    if not CHROMIUM or not DRIVER:
        pytest.skip("chromium and chromedriver are not installed; reports are not opened in a browser")
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser):
    """An open page of a report."""
    return Page(browser)
