"""The public interface as facts, one a line: what documents, pages, help texts, charts and the image's file say of it.

Nothing here knows what the interface is. It only reads, so that a change of the real thing is a change of a fact.
"""

import json
import re
from collections.abc import Iterable

from .net import Answer

_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
# Of HTTP itself, not of ours.
_TRANSPORT = {"connection", "content-length", "content-type", "date", "transfer-encoding"}
# Words for people in a schema.
_PROSE = {"description", "examples", "title", "$schema", "$id", "definitions"}


# JSON schemas


def typed(schema: dict) -> str:
    """A schema on one line, as far as its members do not have lines of their own."""
    if schema is False:
        return "none"
    rest = {k: v for k, v in schema.items() if k not in _PROSE | {"properties", "required"}}
    words = []
    if "$ref" in rest:
        words.append(rest.pop("$ref").rsplit("/", 1)[1])
    if "oneOf" in rest:
        words.append(" or ".join(typed(s) for s in rest.pop("oneOf")))
    if "enum" in rest:
        words.append("one of " + ", ".join(json.dumps(v).strip('"') for v in rest.pop("enum")))
    if "type" in rest:
        kinds = rest.pop("type")
        words.append(kinds if isinstance(kinds, str) else " or ".join(kinds))
    if isinstance(rest.get("items"), dict):
        words.append(f"of {typed(rest.pop('items'))}")
    # Whatever else limits a value: a keyword that comes to be used is seen as well.
    words += [f"{k}={typed(v) if isinstance(v, dict) else json.dumps(v)}" for k, v in sorted(rest.items())]
    return " ".join(words)


def members(schema: dict, path: str) -> dict[str, str]:
    """Of a schema and all that is in it: `a.b`, `a[]` for the items of a list, `?` where it may be absent, each with its type."""
    found = {path: typed(schema)}
    inner = [s for s in (schema, *schema.get("oneOf", [])) if isinstance(s, dict)]
    for name, member in ((n, m) for s in inner for n, m in s.get("properties", {}).items()):
        optional = "" if any(name in s.get("required", []) for s in inner) else "?"
        found |= members(member, f"{path}.{name}{optional}")
    if isinstance(schema.get("items"), dict) and "$ref" not in schema["items"]:
        found |= members(schema["items"], f"{path}[]")
    return found


# HTTP


def http(document: dict) -> dict:
    """Of each path: the listener, the parameters and bodies it takes, and of each status the content and the headers. Methods
    of which the same is said share a line."""
    found = {}
    for path, item in document["paths"].items():
        said: dict[tuple[str, str], list[str]] = {}
        for method, about in item.items():
            for what in _operation(about, item.get("parameters", [])) if method != "parameters" else ():
                said.setdefault(what, []).append(method.upper())
        found[path] = {f"{'|'.join(sorted(methods))} {what}": fact for (what, fact), methods in said.items()}
    return found


def _operation(about: dict, shared: list[dict]) -> Iterable[tuple[str, str]]:
    yield "listener", about["x-listener"]
    for p in [*shared, *about.get("parameters", [])]:
        yield f"takes {p['in']} {p['name']}", typed(p["schema"]) + (", required" if p.get("required") else "")
    if body := about.get("requestBody"):
        yield "takes body", _content(body) + (", required" if body.get("required") else "")
    if security := about.get("security"):
        yield "security", " or ".join(", ".join(s) or "none" for s in security)
    for status, answer in about["responses"].items():
        headers = [name if h.get("required") else f"{name}?" for name, h in sorted(answer.get("headers", {}).items())]
        yield status, "; ".join(filter(None, [_content(answer), " ".join(headers)]))


def _content(holder: dict) -> str:
    return " or ".join(f"{media} {typed(about['schema'])}" for media, about in sorted(holder.get("content", {}).items()))


def documents(document: dict) -> dict:
    """Of each JSON document: its members with their types, the words of those that have a list of them, and their limits."""
    return {name: members(schema, name) for name, schema in document["components"]["schemas"].items()}


def answers(document: dict, seen: list[tuple[str, str, Answer]]) -> dict:
    """Of answers that were seen: their headers, and the members that /openapi.json does not describe."""
    found = {}
    for method, template, answer in seen:
        content = document["paths"].get(template, {}).get(method.lower(), {}).get("responses", {}).get(str(answer.status), {}).get("content", {})
        media = answer.headers.get("content-type", "")
        body = answer.json() if media.endswith("json") and answer.body else {}
        # What has no description of its own is a problem like all others.
        schema = content.get(media, {}).get("schema", {}).get("$ref", "/Problem").rsplit("/", 1)[1]
        known = document["components"]["schemas"][schema].get("properties", {}).keys()
        facts = {"headers": " ".join(sorted(answer.headers.keys() - _TRANSPORT)), "content-type": media}
        # The document itself is told elsewhere.
        if body != document:
            facts |= {f"body.{path}": types for path, types in shape([{k: body[k] for k in body.keys() - known}]).items()}
        found[f"{method} {template} {answer.status} {body.get('code', '')}".rstrip()] = facts
    return found


def shape(values: list) -> dict[str, str]:
    """The members of JSON values and their types; of several values, all types that occur."""
    types: dict[str, set[str]] = {}

    def see(value, path: str) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                see(inner, f"{path}.{key}" if path else key)
        elif isinstance(value, list) and value:
            for inner in value:
                see(inner, f"{path}[]")
        elif isinstance(value, list):
            types.setdefault(f"{path}[]", set()).add("nothing")
        else:
            types.setdefault(path, set()).add(_TYPES[type(value)])

    for value in values:
        see(value, "")
    return {path: " or ".join(sorted(t)) for path, t in types.items()}


# Metrics


def metrics(pages: list[str]) -> dict:
    """Of each family: its type and its labels."""
    kinds = dict(pair for text in pages for pair in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
    found: dict[str, set[str]] = {name: set() for name in kinds}
    for name, labels in (pair for text in pages for pair in re.findall(r"^(\w+)\{(.*)\} \S+$", text, re.M)):
        family = name if name in kinds else re.sub(r"_(bucket|sum|count)$", "", name)
        found[family] |= set(re.findall(r'(\w+)="', labels)) - {"le"}
    return {name: f"{kinds[name]} {{{', '.join(sorted(labels))}}}" for name, labels in found.items()}


# The command line


def command(text: str) -> dict:
    """Of a help text: how the command is called, and each option with its default and the values it takes."""
    usage = re.search(r"^Usage: ((?:.+\n)+)", text, re.M)[1]
    found = {"usage": " | ".join(line.strip() for line in usage.splitlines())}
    for option, about in re.findall(r"^ {2,6}((?:-\w, )?--[a-z-]+.*)\n((?:(?: {8,}.*)?\n)*)", text, re.M):
        told = " ".join(about.split())
        values = re.findall(r"^ +- (\w+):", about, re.M) or re.findall(r"\[possible values: ([^]]*)\]", told)
        default = re.search(r"\[default: ([^]]*)\]", told)
        found[option] = "; ".join(filter(None, [", ".join(values), f"default {default[1]}" if default else ""]))
    return found


def below(text: str) -> list[str]:
    """The commands that a help text lists."""
    listed = re.search(r"^Commands:\n((?:  .*\n|\n)+)", text, re.M)
    return [name for name in re.findall(r"^  ([a-z-]+)  ", listed[1] if listed else "", re.M) if name != "help"]


def exit_codes(text: str) -> dict:
    """What the help text says of exit codes."""
    return dict(re.findall(r"(\d+) ([a-z][a-z ]*)", re.search(r"Exit codes: ([^.]*)\.", " ".join(text.split()))[1]))


# etcd


def keys(kvs: list[tuple[str, dict]], prefix: str, election: str) -> dict:
    """Of each key: the members of its values, and whether all have them. Names of the test and numbers are replaced."""
    values: dict[str, list[dict]] = {}
    for key, value in kvs:
        key = key.replace(prefix, "PREFIX", 1).replace(f"/{election}", "/ELECTION")
        key = re.sub(r"/\d{20}$", "/GENERATION (20 digits)", re.sub(r"/[0-9a-f]{10,16}$", "/LEASE (hexadecimal)", key))
        values.setdefault(key, []).append(value)
    found = {key: shape(seen) for key, seen in values.items()}
    for key, seen in values.items():
        found[key] |= {member: f"{found[key][member]} or absent" for member in found[key] if any(member not in v for v in seen)}
        if causes := sorted({v["cause"] for v in seen if "cause" in v}):
            found[key]["cause"] = "one of " + ", ".join(causes)
    return found


# Charts


def values(tree, path: str = "") -> dict:
    """`a.b.c` → value; the sections of a list are `a[0]`, `a[1]`."""
    if isinstance(tree, dict) and tree:
        return {k: v for key, value in tree.items() for k, v in values(value, f"{path}.{key}" if path else key).items()}
    if isinstance(tree, list) and any(isinstance(item, dict) for item in tree):
        return {k: v for i, item in enumerate(tree) for k, v in values(item, f"{path}[{i}]").items()}
    return {path: tree}


def schema(document: dict) -> dict:
    """What a chart's values are held against."""
    named = {k: v for name, s in document.get("definitions", {}).items() for k, v in members(s, f"definitions.{name}").items()}
    return members(document, "values") | named


def templates(readme: str, written: set[str]) -> dict:
    """Of each template that a README has others include, and that is there: what it is given."""
    given: dict[str, set[str]] = {name: set() for name in re.findall(r"tenure-lib\.\w+", readme) if name in written}
    for name, call in re.findall(r"(tenure-lib\.\w+)[`\" ]+\(dict ([^)]*)\)", readme):
        given.get(name, set()).update(re.findall(r'"(\w+)" [.$A-Z]', call) + re.findall(r'"(\w+)" "\w+"', call))
    return {name: " ".join(sorted(keys)) or "the chart's root" for name, keys in given.items()}


def objects(rendered: list[dict]) -> dict:
    """Of each object: what other objects and people know it by."""
    found = {}
    for o in rendered:
        name, spec = f"{o['kind']}/{o['metadata']['name']}", o.get("spec", {})
        selector = spec.get("selector", spec.get("podSelector"))
        found[name] = "exists" if selector is None else f"selects {_selector(selector)}"
        for port in spec.get("ports", []) if o["kind"] == "Service" else []:
            found[f"{name} port {port.get('name', port['port'])}"] = f"{port['port']} → {port.get('targetPort', port['port'])}"
        if pod := spec if o["kind"] == "Pod" else spec.get("template", {}).get("spec"):
            found |= {f"{name} {what}": fact for what, fact in parts(pod).items()}
    return found


def parts(pod: dict) -> dict:
    """What a pod's containers and volumes are called, and where they are."""
    found = {f"volume {v['name']}": ", ".join(sorted(v.keys() - {"name"})) for v in pod.get("volumes", [])}
    for c in [*pod.get("initContainers", []), *pod.get("containers", [])]:
        here = f"container {c['name']}"
        found[here] = "exists"
        found |= {f"{here} port {p.get('name', p['containerPort'])}": p["containerPort"] for p in c.get("ports", [])}
        found |= {f"{here} mount {m['mountPath']}": m["name"] for m in c.get("volumeMounts", [])}
    return found


def _selector(selector: dict) -> str:
    plain = selector.get("matchLabels", {}) if selector.keys() & {"matchLabels", "matchExpressions"} else selector
    more = [json.dumps(e, sort_keys=True) for e in selector.get("matchExpressions", [])]
    return " ".join([f"{k}={v}" for k, v in sorted(plain.items())] + more)


# The image


def image(dockerfile: str) -> dict:
    """What the last stage of a Dockerfile sets for those who run the image."""
    lines = re.sub(r"\\\n", " ", dockerfile.split("\nFROM ")[-1]).splitlines()[1:]
    said: dict[str, list[str]] = {}
    for what, fact in (line.split(maxsplit=1) for line in lines if line and not line.startswith("#")):
        said.setdefault(what, []).append(" ".join(fact.split()))
    return {what: "; ".join(facts) for what, facts in said.items() if what not in ("ARG", "LABEL")}
