"""Memory that is not there is refused with EFAULT, and changes nothing on the connection."""

from __future__ import annotations

import pytest

from tests.preload.harness import EVERYWHERE, Preload

OPTIONS = [{}, {"hold": "off"}, {"capture": "file"}]


@pytest.mark.parametrize("case", ["sent", "received", "named", "handled"])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options.values()) or "usual")
def test_memory_that_is_not_there_is_refused(preload: Preload, case: str, options: dict[str, str]) -> None:
    rules = {"listen": EVERYWHERE, "connect": EVERYWHERE}
    outcome = preload.compare("absent", case, **rules, **options)
    assert outcome.counters["streams_framed"] == 2
    assert not outcome.trouble
