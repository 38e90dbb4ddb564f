"""Debian's Chromium, driven by Playwright: what a page shows, what its console says, and what axe-core finds in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

CHROMIUM = "/usr/bin/chromium"
AXE = Path(__file__).parents[1] / "servers/node_modules/axe-core/axe.min.js"
DESKTOP, PHONE = (1280, 900), (390, 844)
"""Width and height of a window, in CSS pixels."""


@dataclass(slots=True)
class OpenPage:
    """A page in a window of its own."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    """Errors and warnings of its console, scripts that failed, and requests that went elsewhere or failed."""

    def violations(self) -> list[str]:
        """What axe-core finds against WCAG 2.2 AA and its best practices: rule, and the elements."""
        # By evaluate, since the page's own policy forbids any script.
        self.page.evaluate(AXE.read_text())
        result = self.page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{violation['id']}: {violation['help']}: {[node['html'][:160] for node in violation['nodes'][:3]]}"
            for violation in result["violations"]
        ]

    def overflow(self) -> int:
        """How many pixels the page is wider than its window; 0 when nothing scrolls sideways."""
        wider: int = self.page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth")
        return max(0, wider)

    def first_paint(self) -> float:
        """Seconds from the navigation to the first contentful paint."""
        paints = "performance.getEntriesByName('first-contentful-paint').map(e => e.startTime)"
        self.page.wait_for_function(f"() => {paints}.length")  # a busy machine paints after the page is loaded
        (paint,) = self.page.evaluate(f"() => {paints}")
        return float(paint) / 1000


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window, for the time of the block."""
    with sync_playwright() as playwright:
        # Root in a container has no user namespaces for the browser's own sandbox.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(
    browser: Browser,
    url: str,
    *,
    size: tuple[int, int] = DESKTOP,
    dark: bool = False,
    script: bool = True,
    cookies: Mapping[str, str] | None = None,
) -> Iterator[OpenPage]:
    """Open `url`, a server's or a file's, and wait until it is loaded.

    Args:
        browser: Of `chromium`.
        url: What to open; every request to another origin is a complaint.
        size: The window's width and height.
        dark: Whether the reader prefers dark colours.
        script: Whether the browser runs scripts. Without, axe-core can't run either.
        cookies: What the browser sends to the server.
    """
    width, height = size
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        java_script_enabled=script,
        bypass_csp=False,
    )
    try:
        for name, value in (cookies or {}).items():
            context.add_cookies([{"name": name, "value": value, "url": url}])
        opened_page = OpenPage(context.new_page())
        complaints = opened_page.complaints
        origin = "/".join(url.split("/", 3)[:3])

        def hear(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                complaints.append(message.text)

        opened_page.page.on("console", hear)
        opened_page.page.on("pageerror", lambda error: complaints.append(str(error)))
        opened_page.page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
        opened_page.page.on(
            "request",
            lambda request: None if request.url.startswith((origin, "data:")) else complaints.append(request.url),
        )
        opened_page.page.goto(url, wait_until="load", timeout=30_000)
        yield opened_page
    finally:
        context.close()
