"""What a probe says of made-up numbers."""

from __future__ import annotations

import math

import pytest

from rlkit import probes
from rlkit.probes import CLOSE, PROBES, configure, run_probe


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        ([0.0], "PASS"),
        ([CLOSE], "PASS"),  # as near as is asked for, on either side
        ([-CLOSE], "PASS"),
        ([CLOSE + 0.01], "FAIL"),
        ([-CLOSE - 0.01], "FAIL"),
        ([0.0, 1.0], "FAIL"),  # every number must be right
        ([math.nan], "FAIL"),
        ([math.inf], "FAIL"),
        ([0.0, math.nan], "FAIL"),
    ],
)
def test_a_probe_passes_where_every_number_is_near_its_answer(
    found: list[float], verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """found: how far each measured number is from its answer."""
    probe = next(each for each in PROBES if len(each.expected) == len(found))
    answers = [each.answer for each in probe.expected]
    monkeypatch.setattr(
        probes, "measure", lambda *_: [(a + off, a) for a, off in zip(answers, found, strict=True)]
    )
    result = run_probe(probe, configure(probe, ["agent=ppo", "network=lstm"]))
    assert result.verdict == verdict
    assert (probe.part in result.text) is (verdict == "FAIL")
