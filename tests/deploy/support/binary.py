"""What the binary accepts and serves, asked from the binary."""

import functools
import json
import os
import re
import subprocess
import tempfile
from pathlib import Path

import yaml

from .net import request
from .tools import run, tenure, tool
from .waiting import eventually

# What the kubelet would say of a pod.
DOWNWARD = {
    "metadata.name": "pod-0",
    "metadata.namespace": "default",
    "metadata.uid": "0b6c8f0e-0000-4000-8000-000000000000",
    "spec.nodeName": "node-0",
    "spec.serviceAccountName": "default",
    "status.podIP": "10.0.0.5",
    "status.hostIP": "10.0.0.1",
}


@functools.cache
def paths() -> frozenset[str]:
    """The paths of `/openapi.json` of a running candidate; its etcd is not there, which it does not need for that."""
    with tempfile.TemporaryDirectory(prefix="tenure-paths-") as directory:
        config, ready = Path(directory, "tenure.yaml"), Path(directory, "ready.json")
        http = {"public": "127.0.0.1:0", "control": f"unix:{directory}/control.sock"}
        config.write_text(json.dumps({"id": "a", "elections": ["a"], "etcd": {"endpoints": ["http://127.0.0.1:1"]}, "http": http}))
        with Path(directory, "log").open("wb") as log:
            child = subprocess.Popen([tenure(), "run", "-c", config, "--ready-file", ready], stdin=subprocess.DEVNULL, stderr=log, stdout=log)
        try:
            public = eventually("the candidate listens", lambda: json.loads(ready.read_text())["public"])
            return frozenset(request(public, "/openapi.json").json()["paths"])
        finally:
            child.kill()
            child.wait(10)


def serves(path: str) -> bool:
    """Whether the binary has this path; `?…` may follow it."""
    path = path.partition("?")[0]
    patterns = (re.sub(r"\\{[^/]*\\}", "[^/]+", re.escape(p)) for p in paths())
    return any(re.fullmatch(p, path) for p in patterns)


@functools.cache
def _refuses(args: tuple[str, ...]) -> str | None:
    done = subprocess.run([tenure(), *args, "--help"], text=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=10)
    return None if done.returncode == 0 else done.stderr.strip().splitlines()[0]


def refuses(args: list[str]) -> list[str]:
    """What the binary has against these arguments: it reads all that stand before `--help`."""
    said = _refuses(tuple(args))
    return [] if said is None else [f"{' '.join(args)}: {said}"]


def refuses_container(c: dict, spec: dict, objects: list[dict]) -> list[str]:
    """What the binary has against the arguments and, where the container runs the daemon, the configuration that it gets."""
    program = c.get("command", ["/tenure"])[0]
    if program != "/tenure":
        return [f"no {program} in the image"]
    with tempfile.TemporaryDirectory(prefix="tenure-pod-") as directory:
        args, env = played(c, spec, objects, Path(directory))
        problems = refuses(args)
        verb = next((a for a in args if not a.startswith("-")), "run")
        if not problems and verb in ("run", "exec", "doctor"):
            check = [tenure(), "config", "check", str(_config(args, env, Path(directory)))]
            done = subprocess.run(check, text=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=10, env=environment(env))
            problems += done.stderr.strip().splitlines() if done.returncode else []
        return [p.replace(directory, "") for p in problems]


def environment(env: dict[str, str]) -> dict[str, str]:
    """A container's environment for a process here: nothing of ours from outside."""
    return {k: v for k, v in os.environ.items() if not k.startswith("TENURE_")} | env


def variables(c: dict, objects: list[dict]) -> dict[str, str]:
    """The environment of a container, as the kubelet would make it; secrets are `secret`."""
    maps = {o["metadata"]["name"]: o.get("data", {}) for o in objects if o["kind"] == "ConfigMap"}
    env = {"HOSTNAME": DOWNWARD["metadata.name"]}
    for source in c.get("envFrom", []):
        if "configMapRef" in source:
            data = maps[source["configMapRef"]["name"]]
            env |= {source.get("prefix", "") + k: v for k, v in data.items()}
    for e in c.get("env", []):
        source = e.get("valueFrom", {})
        if "fieldRef" in source:
            env[e["name"]] = DOWNWARD.get(source["fieldRef"]["fieldPath"], "")
        elif "configMapKeyRef" in source:
            env[e["name"]] = maps[source["configMapKeyRef"]["name"]][source["configMapKeyRef"]["key"]]
        elif "secretKeyRef" in source:
            env[e["name"]] = "secret"
        elif "resourceFieldRef" in source:
            env[e["name"]] = "1"
        else:
            env[e["name"]] = _expand(e.get("value", ""), env)
    return env


def _expand(text: str, env: dict[str, str]) -> str:
    """`$(NAME)`, as Kubernetes replaces it."""
    return re.sub(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)", lambda m: env.get(m[1], m[0]), text)


def played(c: dict, spec: dict, objects: list[dict], directory: Path) -> tuple[list[str], dict[str, str]]:
    """The binary's arguments and the environment in a container, with its mounts laid out below `directory`.

    Paths below a mount are changed to where it is laid out. A file of a Secret that the configuration names is made up.
    """
    env = variables(c, objects)
    args = [_expand(a, env) for a in [*c.get("command", [])[1:], *c.get("args", [] if "command" in c else ["run"])]]
    mounts = {m["mountPath"]: directory / str(i) for i, m in enumerate(c.get("volumeMounts", []))}

    def moved(text: str) -> str:
        for path, place in sorted(mounts.items(), key=lambda m: -len(m[0])):
            text = re.sub(rf"{re.escape(path)}(?=[/\s\"',]|$)", str(place), text)
        return text

    volumes = {v["name"]: v for v in spec.get("volumes", [])}
    texts = {}
    for m in c.get("volumeMounts", []):
        mounts[m["mountPath"]].mkdir(parents=True)
        source = volumes.get(m["name"], {}).get("configMap")
        for o in objects if source else []:
            if o["kind"] == "ConfigMap" and o["metadata"]["name"] == source["name"]:
                texts |= {mounts[m["mountPath"]] / key: moved(text) for key, text in o["data"].items()}
    for path, text in texts.items():
        path.write_text(text)
    args, env = [moved(a) for a in args], {k: moved(v) for k, v in env.items()}
    file = _config(args, env, directory)
    secrets = (_files(yaml.safe_load(file.read_text())) if file.exists() else []) + [v for k, v in env.items() if k.endswith("_FILE")]
    for path in (Path(s) for s in secrets if s.startswith(str(directory))):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_secret(path.name))
    return args, env


@functools.cache
def _pair() -> tuple[str, str]:
    """A certificate and its key: the binary looks into files of TLS."""
    with tempfile.TemporaryDirectory(prefix="tenure-pair-") as directory:
        made = [str(Path(directory) / name) for name in ("cert", "key")]
        run(tool("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "90", "-subj", "/CN=a", "-out", made[0], "-keyout", made[1])
        return Path(made[0]).read_text(), Path(made[1]).read_text()


def _secret(name: str) -> str:
    """What a file of a Secret holds, going by its name."""
    if not name.endswith((".pem", ".crt", ".key")):
        return "secret"
    certificate, key = _pair()
    return key if "key" in name else certificate


def _config(args: list[str], env: dict[str, str], directory: Path) -> Path:
    """The configuration file that is named, or an empty one: then the environment says everything."""
    for i, a in enumerate(args):
        if a in ("-c", "--config"):
            return Path(args[i + 1])
        if a.startswith("--config="):
            return Path(a.removeprefix("--config="))
    if env.get("TENURE_CONFIG"):
        return Path(env["TENURE_CONFIG"])
    (directory / "none.yaml").write_text("{}")
    return directory / "none.yaml"


def _files(tree) -> list[str]:
    """The values of `…_file` keys."""
    if isinstance(tree, list):
        return [f for item in tree for f in _files(item)]
    if not isinstance(tree, dict):
        return []
    own = [v for k, v in tree.items() if k.endswith("_file") and isinstance(v, str)]
    return own + [f for v in tree.values() for f in _files(v)]
