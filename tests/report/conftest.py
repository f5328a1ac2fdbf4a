"""One Chromium for all browser tests: starting it costs more than any page."""

from collections.abc import Iterator

import pytest

from .browser import CHROMIUM, Browser, chromium


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: install one (apt-get install chromium) to run the browser tests")
    with chromium(tmp_path_factory.mktemp("profile")) as started:
        yield started
