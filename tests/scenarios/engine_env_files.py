"""What devstack reads in a `.env` file, against what Docker Compose makes of it: 200 files made from a seed.

`tests/env_files.rs` holds devstack's reader against `tests/env_files/cases.json`. Here Compose is asked again for each of them.
Run as a program, this file writes them anew."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CASES = Path(__file__).parent.parent / "env_files/cases.json"
NAMES = ["A", "B2", "DB_PASSWORD", "_X", "lower", "OUTSIDE", "EMPTY_OUTSIDE", "d.o-t"]
# What the environment of the command holds.
OUTSIDE = {"OUTSIDE": "from the shell", "EMPTY_OUTSIDE": ""}
PIECES = [
    "plain", "k3y$$with$$dollars", "A & B", " ", "  ", "\t", "#", " # ", "'", '"', "\\", "\\n", "\\t", "\\$", "\\\\", '\\"', "\\'",
    "\\0101", "\\07", "\\x41", "\\q", "$", "$$", "$$$", "$1", "$-", "=", ":", "!", "%", "~", "`date`", "$(date)", "é", "日本", "{", "}",
    "${A}", "$A", "$lower", "${B2:-d}", "${NOPE:-x y}", "${NOPE-}", "${EMPTY_OUTSIDE:-filled}", "${EMPTY_OUTSIDE-kept}", "${OUTSIDE:+set}",
    "${OUTSIDE+set}", "${NOPE:+set}", "${NOPE:-${A}}", "${NOPE:-${A:-{}}}", "${NOPE:-a}-${NOPE:-b}", "${A}${B2}", "$A$B2", "${NOPE:-$$x}",
    "${OUTSIDE:?must be there}", "${_X}", "export ", ";", "|", "*", "?", "-", "+", "0", "[1]", "(", ")",
]
# Now and then something that Compose refuses, so that the refusal is compared as well.
WRONG = ["${", "${}", "${1}", "${A", "${A:x}", "${NOPE:?gone}"]


def value(chance: random.Random) -> str:
    return "".join(chance.choice(PIECES) for _ in range(chance.choice([0, 1, 1, 2, 3, 5])))


def statement(chance: random.Random) -> str:
    name = chance.choice(NAMES)
    key = chance.choice(["", "", "", "", "export ", "  ", "\t", "export\t"]) + name
    sign = chance.choice(["=", "=", "=", "=", "=", " = ", ": ", ":", " =", "= "])
    kind = chance.randrange(12)
    after = chance.choice(["", "", "", " # a comment", "# none", "  "])
    if kind == 0:
        return chance.choice(["# a comment", "", "   ", "  # A=1", "#"])
    if kind == 1:
        return key
    if kind in (2, 3, 4):
        text = value(chance).replace("'", "")
        return f"{key}{sign}'{text}'{after}" if not text.endswith("\\") else f"{key}{sign}'x'{after}"
    if kind in (5, 6, 7):
        text = value(chance).replace('"', "")
        lines = chance.choice(["", "", "\nsecond line", "\n\n# no comment\n"])
        return f'{key}{sign}"{text}{lines} end"{after}'
    return f"{key}{sign}{value(chance)}{after}"


def file_of(seed: int) -> str:
    chance = random.Random(seed)
    lines = [statement(chance) for _ in range(chance.randint(1, 12))]
    if chance.random() < 0.06:
        lines.insert(chance.randrange(len(lines) + 1), f"A={chance.choice(WRONG)}")
    if chance.random() < 0.04:
        lines.insert(chance.randrange(len(lines) + 1), chance.choice(["two words=1", "a!b=1", "=x", "A='open", "B2=\"open"]))
    text = chance.choice(["\n", "\n", "\n", "\r\n"]).join(lines)
    return chance.choice(["", "", "", "", "\ufeff"]) + text + chance.choice(["\n", "\n", ""])


def compose_says(text: str) -> dict[str, str] | None:
    """The variables as a container gets them; None where Compose refuses the file."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / ".env").write_bytes(text.encode())
        listed = "".join(f"      - {json.dumps(name)}\n" for name in NAMES)
        (Path(folder) / "compose.yml").write_text(f"services:\n  a:\n    image: x\n    environment:\n{listed}")
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "DOCKER_CONFIG") if name in os.environ}
        asked = subprocess.run(["docker", "compose", "config", "--format", "json"], cwd=folder, env=kept | OUTSIDE, capture_output=True)
    if asked.returncode:
        return None
    found = json.loads(asked.stdout)["services"]["a"]["environment"]
    # A dollar is printed as two, so that what is printed could be read again.
    return {name: text.replace("$$", "$") for name, text in found.items() if text is not None}


def asked(texts: list[str]) -> list[dict[str, str] | None]:
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(compose_says, texts))


if __name__ == "__main__":
    texts = [file_of(seed) for seed in range(200)]
    cases = [{"text": text, "values": values} for text, values in zip(texts, asked(texts), strict=True)]
    body = ",\n".join(json.dumps(case, ensure_ascii=False, sort_keys=True) for case in cases)
    CASES.write_text(f'{{"names": {json.dumps(NAMES)}, "outside": {json.dumps(OUTSIDE)}, "cases": [\n{body}\n]}}\n')
    refused = sum(case["values"] is None for case in cases)
    print(f"{len(cases)} files, {refused} of which Compose refuses", file=sys.stderr)
else:
    from scenario import World, must, scenario

    @scenario()
    def compose_reads_200_env_files_as_the_cases_say(world: World) -> None:
        cases = json.loads(CASES.read_text())["cases"]
        must(len(cases) == 200, f"there are {len(cases)} cases")
        for case, values in zip(cases, asked([case["text"] for case in cases]), strict=True):
            must(values == case["values"], f"of {case['text']!r} Compose makes {values}, and the case says {case['values']}")
