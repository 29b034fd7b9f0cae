"""The parts of the test command, and the summary at its end. Called by tests/run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import build_folder
from build_folder import CACHE
from cargo_tests import CargoRun, Name, cargo_test

TOP = Path(__file__).resolve().parents[2]
ORACLES = ["restic", "age", "age-keygen", "gpg", "sqlite3"]
IMAGES = {
    "engines": ["postgres", "mysql", "mariadb", "redis", "rabbitmq", "app", "mongo"],
    "vault": ["postgres", "vault"],
    "recovery": ["postgres", "mysql", "redis", "rabbitmq", "app", "mongo", "vault", "prometheus", "alertmanager"],
}
STARTED = time.monotonic()
# What is made ahead, by its name.
AHEAD: dict[str, Future[tuple[subprocess.CompletedProcess[str], float]]] = {}


@dataclass
class Part:
    """What one part did. Checks (format, lint, documentation) are no tests: a failed one counts, a passed one does not."""

    name: str
    passed: int = 0
    failed: int = 0
    seconds: float = 0.0
    checks: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    # Each with its reason; the number of them is what "skipped" counts.
    left_out: dict[str, str] = field(default_factory=dict)
    # Tests that another part runs. They are left out only if that part was not asked for.
    deferred: dict[Name, str] = field(default_factory=dict)

    def fail(self, what: str) -> None:
        self.failed += 1
        self.failures.append(what)

    def check(self, name: str, command: list[str], environment: dict[str, str] | None = None) -> None:
        heading(f"{self.name}: {name}")
        done = subprocess.run(command, stdin=subprocess.DEVNULL, env=os.environ | (environment or {}))
        if done.returncode == 0:
            self.checks.append(name)
        else:
            self.fail(f"{name}: `{' '.join(command)}` ended with {done.returncode}")

    def count(self, run: CargoRun, command: str) -> None:
        self.passed += run.passed
        self.failed += run.failed
        self.failures += [f"{name.test} ({name.target})" for name in run.failed_tests]
        if run.broke:
            self.fail(f"`{command}` ended with {run.exit_code} and no test said why")


def heading(text: str) -> None:
    print(f"\n== {text}   ({time.monotonic() - STARTED:.0f} s since the start)", flush=True)


def begin(chosen: list[str], pool: ThreadPoolExecutor) -> None:
    """Programs, Docker and images are waited for: by the network, by disks. They are made one after the other while cargo
    compiles, and what they print is shown by the part that needs them."""

    def run(command: list[Path | str]) -> tuple[subprocess.CompletedProcess[str], float]:
        started = time.monotonic()
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        return done, time.monotonic() - started

    commands: dict[str, list[Path | str]] = {}
    if chosen != ["quick"]:
        commands["programs"] = [TOP / "tests/tools/install"]
    for name in chosen:
        if name in IMAGES:
            # Docker itself is not made nice: its containers would be too.
            commands |= {"docker": [TOP / "tests/tools/docker"]}
            commands[f"images of {name}"] = ["nice", TOP / "tests/stack/images", *IMAGES[name]]
    AHEAD.update({name: pool.submit(run, command) for name, command in commands.items()})


def made_ahead(part: Part, name: str) -> subprocess.CompletedProcess[str]:
    heading(f"{part.name}: {name}")
    done, seconds = AHEAD[name].result()
    print(f"{done.stdout}made ahead in {seconds:.0f} s", flush=True)
    return done


def quick(part: Part, _: dict[str, Part]) -> None:
    """What needs nothing but cargo and python3: format, lint, tests, documentation."""
    # What counts the tests is tested first: nothing after it could be believed otherwise.
    part.check("test command", [sys.executable, "-m", "unittest", "discover", "-q", "-s", "tests/tools"])
    part.check("format", ["cargo", "fmt", "--all", "--check"])
    # The last two are for cargo: they differ from clone to clone, or it would take another one's lint for this one's.
    part.check("lint", ["cargo", "clippy", "--all-targets", "--", "-D", "warnings", "--cfg", build_folder.name_of(TOP)])
    heading("quick: cargo test")
    run = cargo_test([])
    part.count(run, "cargo test")
    part.deferred = run.ignored_tests
    if run.passed + run.failed == 0:
        part.fail("`cargo test` ran no test at all")
    part.check("documentation", ["cargo", "doc", "--no-deps"], {"RUSTDOCFLAGS": "-D warnings"})


def oracles(part: Part, parts: dict[str, Part]) -> None:
    """What is compared with programs that nobody here wrote: ignored Rust tests, and scenarios with the real binary."""
    missing = install(part)
    ignored_rust_tests(part, parts.get("quick"), missing)
    if build(part):
        scenarios(part, missing, "files")


def engines(part: Part, _: dict[str, Part]) -> None:
    """Real servers in containers: each engine takes, proves and restores, compared by the server's own client."""
    in_containers(part, "engine")


def vault(part: Part, _: dict[str, Part]) -> None:
    """A real Vault: secrets out of it, and what is said where there are none."""
    in_containers(part, "vault")


def recovery(part: Part, _: dict[str, Part]) -> None:
    """Whole stacks that are gone and come back."""
    in_containers(part, "recovery")


def in_containers(part: Part, kind: str) -> None:
    if not build(part):
        return
    missing = install(part) | told_by(part, "docker", ["docker", "compose"])
    if "docker" not in missing and "compose" not in missing:
        built = made_ahead(part, f"images of {part.name}")
        if built.returncode != 0:
            missing["images"] = f"tests/stack/images ended with {built.returncode}"
            part.fail("the images of the test stack could not be made")
    if lacking := [name for name in ("docker", "compose", "images") if name in missing]:
        part.left_out["every scenario with real servers"] = f"needs {', '.join(lacking)}"
        return
    scenarios(part, missing, kind)


def install(part: Part) -> dict[str, str]:
    """The programs that could not be made available, each with the reason."""
    missing = told_by(part, "programs", ORACLES)
    path = str(CACHE / "bin")
    if not os.environ["PATH"].startswith(f"{path}:"):
        os.environ["PATH"] = f"{path}:{os.environ['PATH']}"
    return missing


def told_by(part: Part, name: str, programs: list[str]) -> dict[str, str]:
    """What an installer says is missing, each with its reason."""
    lines = [line.split(maxsplit=2) for line in made_ahead(part, name).stdout.splitlines()]
    told = {fields[1]: fields for fields in lines if len(fields) == 3 and fields[0] in {"ready", "missing"}}
    missing: dict[str, str] = {}
    for program in programs:
        if program not in told:
            missing[program] = "the installer ended before it came to it"
        elif told[program][0] == "missing":
            missing[program] = told[program][2]
    # Where nobody reads along, a program that could not be had must not look like a success.
    if os.environ.get("CI") and missing:
        for program, reason in missing.items():
            part.fail(f"{program} is missing ({reason}), and CI is set")
    return missing


def ignored_rust_tests(part: Part, quick_part: Part | None, missing: dict[str, str]) -> None:
    heading("oracles: cargo test -- --ignored")
    arguments = ["--ignored", "--exact"]
    left_out: set[str] = set()
    if missing:
        ignored = quick_part.deferred if quick_part else reasons_of_ignored()
        for name, reason in ignored.items():
            if wanted := sorted(program for program in missing if program in reason.replace(",", " ").split()):
                left_out.add(name.test)
                part.left_out[f"{name.test} ({name.target})"] = f"needs {', '.join(wanted)}"
    for test in sorted(left_out):
        arguments += ["--skip", test]
    part.count(cargo_test(["--", *arguments]), "cargo test -- --ignored")
    if quick_part:
        quick_part.deferred = {}


def reasons_of_ignored() -> dict[Name, str]:
    """`--list` gives no reasons, so the ignored tests are asked for by name, which names them without running them."""
    listed = subprocess.run(
        ["cargo", "test", "--", "--ignored", "--list", "--format", "terse"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    )
    names = [line.removesuffix(": test") for line in listed.stdout.splitlines() if line.endswith(": test")]
    return cargo_test(["--", "--exact", *names]).ignored_tests if names else {}


def build(part: Part) -> bool:
    """The binary that the scenarios run: the debug one, which checks its arithmetic, is there after `cargo test`, and stands on
    crates that are optimised all the same. The release's own build takes minutes and is the soak's and the benches'."""
    heading(f"{part.name}: the binary")
    # With the tests: a binary built without them has other features in some dependencies, which would then be built twice.
    built = subprocess.run(["cargo", "test", "--no-run"], stdin=subprocess.DEVNULL)
    if built.returncode != 0:
        part.fail("the binary did not build, so no scenario could run")
    return built.returncode == 0


def scenarios(part: Part, missing: dict[str, str], kind: str) -> None:
    heading(f"{part.name}: scenarios with the real binary")
    target = Path(os.environ.get("CARGO_TARGET_DIR") or os.environ.get("CARGO_BUILD_TARGET_DIR") or TOP / "target")
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [
            sys.executable, str(TOP / "tests/scenarios/run.py"), "--kind", kind, "--report", str(report),
            "--binary", str(target / "debug/devstack"),
        ]
        for program, reason in missing.items():
            command += ["--missing", f"{program}={reason}"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL)
        results = json.loads(report.read_text()) if report.exists() else []
    for result in results:
        if result["outcome"] == "passed":
            part.passed += 1
        elif result["outcome"] == "skipped":
            part.left_out[f"scenario: {result['scenario']}"] = result["reason"]
        else:
            part.fail(f"scenario: {result['scenario']}")
    if not results or (done.returncode != 0 and all(result["outcome"] != "failed" for result in results)):
        part.fail(f"the scenario runner ended with {done.returncode} and did not say why")


PARTS: dict[str, Callable[[Part, dict[str, Part]], None]] = {
    "quick": quick,
    "oracles": oracles,
    "engines": engines,
    "vault": vault,
    "recovery": recovery,
}


def summarize(parts: list[Part], not_asked_for: list[str]) -> int:
    """Prints what ran and what did not, and gives the exit code. A run in which no test ran is a failure."""
    for part in parts:
        for name, reason in part.deferred.items():
            part.left_out[f"{name.test} ({name.target})"] = reason or "ignored; `tests/run oracles` runs it"
    passed = sum(part.passed for part in parts)
    failed = sum(part.failed for part in parts)
    skipped = sum(len(part.left_out) for part in parts)
    print("\n== Summary")
    print(f"{'part':<10} {'passed':>7} {'failed':>7} {'skipped':>8} {'seconds':>8}  checks that passed")
    for part in parts:
        counts = f"{part.passed:>7} {part.failed:>7} {len(part.left_out):>8} {part.seconds:>8.0f}"
        print(f"{part.name:<10} {counts}  {', '.join(part.checks) or '-'}")
    if not_asked_for:
        print(f"not asked for: {', '.join(not_asked_for)}")
    for part in parts:
        for failure in part.failures:
            print(f"FAILED    {part.name}: {failure}")
        for what, why in part.left_out.items():
            print(f"left out  {part.name}: {what}: {why}")
    if passed + failed == 0:
        print("no test ran: that is a failure too")
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    return 1 if failed or passed == 0 else 0


def main(arguments: list[str]) -> int:
    if arguments == ["--list"]:
        print("\n".join(PARTS))
        return 0
    unknown = [name for name in arguments if name not in PARTS]
    if unknown:
        print(f"tests/run: no part is called {unknown[0]}; there are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    os.chdir(TOP)
    if folder := build_folder.chosen():
        # What is made incrementally is of use to who works in one clone; it costs more at first, and much room.
        os.environ |= {"CARGO_INCREMENTAL": "0"} | build_folder.environment(folder, TOP)
    chosen = [name for name in PARTS if not arguments or name in arguments]
    parts: dict[str, Part] = {}
    pool = ThreadPoolExecutor(1)
    try:
        begin(chosen, pool)
        for name in chosen:
            part = parts[name] = Part(name)
            started = time.monotonic()
            PARTS[name](part, parts)
            part.seconds = time.monotonic() - started
    finally:
        pool.shutdown(cancel_futures=True)
    return summarize(list(parts.values()), [name for name in PARTS if name not in chosen])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
