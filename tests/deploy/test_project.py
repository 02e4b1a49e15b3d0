"""Workflows, templates and what they name: checked by their own tools, and against the repository."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from support import tools
from support.tools import ROOT, run, tool

GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
SCRIPTS = sorted((GITHUB / "scripts").iterdir())
VERSION = re.search(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.M)[1]


def steps(workflow: Path) -> list[dict]:
    return [step for job in yaml.safe_load(workflow.read_text())["jobs"].values() for step in job.get("steps", [])]


def commands(workflow: Path) -> str:
    return "\n".join(step.get("run", "") for step in steps(workflow))


def test_actionlint_and_shellcheck_have_nothing_against_the_workflows():
    run(tool("actionlint"), f"-shellcheck={tool('shellcheck')}", "-pyflakes=", *WORKFLOWS, cwd=ROOT)
    run(tool("shellcheck"), *SCRIPTS)


@pytest.mark.parametrize(
    "schema, files",
    [
        ("github-workflows", WORKFLOWS),
        ("custom.github-workflows-require-timeout", [w for w in WORKFLOWS if w.name != "release.yml"]),
        ("dependabot", [GITHUB / "dependabot.yml"]),
        ("github-issue-config", [GITHUB / "ISSUE_TEMPLATE/config.yml"]),
        ("github-issue-forms", [f for f in sorted((GITHUB / "ISSUE_TEMPLATE").iterdir()) if f.name != "config.yml"]),
    ],
)
def test_files_that_github_reads_fit_their_schema(schema, files):
    name = schema if schema.startswith("custom.") else f"vendor.{schema}"
    run(tool("check-jsonschema"), "--builtin-schema", name, *files)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda w: w.name)
def test_a_workflow_may_only_read_unless_a_job_says_more(workflow):
    assert yaml.safe_load(workflow.read_text())["permissions"] == {"contents": "read"}


def test_actions_are_pinned_by_commit_each_to_one():
    used = [u for w in WORKFLOWS for u in re.findall(r"uses: ([^.\s].*)$", w.read_text(), re.M)]
    loose = [u for u in used if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", u)]
    assert used and not loose
    actions = [u.split("@")[0] for u in set(used)]
    assert len(actions) == len(set(actions)), f"one action at two versions: {sorted(set(used))}"


@pytest.mark.parametrize("file", [*WORKFLOWS, ROOT / "CONTRIBUTING.md", GITHUB / "pull_request_template.md"], ids=lambda f: f.name)
def test_targets_and_paths_that_are_named_exist(file):
    text = file.read_text()
    said = commands(file) if file.suffix == ".yml" else text
    targets = set(re.findall(r"\bmake ([a-z][a-z-]*)", said))
    known = set(re.findall(r"^([a-z][a-z- ]*):", (ROOT / "Makefile").read_text(), re.M))
    known |= {word for line in known for word in line.split()}
    assert targets <= known, f"no such targets of make: {targets - known}"
    # Literal paths and patterns of what is committed; `target` and `dist` are made.
    paths = set(re.findall(r"(?<![\w./~$-])((?:\.github|deploy|dev|docs|helm|tests)/[\w./*-]*[\w*])", text))
    missing = [p for p in paths if not list(ROOT.glob(p))]
    assert not missing, f"not in the repository: {missing}"


def test_every_package_that_the_tests_name_is_in_the_one_list():
    wanted = {how.removeprefix("apt-get install ") for how in tools._SOURCES.values() if how.startswith("apt-get install ")}
    # Whoever is not root needs sudo, and has it.
    assert wanted - {"sudo"} <= set((ROOT / "dev/setup").read_text().split())
    assert "dev/setup deploy" in commands(GITHUB / "workflows/ci.yml")


def test_who_may_not_install_is_told_in_one_line_what_and_how(tmp_path: Path):
    """As somebody without rights, on a machine without what is wanted."""
    for name in ("bash", "id", "sort", "env", "uname"):
        (tmp_path / name).symlink_to(shutil.which(name))
    shutil.copy(ROOT / "dev/setup", tmp_path / "setup")
    # In a user namespace of its own, whose ids are nobody's.
    done = run("unshare", "--user", "env", f"PATH={tmp_path}", "bash", tmp_path / "setup", "build", "python", check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "a C compiler" in line and "python3" in line
    assert re.search(r"apt-get install --no-install-recommends .*\bgcc\b.*\bpython3-venv\b", line)


def test_dependabot_looks_where_there_is_something():
    files = {"cargo": "Cargo.toml", "github-actions": ".github/workflows", "pip": "requirements.txt", "gomod": "go.mod", "docker": "Dockerfile*"}
    for update in yaml.safe_load((GITHUB / "dependabot.yml").read_text())["updates"]:
        for directory in update.get("directories", [update.get("directory")]):
            assert list(ROOT.glob(f"{directory.strip('/')}/{files[update['package-ecosystem']]}".lstrip("/"))), update


def script(name: str, *args: str) -> subprocess.CompletedProcess[str]:
    return run(GITHUB / "scripts" / name, *args, check=False)


def test_the_versions_agree_and_a_release_stops_where_they_do_not():
    done = script("version", f"v{VERSION}")
    assert (done.returncode, done.stdout) == (0, f"{VERSION}\n"), done.stderr
    other = script("version", "v99.0.0")
    assert other.returncode == 1 and "the tag says '99.0.0'" in other.stderr


def test_the_notes_of_a_release_are_its_section_of_the_changelog(tmp_path):
    missing = script("changes", "99.0.0")
    assert missing.returncode == 1 and "has no section '## 99.0.0'" in missing.stderr
    # Not of a version that begins alike, and not beyond the next heading.
    (tmp_path / ".github/scripts").mkdir(parents=True)
    copy = tmp_path / ".github/scripts/changes"
    copy.write_text((GITHUB / "scripts/changes").read_text())
    copy.chmod(0o755)
    (tmp_path / "CHANGELOG.md").write_text("## 1.2.30\nA\n\n## 1.2.3 (2026-01-31)\nB\n### C\nD\n\n## 1.2.2\nE\n")
    assert run(copy, "1.2.3").stdout.split() == ["B", "###", "C", "D"]
