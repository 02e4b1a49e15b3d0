"""The chart of the candidates, and values for it."""

import json

from .tools import ROOT

CHART = ROOT / "helm/tenure"
# The least that has to be said, and that leads to no warning about endpoints.
LEAST = {"elections": ["orders"], "etcd": {"endpoints": ["http://etcd-0:2379", "http://etcd-1:2379"]}}


def over(*layers: dict) -> dict:
    """LEAST with more values laid over it, as helm lays them."""
    merged = json.loads(json.dumps(LEAST))

    def lay(base: dict, more: dict) -> None:
        for key, value in more.items():
            if isinstance(value, dict) and isinstance(base.get(key), dict):
                lay(base[key], value)
            else:
                base[key] = value

    for layer in layers:
        # A copy, or the next layer would be laid over what is the caller's.
        lay(merged, json.loads(json.dumps(layer)))
    return merged
