"""Takes, changes, damages and restores a whole stack of servers with each tool in turn, and prints what each took."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/scenarios"))

from compare import Sample, bytes_below, machine, run  # noqa: E402
from compose_stack import ComposeStack, compose_stack  # noqa: E402
from scenario import World  # noqa: E402
from stack_data import ALL, Data  # noqa: E402
from stack_tools import AGAIN, BACKUP, RESTORE, TOOLS, StackTool, version  # noqa: E402

# What the project has set itself: devstack's time or bytes divided by the other's.
GOALS = {
    ("floor", BACKUP): 1.2,
    ("borgmatic", BACKUP): 0.75,
    ("borgmatic", RESTORE): 0.6,
    ("borgmatic", "bytes"): 1.0,
}

# Samples by tool and phase, in the order in which they were taken.
Samples = dict[str, dict[str, list[Sample]]]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Bench:
    def __init__(self, stack: ComposeStack, data: list[Data], work: Path) -> None:
        self.stack, self.data, self.work = stack, data, work
        self.services = [one.name for one in data]
        names = {name for one in data for name in one.up if name != "redis-init"}
        self.containers = {name: stack.container(name) for name in sorted(names)}
        self.samples: Samples = {}
        self.expected: dict[int, dict[str, str]] = {}

    def fill(self) -> None:
        for one in self.data:
            began = time.monotonic()
            one.fill()
            say(f"  {one.name:<9} {one.size / 1e6:6.0f} MB in {time.monotonic() - began:.1f} s")
        self.expected[1] = self.told()
        self.set_version(2)
        self.expected[2] = self.told()
        self.set_version(1)
        for name in self.services:
            if self.expected[1][name] == self.expected[2][name]:
                raise SystemExit(f"{name}: a change cannot be told from none ({self.expected[1][name]}), so no restore could be")

    def told(self) -> dict[str, str]:
        return {one.name: one.told() for one in self.data}

    def must_tell(self, wanted: int, when: str) -> None:
        for name, said in self.told().items():
            if said != self.expected[wanted][name]:
                raise SystemExit(f"{name} {when} says {said!r}, not {self.expected[wanted][name]!r}")

    def set_version(self, number: int) -> None:
        for one in self.data:
            one.set_version(number)
            if number == 1:
                one.tidy()

    def damage(self) -> None:
        for one in self.data:
            one.damage()
        for name, said in self.told().items():
            if said == self.expected[2][name]:
                raise SystemExit(f"{name}: the damage does not show, so a restore that does nothing would not either")

    def one_round(self, kind: type[StackTool]) -> None:
        home = self.work / kind.name.replace(" ", "-")
        home.mkdir()
        tool = kind(home, self.stack, self.services, self.containers)
        try:
            tool.prepare()
            for phase in tool.phases:
                if phase == AGAIN:
                    self.set_version(2)
                if phase == RESTORE:
                    self.damage()
                command = tool.command(phase)
                # What was written before must not be written back to the disk in somebody else's time.
                os.sync()
                wall, cpu, memory = run(tool, command, home / "log")  # type: ignore[arg-type]
                stored = bytes_below(tool.repository) if tool.repository else 0
                sample = Sample(wall, cpu, memory, stored, tool.inner(phase))
                self.samples.setdefault(kind.name, {}).setdefault(phase, []).append(sample)
                inner = "".join(f", {what} {took:.2f}" for what, took in sample.inner.items())
                say(f"  {kind.name:<12} {phase:<27} {wall:7.2f} s  {stored / 1e6:7.1f} MB{inner}")
                if phase == RESTORE:
                    self.must_tell(2, f"after {kind.name}'s restore")
        finally:
            tool.close()
            shutil.rmtree(home, ignore_errors=True)
        if RESTORE in tool.phases:
            self.set_version(1)
            self.must_tell(1, f"after {kind.name}'s round")


def median(samples: Samples, tool: str, phase: str, what: str = "seconds") -> float:
    return statistics.median(float(getattr(sample, what)) for sample in samples[tool][phase])


def inner(samples: Samples, tool: str, phase: str, what: str) -> float | None:
    told = [sample.inner[what] for sample in samples[tool][phase] if what in sample.inner]
    return statistics.median(told) if told else None


def table(samples: Samples) -> list[str]:
    tools = list(samples)
    lines = [f"| | {' | '.join(tools)} |", f"|---|{'---:|' * len(tools)}"]

    def row(label: str, cells: dict[str, str]) -> None:
        if not cells:
            return
        lines.append(f"| {label} | {' | '.join(cells.get(tool, '') for tool in tools)} |")

    for phase in (BACKUP, AGAIN, RESTORE):
        row(phase, {tool: f"{median(samples, tool, phase):.2f} s" for tool in tools if phase in samples[tool]})
        if phase != RESTORE and "devstack" in samples:
            for what, label in (("take", "the takes alone"), ("prove", "the proofs alone")):
                took = inner(samples, "devstack", phase, what)
                row(f"{phase}, {label}", {"devstack": f"{took:.2f} s" if took is not None else "-"})
    for phase, label in ((BACKUP, "stored"), (AGAIN, "stored after the second backup")):
        stored = {t: median(samples, t, phase, "repository") for t in tools if phase in samples[t]}
        row(label, {tool: f"{size / 1e6:.1f} MB" for tool, size in stored.items() if size})
    for phase in (BACKUP, RESTORE):
        memory = {t: median(samples, t, phase, "memory") for t in tools if phase in samples[t] and RESTORE in samples[t]}
        row(f"peak memory of one process, {phase}", {tool: f"{size / 1e6:.0f} MB" for tool, size in memory.items()})
    return [*lines, ""]


def ratios(samples: Samples) -> list[str]:
    if "devstack" not in samples or len(samples) == 1:
        return []
    lines = ["| devstack ÷ | what | whole | the takes alone | goal | |", "|---|---|---:|---:|---:|---|"]
    for other in samples:
        if other == "devstack":
            continue
        for phase in (BACKUP, AGAIN, RESTORE):
            # The dumps are as long when 1 % has changed.
            theirs = phase if phase in samples[other] else BACKUP
            if theirs not in samples[other] or (theirs != phase and phase == RESTORE):
                continue
            base = median(samples, other, theirs)
            whole = median(samples, "devstack", phase) / base
            alone = inner(samples, "devstack", phase, "take")
            lines.append(judged(other, phase, whole, GOALS.get((other, phase)), alone / base if alone is not None else None))
        for phase, label in ((BACKUP, "bytes"), (AGAIN, "bytes after the second backup")):
            if phase in samples[other] and (stored := median(samples, other, phase, "repository")):
                whole = median(samples, "devstack", phase, "repository") / stored
                lines.append(judged(other, label, whole, GOALS.get((other, "bytes")), None))
    return [*lines, ""]


def judged(other: str, what: str, whole: float, goal: float | None, alone: float | None) -> str:
    verdict = "" if goal is None else "met" if whole <= goal else "**missed**"
    return f"| {other} | {what} | {whole:.2f} | {'' if alone is None else f'{alone:.2f}'} | {'' if goal is None else f'≤ {goal}'} | {verdict} |"


def sizes(megabytes: int, chosen: list[type[Data]]) -> dict[str, int]:
    """What every service gets of the whole. What is given to them doesn't change with those that are left out."""
    parts = sum(one.parts for one in ALL)
    return {one.name: megabytes * 1_000_000 * one.parts // parts for one in chosen}


def named(given: str, known: list[str], option: str) -> list[str]:
    names = [name.strip() for name in given.split(",") if name.strip()]
    if wrong := [name for name in names if name not in known]:
        raise SystemExit(f"{option}: there is no {', '.join(wrong)}; known are {', '.join(known)}")
    return [name for name in known if name in names]


def main() -> int:
    parser = argparse.ArgumentParser(prog="benches/stack", description=__doc__)
    default = Path(os.environ.get("CARGO_TARGET_DIR") or "target") / "release/devstack"
    parser.add_argument("--binary", type=Path, default=default, help=f"the devstack to measure ({default})")
    parser.add_argument("--megabytes", type=int, default=2000, help="data over all services, as their dumps have it (2000)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each tool runs; the median counts (3)")
    parser.add_argument("--services", default=",".join(one.name for one in ALL), help="those to measure (%(default)s)")
    parser.add_argument("--tools", default="devstack,borgmatic,script,floor", help="those to measure (%(default)s)")
    parser.add_argument("--results", type=Path, default=Path("target/benches"), help="where the numbers are written")
    options = parser.parse_args()

    services = named(options.services, [one.name for one in ALL], "--services")
    # The bare dumps are measured both ways.
    words = named(options.tools, list(dict.fromkeys(tool.name.split()[0] for tool in TOOLS)), "--tools")
    tools = [tool for tool in TOOLS if tool.name.split()[0] in words]
    binary = options.binary.resolve()
    if "devstack" in words and not binary.exists():
        raise SystemExit(f"{binary} does not exist: run `cargo build --release`, or give --binary")
    left_out = {tool.name: tool.missing() for tool in tools if tool.missing()}
    tools = [tool for tool in tools if tool.name not in left_out]
    results: Path = options.results.resolve()
    results.mkdir(parents=True, exist_ok=True)
    # A short interval wakes every server's client in the middle of what is measured. This wins over the project's .env.
    os.environ.setdefault("HEALTH_INTERVAL", "30s")

    # Whoever ends this with a signal does not want the servers to stay.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

    kinds = [one for one in ALL if one.name in services]
    size = sizes(options.megabytes, kinds)
    # Not below target/: the sockets of gpg's agent need a short path.
    with tempfile.TemporaryDirectory(prefix="devstack-bench-") as folder:
        world = World(binary, Path(folder))
        say("starting the servers")
        with compose_stack(world, [one.declared for one in kinds], [up for one in kinds for up in one.up]) as stack:
            data = [one(stack, size[one.name]) for one in kinds]
            bench = Bench(stack, data, Path(folder))
            say("making the data")
            bench.fill()
            for number in range(options.rounds):
                say(f"round {number + 1} of {options.rounds}")
                # Another one begins each time, so that none always runs on what the same other one has left behind.
                first = number % len(tools)
                for tool in [*tools[first:], *tools[:first]]:
                    bench.one_round(tool)
    samples = {tool.name: bench.samples[tool.name] for tool in tools if tool.name in bench.samples}

    told = ", ".join(filter(None, (version(name, binary) for name in samples)))
    spread = ", ".join(f"{one.name} {size[one.name] / 1e6:.0f} MB" if size[one.name] else one.name for one in kinds)
    lines = [f"Measured on {machine()}{': ' if told else ''}{told}. {spread}; zstd level 3; median of {options.rounds}.", ""]
    if left_out:
        missing = "; ".join(f"{tool} (no {', no '.join(programs)})" for tool, programs in left_out.items())
        lines += [f"Left out, because of what is not installed: {missing}.", ""]
    lines += table(samples) + ratios(samples)
    if floors := samples.get("floor", {}).get(BACKUP):
        slowest = {name: statistics.median(one.inner[name] for one in floors) for name in floors[0].inner}
        each = ", ".join(f"{name} {took:.2f} s" for name, took in sorted(slowest.items(), key=lambda one: -one[1]))
        lines += [f"The bare dumps, each beside all others: {each}.", ""]
    text = "\n".join(lines)
    print(text)
    raw = {
        "machine": machine(), "sizes": size, "rounds": options.rounds,
        "samples": {t: {p: [asdict(s) for s in ss] for p, ss in ps.items()} for t, ps in samples.items()},
    }
    (results / "stack.json").write_text(json.dumps(raw, indent=1) + "\n")
    (results / "stack.md").write_text(text)
    say(f"raw numbers: {results / 'stack.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
