"""The public interface as the binary shows it, held against docs/interface.json: what changes it shows in review.

`INTERFACE=rewrite make test-deploy TEST=interface` writes the file anew.
"""

import base64
import json
import os
import re
from pathlib import Path

import yaml

from support.cluster import Etcd, leader_of
from support.net import request
from support.tools import ROOT, run, tenure
from support.waiting import eventually

FILE = ROOT / "docs/interface.json"


def http(document: dict) -> dict:
    """Of each path: the listener, and the status codes of each method."""
    return {
        path: {
            "listener": methods["get" if "get" in methods else "post"]["x-listener"],
            **{m.upper(): " ".join(sorted(about["responses"])) for m, about in sorted(methods.items()) if m != "parameters"},
        }
        for path, methods in document["paths"].items()
    }


def documents(document: dict) -> dict:
    """Of each JSON document: its keys. `?` marks those that may be absent."""
    return {
        name: [key if key in schema.get("required", []) else f"{key}?" for key in sorted(schema["properties"])]
        for name, schema in document["components"]["schemas"].items()
        if schema.get("properties")
    }


def metrics(text: str) -> dict:
    """Of each family: its type and its labels."""
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
    found: dict[str, set[str]] = {name: set() for name in kinds}
    for name, labels in re.findall(r"^([a-z_]+)\{(.*)\} \S+$", text, re.M):
        family = name if name in kinds else re.sub(r"_(bucket|sum|count)$", "", name)
        found[family] |= set(re.findall(r'([a-z_]+)="', labels)) - {"le"}
    return {name: f"{kinds[name]} {{{', '.join(sorted(labels))}}}" for name, labels in found.items()}


def flat(tree, path: str = "") -> dict:
    """`a.b.c` → value; lists of sections are `a[]`."""
    if isinstance(tree, dict):
        return {k: v for key, value in tree.items() for k, v in flat(value, f"{path}.{key}" if path else key).items()}
    if isinstance(tree, list) and tree and isinstance(tree[0], dict):
        return flat(tree[0], f"{path}[]")
    return {path: tree}


def commands() -> dict:
    """Of each command: its options and, where it has any, the commands below it. Exit codes come from the help text."""

    def options(text: str) -> list[str]:
        return sorted(set(re.findall(r"^ +(?:-\w, )?(--[a-z-]+(?: <[A-Z_]+>)?)", text, re.M)))

    def below(*path: str) -> dict:
        text = run(tenure(), *path, "--help").stdout
        names = re.search(r"^Commands:\n((?:  .*\n|\n)+)", text, re.M)
        found = {" ".join(path) or "tenure": options(text)}
        for name in re.findall(r"^  ([a-z-]+)  ", names[1] if names else "", re.M):
            found |= below(*path, name) if name != "help" else {}
        return found

    return below()


def exit_codes() -> list[str]:
    text = " ".join(run(tenure(), "--help").stdout.split())
    return re.findall(r"\d [a-z][a-z ]*", re.search(r"Exit codes: ([^.]*)\.", text)[1])


def keys_in_etcd(etcd: Etcd, prefix: str) -> dict:
    """Of each key: the members of its value. Names of the test and numbers are replaced."""
    directory = run(ROOT / "dev/etcd", "path", cwd=ROOT).stdout.strip()
    kvs = json.loads(run(f"{directory}/etcdctl", "--endpoints", etcd.endpoint, "get", "--prefix", prefix, "-w", "json").stdout)["kvs"]
    shown = {}
    for kv in kvs:
        key = bytes_of(kv["key"]).decode().replace(prefix, "PREFIX", 1).replace("/orders", "/ELECTION")
        key = re.sub(r"/\d{20}$", "/GENERATION (20 digits)", re.sub(r"/[0-9a-f]{10,16}$", "/LEASE (hexadecimal)", key))
        value = json.loads(bytes_of(kv["value"]))
        shown[key] = {member: type(v).__name__ for member, v in sorted(value.items())}
    return shown


def bytes_of(text: str) -> bytes:
    return base64.b64decode(text)


def test_the_public_interface_is_what_the_file_says(etcd, candidate, tmp_path: Path):
    audit = tmp_path / "audit"
    one = candidate("pod-0", config={"etcd": {"prefix": "/interface"}, "audit": {"file": str(audit)}, "log": {"format": "json"}})
    leader_of([one])
    document = one.get("/openapi.json").json()
    shown = {
        "http": http(document),
        "documents": documents(document),
        "headers": {path: sorted(request(one.control, path).headers) for path in ("/leader", "/gate", "/token", "/v1/elections/orders")},
        "metrics": metrics(one.get("/metrics").body.decode()),
        "configuration": flat(yaml.safe_load(run(tenure(), "config", "example").stdout)),
        "commands": commands(),
        "exit_codes": exit_codes(),
        "etcd": keys_in_etcd(etcd, "/interface"),
        "audit": sorted(json.loads(eventually("a line of audit", lambda: audit.read_text().splitlines())[0])),
        "log": sorted(json.loads(next(line for line in one.text().splitlines() if '"transition"' in line))),
    }
    if os.environ.get("INTERFACE") == "rewrite":
        FILE.write_text(json.dumps(shown, indent=1, sort_keys=True) + "\n")
    before, now = flat(json.loads(FILE.read_text())), flat(json.loads(json.dumps(shown)))
    shows = {key: (before.get(key, "absent"), now.get(key, "absent")) for key in sorted(before.keys() | now.keys())}
    changed = [f"{key}: {then} → {is_now}" for key, (then, is_now) in shows.items() if then != is_now]
    assert not changed, (
        "the public interface is another than docs/interface.json says. If it was meant to change: docs/versioning.md has the rules, "
        "`INTERFACE=rewrite make test-deploy TEST=interface` writes the file.\n" + "\n".join(changed)
    )


def test_a_member_that_a_daemon_does_not_know_is_ignored(etcd, candidate):
    """A newer version may have written it: docs/versioning.md builds on that."""
    record = {"generation": 41, "term": 0, "holder": None, "url": "", "key": "", "created": 0, "cause": "raised"}
    record |= {"elected_at": "2026-01-31T00:00:00.000Z", "hlc": "2026-01-31T00:00:00.000Z+00000000", "future": {"of": [1]}}
    directory = run(ROOT / "dev/etcd", "path", cwd=ROOT).stdout.strip()
    run(f"{directory}/etcdctl", "--endpoints", etcd.endpoint, "put", "/newer/generations/orders", json.dumps(record))
    assert leader_of([candidate("pod-0", config={"etcd": {"prefix": "/newer"}})]).token() == 42
