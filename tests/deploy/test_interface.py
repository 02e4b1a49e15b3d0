"""The public interface as the real things show it, held against docs/interface.json: what changes it shows in review.

`INTERFACE=rewrite make test-deploy TEST=interface` writes the file anew.
"""

import base64
import copy
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from support import interface
from support.binary import environment
from support.chart import CHART
from support.cluster import Candidate, Etcd, leader_of
from support.manifests import of_kind, parse, render, with_dependencies
from support.net import Answer, free_port, request
from support.tools import ROOT, run, tenure, tool
from support.waiting import eventually

FILE = ROOT / "docs/interface.json"
LIBRARY = ROOT / "helm/tenure-lib"
PREFIX, ELECTION = "/interface", "orders"
# What makes tenure-lib lay all that it can into a pod.
SIDECAR = {
    "elections": ["orders"],
    "etcd": {
        "endpoints": ["https://etcd:2379"],
        "username": "tenure",
        "passwordSecret": {"name": "etcd-user"},
        "tls": {"existingSecret": "etcd-client", "certKey": "tls.crt", "keyKey": "tls.key"},
    },
}
INCLUDES = """
{{ include "tenure-lib.leaderService" (dict "root" . "selector" (dict "app" "app") "ports" (list (dict "port" 80 "targetPort" 8080))) }}
---
{{ include "tenure-lib.role" (dict "root" . "serviceAccountName" "app") }}
---
{{ include "tenure-lib.podMonitor" (dict "root" . "selector" (dict "app" "app")) }}
---
kind: ConfigMap
metadata: {name: defaults}
data: {{ include "tenure-lib.defaults" . | fromYaml | toJson }}
---
kind: Pod
metadata:
  name: pod
  annotations: {{ include "tenure-lib.podAnnotations" . | nindent 4 }}
spec:
  securityContext: {{ include "tenure-lib.podSecurityContext" . | nindent 4 }}
  initContainers: {{ include "tenure-lib.sidecar" (dict "root" . "mode" "native") | nindent 4 }}
  containers:
    - name: app
      volumeMounts: {{ include "tenure-lib.appVolumeMounts" . | nindent 8 }}
  volumes: {{ include "tenure-lib.volumes" . | nindent 4 }}
"""


def etcdctl(etcd: Etcd, *args: str) -> str:
    directory = run(ROOT / "dev/etcd", "path", cwd=ROOT).stdout.strip()
    return run(f"{directory}/etcdctl", "--endpoints", etcd.endpoint, *args).stdout


def stored(etcd: Etcd, prefix: str) -> list[tuple[str, dict]]:
    kvs = json.loads(etcdctl(etcd, "get", "--prefix", prefix, "-w", "json")).get("kvs", [])
    return [(base64.b64decode(kv["key"]).decode(), json.loads(base64.b64decode(kv["value"]))) for kv in kvs]


class Seen:
    """What the real things show, before anything is made of it."""

    def __init__(self, etcd: Etcd, start: Callable[..., Candidate], directory: Path):
        self.start, self.dir = start, directory
        self.answers: list[tuple[str, str, Answer]] = []
        self.outputs: dict[str, tuple[int, list]] = {}
        self.daemons(etcd)
        self.texts()
        self.charts()

    def changed(self, change: Callable[["Seen"], object]) -> "Seen":
        """Another that shows something else."""
        other = copy.copy(self)
        vars(other).update({k: copy.deepcopy(v) for k, v in vars(self).items() if k not in ("start", "dir")})
        change(other)
        return other

    # Of running daemons

    def daemons(self, etcd: Etcd) -> None:
        audit = self.dir / "audit"
        shared = {"etcd": {"prefix": PREFIX}, "state_dir": str(self.dir), "log": {"format": "json"}, "audit": {"file": str(audit)}}
        first = self.start("pod-0", config=shared | {"http": {"advertise_url": "http://pod-0.example"}})
        leader_of([first])
        second = self.start("pod-1", config={"etcd": {"prefix": PREFIX}})
        eventually("the second follows", lambda: second.get("/follower").status == 200)
        eventually("the second is queued", lambda: second.get("/").json()["role"] == "candidate")
        self.document = first.get("/openapi.json").json()
        paused = self.pause(etcd, first)
        self.leader(first)
        self.follower(second)
        self.lonely()
        self.handovers(first, second)
        # A leader and one who waits: only the leader's key has a generation.
        self.kvs = [*stored(etcd, PREFIX), *paused, *self.raised(etcd)]
        self.drain(first, second)
        self.audit = [json.loads(line) for line in audit.read_text().splitlines()]
        self.log = [json.loads(line) for line in first.text().splitlines() if '"transition"' in line]
        routes = [{"route": "label"}, {"route": "endpoint_slice", "service": "leader", "address": "10.0.0.5"}]
        self.metrics = [first.get("/metrics").body.decode(), *map(self.routed, routes)]

    def pause(self, etcd: Etcd, one: Candidate) -> list[tuple[str, dict]]:
        """The key that docs/operations.md has people write, by the very command, and what it does."""
        lines = re.findall(r"^    etcdctl ((?:put|del) /tenure/.*)$", (ROOT / "docs/operations.md").read_text(), re.M)
        put, delete = ([w.strip("'") for w in line.replace("/tenure/", f"{PREFIX}/").replace("NAME", ELECTION).split()] for line in lines)
        etcdctl(etcd, *put)
        eventually("the leader says that it is paused", lambda: one.get("/").json()["paused"])
        found = [kv for kv in stored(etcd, PREFIX) if kv[0] == put[1]]
        etcdctl(etcd, *delete)
        eventually("the pause is over", lambda: not one.get("/").json()["paused"])
        return found

    def see(self, where: str | Path, method: str, path: str, template: str = "", **options) -> None:
        template = template or path.partition("?")[0].replace(f"/{ELECTION}", "/{election}")
        self.answers.append((method, template, request(where, path, method=method, **options)))

    def call(self, name: str, *args: str | Path, env: dict | None = None) -> None:
        done = run(tenure(), *args, "--output", "json", check=False, env=environment(env or {}), timeout=60)
        text = done.stdout.strip()
        self.outputs[name] = (done.returncode, [json.loads(line) for line in text.splitlines()])

    def leader(self, one: Candidate) -> None:
        token = one.token()
        for path in [p for p, item in self.document["paths"].items() if "get" in item]:
            self.see(one.control, "GET", path.replace("{election}", ELECTION).replace("{path}", "a"), path)
        self.see(one.control, "OPTIONS", "/token")
        self.see(one.control, "POST", f"/v1/elections/{ELECTION}/verify", body=json.dumps({"token": token}).encode())
        self.see(one.control, "POST", f"/v1/elections/{ELECTION}/verify", body=b'{"token": 999}')
        control = ["--control", f"unix:{one.control}"]
        for command in ("status", "token", "history", "candidates"):
            self.call(f"{command}, of the leader", command, *control)
        for command in ("check --expect leader", "check --expect ready", "check --expect live", "wait --until leader"):
            self.call(f"{command}, of the leader", *command.split(), *control)
        self.call("verify, of the leader's token", "verify", str(token), *control)
        self.call("verify, of no token", "verify", "999", *control)
        self.call("doctor", "doctor", "-c", one.config)
        self.call("config check", "config", "check", one.config)

    def follower(self, one: Candidate) -> None:
        for path in ("/leader", "/gate", f"/v1/elections/{ELECTION}/redirect"):
            self.see(one.public, "GET", path)
        self.see(one.control, "GET", "/token")
        self.see(one.public, "GET", "/gate", headers={"Fencing-Token": "0"})
        self.see(one.public, "GET", "/gate", headers={"Fencing-Token": "x"})
        self.see(one.control, "POST", f"/v1/elections/{ELECTION}/resign")
        control = ["--control", f"unix:{one.control}"]
        self.call("token, of another", "token", *control)
        self.call("check --expect leader, of another", "check", "--expect", "leader", *control)
        self.call("wait --until leader, of another", "wait", "--until", "leader", "--timeout", "50ms", *control)
        self.call("resign, of another", "resign", *control)

    def lonely(self) -> None:
        """Without an etcd, and with an admin token."""
        secret, door = self.dir / "token", f"127.0.0.1:{free_port()}"
        secret.write_text("secret")
        secret.chmod(0o600)
        http = {"control": door, "admin_token_file": str(secret), "request_timeout": "300ms"}
        dead = {"endpoints": ["http://127.0.0.1:1"]}
        one = self.start("lonely", config={"etcd": dead, "http": http, "startup": {"wait_for_etcd": True}})
        for path in ("/readyz", "/startupz", "/leader"):
            self.see(one.public, "GET", path)
        for path in ("leader", "redirect", "candidates"):
            self.see(one.public, "GET", f"/v1/elections/{ELECTION}/{path}")
        self.see(one.public, "GET", "/leader?election=other")
        self.see(one.public, "GET", "/nowhere")
        self.see(one.public, "POST", "/version")
        self.see(one.public, "GET", "/v1/elections/orders?wait=x")
        self.see(door, "POST", "/v1/drain")
        bearer = {"Authorization": "Bearer secret"}
        self.see(door, "POST", "/v1/drain", headers=bearer | {"Content-Length": "2"})
        self.see(door, "POST", "/v1/drain", headers=bearer | {"Content-Length": "2000000"})
        nobody, wrong = ["--control", f"unix:{self.dir}/none"], self.dir / "wrong.yaml"
        wrong.write_text("elections: []\nsession: {ttl: 1s}\n")
        self.call("status, of nobody", "status", *nobody)
        self.call("config check, of a wrong one", "config", "check", wrong)
        self.call("a flag that is not", "status", "--none")

    def handovers(self, first: Candidate, second: Candidate) -> None:
        control = ["--control", f"unix:{second.control}"]
        self.see(first.control, "POST", f"/v1/elections/{ELECTION}/resign")
        eventually("the second leads", second.leads)
        eventually("the first is queued", lambda: first.get("/").json()["role"] == "candidate")
        self.call("resign", "resign", *control)
        eventually("the first leads", first.leads)
        self.see(first.control, "POST", f"/v1/elections/{ELECTION}/verify", body=b'{"token": 1}')
        eventually("the second is queued", lambda: second.get("/").json()["role"] == "candidate")

    def drain(self, first: Candidate, second: Candidate) -> None:
        """The second drains, so that the first, who has nobody to hand over to, leads anew each time."""
        leader, drained = (["--control", f"unix:{one.control}"] for one in (first, second))
        self.see(second.control, "POST", "/v1/drain")
        self.see(second.control, "POST", f"/v1/elections/{ELECTION}/drained")
        self.call("drained, of nothing", "drained", *drained)
        self.see(first.control, "POST", f"/v1/elections/{ELECTION}/drained")
        eventually("the first leads", first.leads)
        self.call("drained", "drained", *leader)
        eventually("the first leads again", first.leads)
        self.see(second.control, "POST", "/v1/undrain")
        self.see(second.control, "POST", "/v1/undrain")
        self.call("drain", "drain", *drained)
        self.call("undrain", "undrain", *drained)

    def raised(self, etcd: Etcd) -> list[tuple[str, dict]]:
        """Of a daemon that remembers more than there is."""
        mark = self.dir / "high-water.json"
        eventually("the generation is remembered", lambda: json.loads(mark.read_text())["generations"][ELECTION] > 1)
        other = self.dir / "other"
        other.mkdir()
        (other / mark.name).write_text(mark.read_text())
        leader_of([self.start("pod-2", config={"etcd": {"prefix": f"{PREFIX}-raised"}, "state_dir": str(other)})])
        return [(k.replace("-raised", "", 1), v) for k, v in stored(etcd, f"{PREFIX}-raised")]

    def routed(self, kubernetes: dict) -> str:
        """The metrics of a daemon that routes, with an API server that is not there."""
        config = self.dir / "kubeconfig"
        cluster = [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}]
        context = [{"name": "c", "context": {"cluster": "c", "user": ""}}]
        config.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", "clusters": cluster, "contexts": context, "current-context": "c"}))
        one = self.start("pod-3", config={"kubernetes": kubernetes | {"pod": "pod-3", "namespace": "default"}}, env={"KUBECONFIG": str(config)})
        return one.get("/metrics").body.decode()

    # Of the binary's texts

    def texts(self) -> None:
        self.help: dict[str, str] = {}
        below = [()]
        for path in below:
            self.help[" ".join(("tenure", *path))] = text = run(tenure(), *path, "--help", env={**os.environ, "COLUMNS": "1000"}).stdout
            below += [(*path, name) for name in interface.below(text)]
        self.configuration = yaml.safe_load(run(tenure(), "config", "example").stdout)
        # What hardly any key takes, for all and then, since limits are looked at only where all can be read, for each.
        wrong = [_replaced(self.configuration, key, by) for key in ("", *interface.values(self.configuration)) for by in ("?", "1h")]
        self.refusals = [e for tree in wrong for e in self.checked({}, json.dumps(tree))]
        # Said of those variables that the binary would have read, and of no other.
        keys = [key.partition("[")[0] for key in interface.values(self.configuration)]
        names = {f"TENURE_{key.replace('.', '__').upper()}" for key in keys}
        self.variables = self.checked(dict.fromkeys(names, b"\xff"), "{}")

    def checked(self, env: dict, text: str) -> list[dict]:
        file = self.dir / "checked.yaml"
        file.write_text(text)
        done = run(tenure(), "config", "check", file, "--output", "json", check=False, env=environment(env))
        return json.loads(done.stdout).get("errors", [])

    # Of charts and the image

    def charts(self) -> None:
        self.chart_values = yaml.safe_load((CHART / "values.yaml").read_text())
        self.chart_schema = json.loads((CHART / "values.schema.json").read_text())
        self.chart_objects = {f.stem: render(CHART, yaml.safe_load(f.read_text())) for f in sorted((CHART / "ci").iterdir())}
        self.library_readme = (LIBRARY / "README.md").read_text()
        self.library_templates = "".join(f.read_text() for f in sorted((LIBRARY / "templates").iterdir()))
        self.library_objects = {mode: self.library(mode) for mode in ("label", "endpointSlice")}
        self.dockerfile = (ROOT / "deploy/Dockerfile.prebuilt").read_text()

    def library(self, mode: str) -> list[dict]:
        """What tenure-lib gives a chart that includes all that its README names; the defaults are in the ConfigMap."""
        chart = self.dir / mode
        (chart / "templates").mkdir(parents=True)
        dependency = {"name": "tenure-lib", "version": "0.1.0", "repository": f"file://{LIBRARY}"}
        (chart / "Chart.yaml").write_text(json.dumps({"apiVersion": "v2", "name": "app", "version": "0.1.0", "dependencies": [dependency]}))
        (chart / "values.yaml").write_text(json.dumps({"tenure": {**SIDECAR, "routing": {"mode": mode}}}))
        (chart / "templates/all.yaml").write_text(INCLUDES)
        return parse(run(tool("helm"), "template", "t", with_dependencies(chart, self.dir / f"with-{mode}")).stdout)


def _replaced(tree, key: str, by: str, path: str = ""):
    """With another value at `key`, which is as `interface.values` has it; at all keys if it is empty."""
    if isinstance(tree, dict):
        return {k: _replaced(v, key, by, f"{path}.{k}" if path else k) for k, v in tree.items()}
    if isinstance(tree, list) and any(isinstance(item, dict) for item in tree):
        return [_replaced(v, key, by, f"{path}[{i}]") for i, v in enumerate(tree)]
    return by if key in ("", path) else tree


def facts(seen: Seen) -> dict:
    """The interface, one fact a line."""
    configuration = interface.values(seen.configuration)
    called = " ".join(seen.help.values())
    written = set(re.findall(r'define "(tenure-lib\.\w+)"', seen.library_templates))
    accepted: dict[str, set[str]] = {}
    for e in seen.refusals:
        accepted.setdefault(e["key"], set()).add(e["message"].rpartition("accepted: ")[2])
    read = {e["place"].removeprefix("environment ") for e in seen.variables if e["message"].endswith("UTF-8")}
    return {
        "http": interface.http(seen.document),
        "documents": interface.documents(seen.document),
        "answers": interface.answers(seen.document, seen.answers),
        "metrics": interface.metrics(seen.metrics),
        "configuration": configuration,
        "configuration_accepts": {key: "; ".join(sorted(accepts)) for key, accepts in accepted.items()},
        "variables": dict.fromkeys(read, "of a key") | dict.fromkeys(re.findall(r"\$(TENURE_\w+)", called), "of the command line"),
        "commands": {name: interface.command(text) for name, text in seen.help.items()},
        "exit_codes": interface.exit_codes(seen.help["tenure"]),
        "outputs": {name: {"exit code": code, **interface.shape(printed)} for name, (code, printed) in seen.outputs.items()},
        "etcd": interface.keys(seen.kvs, PREFIX, ELECTION),
        "audit": interface.shape(seen.audit),
        "log": interface.shape(seen.log),
        "chart": {
            "values": interface.values(seen.chart_values),
            "schema": interface.schema(seen.chart_schema),
            "objects": {name: interface.objects(rendered) for name, rendered in seen.chart_objects.items()},
        },
        "library": {
            "values": interface.values(of_kind(seen.library_objects["label"], "ConfigMap")[0]["data"]),
            "templates": interface.templates(seen.library_readme, written),
            "objects": {name: interface.objects(rendered) for name, rendered in seen.library_objects.items()},
        },
        "image": {**interface.image(seen.dockerfile), "socket in": str(Path(configuration["http.control"].removeprefix("unix:")).parent)},
    }


@pytest.fixture(scope="module")
def seen(etcd: Etcd, tmp_path_factory: pytest.TempPathFactory):
    directory, started = tmp_path_factory.mktemp("interface"), []

    def start(id: str, config: dict, **options) -> Candidate:
        started.append(Candidate(directory, id, etcd.endpoint, config, **options))
        return started[-1]

    try:
        yield Seen(etcd, start, directory)
    finally:
        for one in reversed(started):
            one.end()


def differences(before: dict, now: dict) -> list[str]:
    before, now = interface.values(json.loads(json.dumps(before))), interface.values(json.loads(json.dumps(now)))
    shows = {key: (before.get(key, "absent"), now.get(key, "absent")) for key in sorted(before.keys() | now.keys())}
    return [f"{key}: {then} → {is_now}" for key, (then, is_now) in shows.items() if then != is_now]


def test_the_public_interface_is_what_the_file_says(seen: Seen):
    shown = facts(seen)
    if os.environ.get("INTERFACE") == "rewrite":
        FILE.write_text(json.dumps(shown, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    changed = differences(json.loads(FILE.read_text()), shown)
    assert not changed, (
        "the public interface is another than docs/interface.json says. If it was meant to change: docs/versioning.md has the rules, "
        "`INTERFACE=rewrite make test-deploy TEST=interface` writes the file.\n" + "\n".join(changed)
    )


def schema(seen: Seen, name: str) -> dict:
    return seen.document["components"]["schemas"][name]["properties"]


def operation(seen: Seen, path: str, method: str = "get") -> dict:
    return seen.document["paths"][path][method]


def answer(seen: Seen, template: str, status: int) -> Answer:
    return next(a for _, t, a in seen.answers if (t, a.status) == (template, status))


def body_without(seen: Seen, template: str, status: int, member: str) -> None:
    index = next(i for i, (_, t, a) in enumerate(seen.answers) if (t, a.status) == (template, status))
    method, _, was = seen.answers[index]
    left = {k: v for k, v in was.json().items() if k != member}
    seen.answers[index] = (method, template, Answer(was.status, was.headers, json.dumps(left).encode()))


def ended(seen: Seen, command: str, code: int) -> None:
    seen.outputs[command] = (code, seen.outputs[command][1])


def page(seen: Seen, old: str, new: str) -> None:
    seen.metrics = [re.sub(old, new, text) for text in seen.metrics]


def helped(seen: Seen, command: str, old: str, new: str) -> None:
    seen.help[command] = seen.help[command].replace(old, new)


def edited(seen: Seen, text: str, old: str, new: str) -> None:
    setattr(seen, text, getattr(seen, text).replace(old, new))


def value_of(seen: Seen, key: str) -> dict:
    return next(v for k, v in seen.kvs if k.startswith(f"{PREFIX}/{key}/"))


def pod(rendered: list[dict], kind: str = "Deployment") -> dict:
    (o,) = of_kind(rendered, kind)
    return o["spec"]["template"]["spec"] if kind == "Deployment" else o["spec"]


# What a change does to what is seen, and where it has to show.
CHANGES: dict[str, tuple[Callable[[Seen], object], str]] = {
    "a path": (lambda s: s.document["paths"].pop("/health"), "http./health"),
    "a method": (lambda s: s.document["paths"]["/health"].pop("head"), "http./health"),
    "a status": (lambda s: operation(s, "/health")["responses"].pop("503"), "http./health"),
    "the listener": (lambda s: operation(s, "/token").update({"x-listener": "public"}), "http./token"),
    "a query parameter": (lambda s: operation(s, "/health").pop("parameters"), "takes query election"),
    "what a parameter takes": (lambda s: operation(s, "/health")["parameters"][0]["schema"].update(pattern="x"), "takes query election"),
    "a parameter of the path": (lambda s: s.document["paths"]["/gate/{path}"].pop("parameters"), "takes path path"),
    "a body": (lambda s: operation(s, "/v1/drain", "post").pop("requestBody"), "takes body"),
    "who may": (lambda s: operation(s, "/v1/drain", "post").pop("security"), "security"),
    "a header": (lambda s: operation(s, "/token")["responses"]["200"]["headers"].pop("Fencing-Token"), "http./token.GET 200"),
    "a content": (lambda s: operation(s, "/token")["responses"]["200"].pop("content"), "http./token.GET 200"),
    "another document": (
        lambda s: operation(s, "/token")["responses"]["200"]["content"]["application/json"].update(schema={"$ref": "#/components/schemas/Status"}),
        "http./token.GET 200",
    ),
    "a key": (lambda s: schema(s, "Token").pop("term"), "documents.Token.Token.term"),
    "a key's type": (lambda s: schema(s, "Token")["token"].update(type="string"), "documents.Token.Token.token"),
    "a key that may be absent": (lambda s: s.document["components"]["schemas"]["Token"]["required"].remove("token"), "Token.token?"),
    "a key within": (lambda s: schema(s, "Candidates")["candidates"]["items"]["properties"].pop("lease"), "Candidates.candidates[].lease"),
    "a key within what may be null": (lambda s: schema(s, "Status")["session"]["oneOf"][0]["properties"].pop("ttl_ms"), "Status.session.ttl_ms"),
    "what may be null": (lambda s: schema(s, "Status")["leader"]["oneOf"].pop(), "documents.Status.Status.leader"),
    "a word": (lambda s: schema(s, "Status")["reason"]["enum"].remove("elected"), "documents.Status.Status.reason"),
    "a limit": (lambda s: schema(s, "Resign")["cooldown_ms"].update(maximum=1), "Resign.cooldown_ms?"),
    "a code": (lambda s: schema(s, "Problem")["code"]["enum"].remove("not_leader"), "documents.Problem.Problem.code"),
    "an answer's header": (lambda s: answer(s, "/gate", 403).headers.pop("fencing-leader"), "answers.GET /gate 403"),
    "an answer's key": (lambda s: body_without(s, "/version", 200, "revision"), "answers.GET /version 200.body.revision"),
    "a problem's own key": (lambda s: body_without(s, "/gate", 403, "generation"), "answers.GET /gate 403"),
    "a family": (lambda s: page(s, ".*tenure_kubernetes_writes_total.*", ""), "metrics.tenure_kubernetes_writes_total"),
    "a family's type": (lambda s: page(s, "(TYPE tenure_is_leader) gauge", r"\1 counter"), "metrics.tenure_is_leader"),
    "a label": (lambda s: page(s, r'(tenure_fenced_total\{)door="\w+",', r"\1"), "metrics.tenure_fenced_total"),
    "a configuration key": (lambda s: s.configuration["session"].pop("slack"), "configuration.session.slack"),
    "a default": (lambda s: s.configuration["session"].update(slack="1s"), "configuration.session.slack"),
    "what a key takes": (
        lambda s: [e.update(message="accepted: 5s to 300s") for e in s.refusals if e["key"] == "session.ttl"],
        "configuration_accepts.session.ttl",
    ),
    "a variable of a key": (lambda s: [e.update(place="") for e in s.variables if e["place"].endswith(" TENURE_ID")], "variables.TENURE_ID"),
    "a variable of the commands": (lambda s: [helped(s, command, "$TENURE_CONTROL", "") for command in s.help], "variables.TENURE_CONTROL"),
    "a command": (lambda s: s.help.pop("tenure verify"), "commands.tenure verify"),
    "an argument": (lambda s: helped(s, "tenure verify", " <TOKEN>\n", "\n"), "commands.tenure verify.usage"),
    "a flag": (lambda s: helped(s, "tenure wait", "      --timeout", "      --limit"), "commands.tenure wait.--timeout"),
    "a short flag": (lambda s: helped(s, "tenure status", "-w, ", ""), "commands.tenure status.-w"),
    "a flag's value": (lambda s: helped(s, "tenure check", "- live:", "- alive:"), "commands.tenure check.--expect"),
    "a flag's default": (lambda s: helped(s, "tenure check", "[default: 10s]", "[default: 1s]"), "commands.tenure check.--request-timeout"),
    "what an exit code means": (lambda s: helped(s, "tenure", "5 unavailable", "5 failed"), "exit_codes.5"),
    "an exit code": (lambda s: ended(s, "token, of another", 1), "outputs.token, of another.exit code"),
    "what a command prints": (lambda s: s.outputs["candidates, of the leader"][1][0].pop("candidates"), "outputs.candidates, of the leader"),
    "a member of a candidate": (lambda s: [v.pop("priority") for k, v in s.kvs if "/elections/" in k], "etcd.PREFIX/elections"),
    "a member of a record": (lambda s: value_of(s, "generations").pop("hlc"), "etcd.PREFIX/generations/ELECTION.hlc"),
    "the key of a pause": (lambda s: s.kvs.remove(next(kv for kv in s.kvs if "/control/" in kv[0])), "etcd.PREFIX/control/ELECTION"),
    "a cause": (
        lambda s: [v.update(cause="lifted") for _, v in s.kvs if v.get("cause") == "raised"],
        "etcd.PREFIX/history/ELECTION/GENERATION (20 digits).cause",
    ),
    "a field of the audit": (lambda s: [line.pop("hlc") for line in s.audit], "audit.hlc"),
    "a field of the log": (lambda s: [line.pop("reason") for line in s.log], "log.reason"),
    "a chart's value": (lambda s: s.chart_values["session"].pop("ttl"), "chart.values.session.ttl"),
    "a chart's default": (lambda s: s.chart_values.update(replicaCount=2), "chart.values.replicaCount"),
    "what a value takes": (
        lambda s: s.chart_schema["properties"]["log"]["properties"]["format"]["enum"].remove("json"),
        "chart.schema.values.log.format",
    ),
    "what several values take": (lambda s: s.chart_schema["definitions"]["port"].update(maximum=1), "chart.schema.definitions.port"),
    "an object's name": (
        lambda s: of_kind(s.chart_objects["label-values"], "Service")[0]["metadata"].update(name="x"),
        "chart.objects.label-values.Service/",
    ),
    "a selector": (
        lambda s: of_kind(s.chart_objects["default-values"], "Deployment")[0]["spec"]["selector"]["matchLabels"].update(a="b"),
        "chart.objects.default-values.Deployment/t-tenure",
    ),
    "a volume's name": (lambda s: pod(s.chart_objects["default-values"])["volumes"][0].update(name="x"), "chart.objects.default-values"),
    "a value of the library": (lambda s: of_kind(s.library_objects["label"], "ConfigMap")[0]["data"]["http"].pop("port"), "library.values.http.port"),
    "a template": (lambda s: edited(s, "library_templates", 'define "tenure-lib.sidecar"', ""), "library.templates.tenure-lib.sidecar"),
    "a template's argument": (lambda s: edited(s, "library_readme", '"mode"', '"kind"'), "library.templates.tenure-lib.sidecar"),
    "where the socket is": (
        lambda s: pod(s.library_objects["label"], "Pod")["containers"][0]["volumeMounts"][0].update(mountPath="/x"),
        "library.objects.label.Pod/pod container app",
    ),
    "the image's user": (lambda s: edited(s, "dockerfile", "USER 65532", "USER 65533"), "image.USER"),
    "the image's port": (lambda s: edited(s, "dockerfile", "EXPOSE 4790", "EXPOSE 80"), "image.EXPOSE"),
    "the image's entry point": (lambda s: edited(s, "dockerfile", 'ENTRYPOINT ["/tenure"]', ""), "image.ENTRYPOINT"),
    "where the image has its socket": (lambda s: s.configuration["http"].update(control="unix:/tmp/s"), "image.socket in"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_is_seen(what: str, seen: Seen):
    change, where = CHANGES[what]
    shows = differences(facts(seen), facts(seen.changed(change)))
    assert any(where in line for line in shows), shows


def test_every_part_is_changed_here(seen: Seen):
    """A part that is added gets a change as well."""
    assert facts(seen).keys() <= {where.partition(".")[0] for _, where in CHANGES.values()}


def test_a_member_that_a_daemon_does_not_know_is_ignored(etcd: Etcd, candidate):
    """A newer version may have written it: docs/versioning.md builds on that."""
    record = {"generation": 41, "term": 0, "holder": None, "url": "", "key": "", "created": 0, "cause": "raised"}
    record |= {"elected_at": "2026-01-31T00:00:00.000Z", "hlc": "2026-01-31T00:00:00.000Z+00000000", "future": {"of": [1]}}
    etcdctl(etcd, "put", "/newer/generations/orders", json.dumps(record))
    assert leader_of([candidate("pod-0", config={"etcd": {"prefix": "/newer"}})]).token() == 42
