"""The dashboard follows the rules of Grafana's dashboard linter, and names only metrics that the daemon exposes.

Whether each query returns data is shown by test_prometheus.py.
"""

import json
import re

import pytest

from support.tools import ROOT

DASHBOARD = json.loads((ROOT / "helm/tenure/files/dashboards/tenure.json").read_text())
PANELS = [p for p in DASHBOARD["panels"] if p["type"] != "row"]
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def test_it_can_be_imported_anywhere():
    assert DASHBOARD["id"] is None
    assert "__inputs" not in DASHBOARD
    assert DASHBOARD["uid"] == "tenure"
    assert DASHBOARD["editable"] is False


def test_its_variables_choose_source_job_and_instance_and_follow_the_time():
    variables = {v["name"]: v for v in DASHBOARD["templating"]["list"]}
    assert {"datasource", "cluster", "job", "namespace", "instance", "election"} <= set(variables)
    for variable in variables.values():
        if variable["type"] == "query":
            assert variable["datasource"] == SOURCE
            assert variable["refresh"] == 2, "on time range change"


@pytest.mark.parametrize("panel", PANELS, ids=lambda p: p["title"])
def test_a_panel_says_what_it_shows_in_which_unit(panel):
    assert panel["title"] and panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"] == SOURCE
    for target in panel["targets"]:
        assert target["datasource"] == SOURCE
        assert target["legendFormat"]
        for selector in re.findall(r"tenure_\w+{(.*?)}|process_\w+{(.*?)}", target["expr"]):
            assert all(f'{label}=~"${label}"' in "".join(selector) for label in ("cluster", "job", "namespace", "instance")), target["expr"]
        # Daemons of one name in two clusters or namespaces are two.
        for matched in re.findall(r"\bon \((.*?)\)", target["expr"]):
            assert {"cluster", "job", "namespace", "instance"} <= set(matched.split(", ")), target["expr"]
        # A window of its own only where the title or the description names it.
        for window in re.findall(r"\[(.*?)\]", target["expr"]):
            assert window in ("$__rate_interval", "1h"), target["expr"]


def test_panels_do_not_overlap():
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        for cell in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
            assert cell not in taken, f"{panel['title']} lies over {taken[cell]}"
            assert cell[0] < 24
            taken[cell] = panel["title"]
    assert len({p["id"] for p in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
