"""The support itself: a real candidate leads on a real etcd, and a missing tool says how to get it."""

import signal

import pytest

from support.cluster import leader_of
from support.tools import Missing, tool


def test_a_candidate_leads_and_hands_over(candidate):
    both = [candidate("pod-0"), candidate("pod-1")]
    first = leader_of(both)
    token = first.token()
    first.signal(signal.SIGTERM)
    assert first.wait() == 0
    second = leader_of(both)
    assert second is not first
    assert token is not None and second.token() > token


def test_a_missing_tool_says_how_to_get_it(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Missing, match="make deploy-tools"):
        tool("helm")
