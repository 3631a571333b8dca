"""A real browser for tests: the Chromium of the system, driven by Playwright without a browser of its own."""

import shutil
from contextlib import contextmanager

import pytest

BROWSERS = ('chromium', 'chromium-browser', 'google-chrome')
PATIENCE_MS = 60_000  # time that a machine under load may take; reached only by a test that fails


@contextmanager
def chromium():
    """Yield a browser; skip the test if there is none."""
    playwright = pytest.importorskip('playwright.sync_api', reason='needs playwright, of the extra test')
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f'needs a browser: none of {", ".join(BROWSERS)} is installed')
    flags = ('--no-sandbox', '--disable-dev-shm-usage')  # a container has no sandbox and a small /dev/shm
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=flags)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def tab(browser, url):
    """Yield a tab that shows the page; at the end, nothing outside was asked for and no script has failed."""
    requests, errors = [], []
    context = browser.new_context(reduced_motion='reduce')  # animations take time, and tests none of theirs
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.on('request', lambda request: requests.append(request.url))
    page.on('pageerror', lambda error: errors.append(str(error)))
    page.on('console', lambda message: errors.append(message.text) if 'Content Security' in message.text else None)
    try:
        page.goto(url)
        page.wait_for_selector('#ask')
        yield page
        assert [each for each in requests if not each.startswith((url, 'data:', 'blob:'))] == []
        assert errors == []
    finally:
        context.close()
