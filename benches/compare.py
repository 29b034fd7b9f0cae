#!/usr/bin/env python3
"""Runs every tool through the same acts on the same data, in turn, and prints what each took. `--help` lists the rest."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

import data
from tools import PEERS, PHASES, Devstack, Tool

# The goal that the project has set itself.
MOST_MEMORY = 300_000_000


@dataclass
class Sample:
    seconds: float
    cpu: float
    memory: int
    repository: int
    inner: dict[str, float] = field(default_factory=dict)


# Samples by data set, phase and tool, in the order in which they were taken.
Samples = dict[str, dict[str, dict[str, list[Sample]]]]


def run(tool: Tool, command: list[str], log: Path) -> tuple[float, float, int]:
    """Wall seconds, processor seconds and the peak of resident memory in bytes, of the process and its children."""
    report = tool.home / "measured.json"
    report.unlink(missing_ok=True)
    wrapped = [sys.executable, "-S", "-E", str(Path(__file__).with_name("measured.py")), str(report), *command]
    with log.open("ab") as out:
        done = subprocess.run(
            wrapped, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=tool.folder, env=os.environ | tool.environment
        )
    if done.returncode != 0:
        tail = log.read_text(errors="replace")[-3000:]
        raise SystemExit(f"`{' '.join(command)}` ended with {done.returncode}:\n{tail}")
    took = json.loads(report.read_text())
    return took["seconds"], took["cpu"], took["memory"]


def bytes_below(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def must_be_restored(source: Path, target: Path) -> None:
    """A restore that left something out would be a quick one."""
    if bytes_below(source) != bytes_below(target):
        raise SystemExit(f"{target} has {bytes_below(target)} bytes, and {source} has {bytes_below(source)}")


def one_round(tool: Tool, made: dict[str, Path], name: str, sizes: data.Sizes, samples: Samples) -> None:
    """All phases of one tool, on a new repository. The sources are in version 1 before it and after it."""
    shutil.rmtree(tool.home, ignore_errors=True)
    tool.home.mkdir(parents=True)
    tool.prepare()
    for phase in PHASES:
        if phase == "1 % changed":
            data.set_version(made, name, sizes, 2)
        tool.before(phase)
        command = tool.command(phase)
        # What was written before must not be written back to the disk in somebody else's time.
        os.sync()
        data.warm(made[name])
        wall, cpu, memory = run(tool, command, tool.home / "log")
        sample = Sample(wall, cpu, memory, bytes_below(tool.repository), tool.inner(phase))
        samples.setdefault(name, {}).setdefault(phase, {}).setdefault(tool.name, []).append(sample)
        inner = "".join(f", {what} {took:.2f} s" for what, took in sample.inner.items())
        print(f"  {tool.name:<9} {phase:<18} {wall:7.2f} s  {memory / 1e6:6.0f} MB{inner}", file=sys.stderr, flush=True)
    must_be_restored(made[name], tool.target)
    data.set_version(made, name, sizes, 1)
    shutil.rmtree(tool.home)


def stream(binary: Path, folder: Path, size: int) -> Sample:
    """One large file through devstack: its memory must not grow with it."""
    source = folder / f"stream-{size}"
    if not (source / "dump.sql").exists():
        source.mkdir(parents=True, exist_ok=True)
        data.write_sql(source / "unfinished", size)
        (source / "unfinished").rename(source / "dump.sql")
    tool = Devstack(folder / "rounds/stream", source, binary)
    shutil.rmtree(tool.home, ignore_errors=True)
    tool.home.mkdir(parents=True)
    tool.prepare()
    wall, cpu, memory = run(tool, tool.command("first backup"), tool.home / "log")
    sample = Sample(wall, cpu, memory, bytes_below(tool.repository), tool.inner("first backup"))
    shutil.rmtree(tool.home)
    return sample


def median(samples: list[Sample], what: str) -> float:
    return statistics.median([float(getattr(sample, what)) for sample in samples])


def cell(text: str, value: float, best: float) -> str:
    return f"**{text}**" if value == best else text


def table(title: str, phases: dict[str, dict[str, list[Sample]]], tools: list[str]) -> list[str]:
    """A row for each phase: medians, the best in bold, and devstack's ratio to the best peer."""
    peers = [name for name in tools if name != "devstack"]
    lines = [f"### {title}", "", f"| | {' | '.join(tools)} | devstack ÷ best peer |", f"|---|{'---:|' * (len(tools) + 1)}"]

    def row(label: str, values: dict[str, float], unit: str, digits: int) -> None:
        best = min(values.values())
        cells = [cell(f"{values[name]:.{digits}f} {unit}", values[name], best) for name in tools]
        ratio = "-"
        if "devstack" in values and peers:
            ratio = f"{values['devstack'] / min(values[name] for name in peers):.2f}"
        lines.append(f"| {label} | {' | '.join(cells)} | {ratio} |")

    for phase, by_tool in phases.items():
        row(phase, {name: median(by_tool[name], "seconds") for name in tools}, "s", 2)
        if "devstack" in by_tool and by_tool["devstack"][0].inner and peers:
            alone = statistics.median(sample.inner["take alone"] for sample in by_tool["devstack"])
            best_peer = min(median(by_tool[name], "seconds") for name in peers)
            blank = [f"{alone:.2f} s" if name == "devstack" else "" for name in tools]
            lines.append(f"| {phase}, the take alone | {' | '.join(blank)} | {alone / best_peer:.2f} |")
    for phase, by_tool in phases.items():
        row(f"peak memory, {phase}", {name: median(by_tool[name], "memory") / 1e6 for name in tools}, "MB", 0)
    last = phases["1 % changed"]
    row("repository after it all", {name: median(last[name], "repository") / 1e6 for name in tools}, "MB", 0)
    return [*lines, ""]


def machine() -> str:
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.release()}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", type=Path, help="the devstack to measure; without it only the peers are")
    parser.add_argument("--quick", action="store_true", help="a tenth of the data")
    parser.add_argument("--rounds", type=int, default=5, help="how often each tool runs; the median counts (5)")
    parser.add_argument("--only", default="", metavar="NAME", help="one data set: 'two files' or 'small files'")
    parser.add_argument("--no-stream", action="store_true", help="leave the large stream out")
    parser.add_argument("--work", type=Path, default=Path("target/benches"), help="data, repositories and results")
    options = parser.parse_args()

    sizes = data.FULL.tenth() if options.quick else data.FULL
    work: Path = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    versions = {peer.name: peer.version() for peer in PEERS}
    tools: list[type[Tool]] = [peer for peer in PEERS if versions[peer.name]]
    missing = [name for name, version in versions.items() if not version]
    if options.binary:
        binary = options.binary.resolve()
        said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout.split()
        versions["devstack"] = said[-1] if said else "?"
        tools.append(Devstack)
    else:
        binary = Path()
    if not tools:
        print("there is nothing to measure: no peer is on PATH, and --binary is not given", file=sys.stderr)
        return 1

    print("making the data", file=sys.stderr, flush=True)
    made = data.make_once(work / "data", sizes)
    samples: Samples = {}
    for name, source in made.items():
        if options.only not in name:
            continue
        for number in range(options.rounds):
            print(f"{name}, round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
            # Another one begins each time, so that none always runs on what the same other one has left behind.
            for tool in [*tools[number % len(tools) :], *tools[: number % len(tools)]]:
                one_round(tool(work / "rounds" / tool.name, source, binary), made, name, sizes, samples)

    names = [tool.name for tool in tools]
    told = ", ".join(f"{name} {versions[name]}" for name in names)
    lines = [f"Measured on {machine()}: {told}; zstd level 3, warm page cache, median of {options.rounds}.", ""]
    if missing:
        lines += [f"Left out, because not installable here: {', '.join(missing)}.", ""]
    shown = {
        "two files": f"{sizes.text / 1e9:.1f} GB of SQL text and {sizes.noise / 1e6:.0f} MB of random bytes in two files",
        "small files": f"{sizes.files:,} small files",
    }
    for name, phases in samples.items():
        lines += table(shown[name], phases, names)
    missed = False
    streamed = None
    if options.binary and not options.no_stream:
        streamed = stream(binary, work, sizes.stream)
        missed = streamed.memory > MOST_MEMORY
        lines += [
            f"Streaming {sizes.stream / 1e9:.1f} GB: {streamed.seconds:.1f} s, {streamed.memory / 1e6:.0f} MB of memory at"
            f" most; the goal is {MOST_MEMORY / 1e6:.0f} MB{', and it is MISSED' if missed else ''}.",
            "",
        ]
    text = "\n".join(lines)
    print(text)
    raw = {
        "machine": machine(), "versions": versions, "sizes": asdict(sizes), "rounds": options.rounds,
        "samples": {n: {p: {t: [asdict(s) for s in ss] for t, ss in ts.items()} for p, ts in ps.items()} for n, ps in samples.items()},
        "stream": asdict(streamed) if streamed else None,
    }
    (work / "compare.json").write_text(json.dumps(raw, indent=1) + "\n")
    (work / "compare.md").write_text(text)
    print(f"raw numbers: {work / 'compare.json'}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
