from __future__ import annotations

import pytest
from moved_disc import Truth, draw_loop


@pytest.fixture(scope="session")
def swaying() -> Truth:
    return draw_loop()


@pytest.fixture(scope="session")
def rocking() -> Truth:
    return draw_loop(shift=0.0, turn=0.5)
