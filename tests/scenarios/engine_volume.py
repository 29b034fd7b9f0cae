"""Volumes: everything that a file system holds, taken, destroyed, restored, and compared by programs in a container."""

from __future__ import annotations

import io
import json
import os
import signal
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager

from compose_stack import ROUNDS, ComposeStack, compose_stack
from engine_streams import small_disk
from scenario import World, must, scenario
from stack import wait_until

# Programs to fill a volume and to look at it, and no server that would change what is in it.
BOX = """\
services:
  box:
    profiles: [standard]
    image: ${POSTGRES_IMAGE:-postgres:17}
    user: root
    init: true
    entrypoint: [sleep, infinity]
    volumes: ["box_data:/data", "other:/data/mounted/in"]
volumes:
  box_data: {}
  other: {}
"""

BOX_SERVICE = "  box: { source: { volume: { volume: box_data, stop: [box] } } }"
APP_SERVICE = "  app: { source: { volume: { volume: forgejo_data, stop: [forgejo] } } }"

APP_WRITES = """\
services:
  forgejo:
    environment: { APP_WRITE_EVERY: "0.002" }
    depends_on: !reset []
"""

EVERYTHING = r"""
set -eu
cd /data
mkdir -p empty/inner deep/a/b/c 'spaced name' "$(printf 'new\nline')"
printf 'plain' >plain
: >nothing
head -c 3000001 /dev/urandom >binary
printf 'odd' >"$(printf 'not utf-8 \377\376')"
printf 'newline' >"$(printf 'new\nline')/and\\backslash"
printf 'dash' >./-rf
printf 'hidden' >.hidden
printf 'long' >"deep/a/b/c/$(printf '%0240d' 7)"
printf 'umlaut' >'spaced name/Größe.txt'
truncate -s 40M holes; printf 'end' >>holes
ln -s plain link; ln -s /nowhere/at/all dangling; ln -s "$(printf '%0150d' 1)" 'long link'
ln plain hard; ln plain deep/hard2
mkfifo pipe
cp /bin/true setuid; chmod 4751 setuid
chmod 000 nothing; chmod 2775 empty; chmod 1777 'spaced name'
chown 1234:4321 binary; chown 4000000000:7 deep; chown -h 55:66 link
touch -d '2001-02-03 04:05:06' plain; touch -d '1970-01-01 00:00:01' binary; touch -h -d '2010-01-01' dangling
touch -d '2005-05-05' deep/a
perl -MSocket -e 'socket(S, AF_UNIX, SOCK_STREAM, 0) && bind(S, sockaddr_un("/data/socket")) or die'
echo elsewhere >mounted/in/of-another-volume
chown 4711:815 .; chmod 751 .; touch -d '2011-11-11 11:11:11' .
"""

# Every name with all that is known of it, as the container's own programs say it; contents by their digests.
LOOK = r"""
cd /data
find . -path ./mounted/in -prune -o ! -type s -printf '%y %#m %U:%G %Ts %n %l %p\0' | sort -z | tr '\0\n' '\n~'
find . -path ./mounted -prune -o -type f -print0 | sort -z | xargs -0 sha256sum -z -- | tr '\0\n' '\n~'
"""


@contextmanager
def box(world: World, *services: str, override: str = BOX) -> Iterator[ComposeStack]:
    with compose_stack(world, list(services) or [BOX_SERVICE], ["box"], override=override) as stack:
        yield stack


def script(stack: ComposeStack, text: str, service: str = "box") -> str:
    return stack.inside(service, "sh", "-s", stdin=text, user="root").text


def running(stack: ComposeStack, service: str) -> bool:
    [seen] = json.loads(stack.run(["docker", "inspect", stack.container(service)]).out)
    return seen["State"]["Running"]


def notes(stack: ComposeStack) -> list[str]:
    folder = stack.folder / ".devstack/stopped"
    return [line for note in folder.glob("*") for line in note.read_text().splitlines()] if folder.exists() else []


def visitors(stack: ComposeStack, lines: list[str]) -> list[str]:
    """Of the visitors that notes name, those that are still there."""
    names = [line.removeprefix("remove ") for line in lines if line.startswith("remove ")]
    return [name for name in names if stack.run(["docker", "inspect", name], expect=None).code == 0]


def good_runs(stack: ComposeStack) -> list[str]:
    return [name for name, run in stack.runs().items() if run.verified]


def first_difference(before: str, after: str) -> str:
    old, new = set(before.splitlines()), set(after.splitlines())
    return f"only before: {sorted(old - new)[:5]}\nonly after: {sorted(new - old)[:5]}"


def restored(stack: ComposeStack, service: str, name: str) -> tarfile.TarFile:
    """The archive of the newest run, restored beside and read by Python's own tar."""
    folder = stack.folder / name
    stack.devstack("restore", service, "--to", str(folder))
    return tarfile.open(fileobj=io.BytesIO((folder / "volume.tar").read_bytes()))


def content(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    must(file, f"{name} is no file in the archive")
    assert file is not None
    return file.read()


def in_place(stack: ComposeStack, service: str, expect: int = 0) -> str:
    return stack.devstack("restore", service, "--in-place", "--without-safety", "--yes", "--approve", f"restore:{service}", expect=expect).said


def capability(stack: ComposeStack) -> tuple[str, bytes] | None:
    """Gives a file a capability, from the host, where the host may look into the volume; the images have no tool."""
    [seen] = json.loads(stack.run(["docker", "volume", "inspect", f"{stack.project}_box_data"]).out)
    path = f"{seen['Mountpoint']}/plain"
    value = bytes.fromhex("0100000200040000000000000000000000000000")
    try:
        os.setxattr(path, "security.capability", value)
    except OSError:
        return None
    return path, value


@scenario()
def a_volume_comes_back_with_everything_that_a_file_system_holds(world: World) -> None:
    with box(world) as stack:
        script(stack, EVERYTHING)
        capable = capability(stack)
        before = script(stack, LOOK)
        stack.devstack("apply", "--yes")
        must(running(stack, "box"), "the container that was stopped does not run again")
        archive = restored(stack, "box", "beside")
        names = archive.getnames()
        must("volume/socket" not in names, "a socket is in the archive, which no archive can hold")
        must(not any("of-another-volume" in name for name in names), "another volume's files are in the archive")
        stack.reborn("box")
        must("binary" not in script(stack, LOOK), "the new volume is not empty, so nothing would be shown")
        in_place(stack, "box")
        after = script(stack, LOOK)
        must(before == after, f"what came back differs:\n{first_difference(before, after)}")
        if capable:
            must(os.getxattr(capable[0], "security.capability") == capable[1], "a capability did not come back")
        must(running(stack, "box"), "the container does not run after the restore")
        # Over data: what the backup does not hold goes away, what was changed is changed back.
        script(stack, "cd /data; rm -r deep; echo changed >plain; mkdir added; echo more >added/file; chmod 700 .")
        in_place(stack, "box")
        after = script(stack, LOOK)
        must(before == after, f"what came back over other data differs:\n{first_difference(before, after)}")
        must(not notes(stack), f"notes of stopped containers are left: {notes(stack)}")
        world.note(f"{len(before.splitlines())} lines compared; capability {'compared' if capable else 'not settable here'}")


@scenario()
def a_volume_without_a_container_is_reached_by_its_services_image(world: World) -> None:
    with box(world) as stack:
        script(stack, "echo kept >/data/file")
        stack.devstack("apply", "--yes")
        volumes = stack.volumes("box")
        stack.compose("rm", "--force", "--stop", "box")
        unseen = stack.devstack("restore", "box", "--in-place", "--without-safety", "--yes", "--approve", "restore:box", expect=None)
        must(unseen.code != 0 and "docker compose create box" in unseen.said, "it is not said how to get a container")
        stack.devstack("backup")
        stack.run(["docker", "volume", "rm", *volumes])
        gone = stack.devstack("backup", expect=7)
        must("box_data is not there" in gone.said and "docker compose create" in gone.said, "a volume that is gone is not named")
        stack.compose("create", "box")
        in_place(stack, "box")
        must(not running(stack, "box"), "a container that did not run was started")
        stack.up("box")
        must(script(stack, "cat /data/file") == "kept", "the file did not come back into a volume whose container never ran")


@scenario()
def a_volume_with_data_where_none_was_expected_is_left_alone(world: World) -> None:
    # What is mounted in a volume leaves its folders there: one without, so that it is truly empty.
    with box(world, override=BOX.replace(', "other:/data/mounted/in"', "")) as stack:
        script(stack, "echo backed up >/data/file")
        stack.devstack("apply", "--yes")
        stack.reborn("box")
        # It is empty while the question is read, and no more when it is answered.
        asked = stack.at_a_terminal(
            "restore", "box", "--in-place", "--without-safety",
            # Nothing is there, so that one yes is enough.
            answers=[("Type yes:", lambda: script(stack, "echo somebodys work >/data/file") and None, "yes")],
        )
        must(asked.code == 5, f"the restore over data that nobody had seen ended with {asked.code}")
        must("box had no data when the plan was made and has some now" in asked.out, "it is not said why nothing was done")
        must(script(stack, "cat /data/file") == "somebodys work", "data that nobody had seen was overwritten")
        must(running(stack, "box"), "the container does not run any more")


@scenario()
def a_folder_of_a_container_comes_back(world: World) -> None:
    service = "  uploads: { source: { volume: { container: box, path: /srv/uploads } } }"
    # The folder of an image that is known as a database server's would be refused.
    with box(world, service, override=BOX.replace("${POSTGRES_IMAGE:-postgres:17}", "${FORGEJO_IMAGE:-codeberg.org/forgejo/forgejo:12}")) as stack:
        script(stack, "mkdir -p /srv/uploads/deep /srv/other; echo kept >/srv/uploads/deep/file; chown -R 12:34 /srv/uploads; echo mine >/srv/other/file")
        look = "cd /srv; find . -printf '%y %#m %U:%G %Ts %p\n' | grep -v '^d.* \\.$' | sort; cat uploads/deep/file other/file"
        before = script(stack, look)
        stack.devstack("apply", "--yes")
        script(stack, "rm -r /srv/uploads/deep; echo added >/srv/uploads/added")
        in_place(stack, "uploads")
        must(script(stack, look) == before, f"what came back differs:\n{first_difference(before, script(stack, look))}")


@scenario()
def a_stopped_volume_keeps_what_its_writer_keeps(world: World) -> None:
    with compose_stack(world, [APP_SERVICE], ["forgejo"], override=APP_WRITES) as stack:
        # Between the two in the archive's order: a writer that went on would come a good way during its reading.
        script(stack, "head -c 100000000 /dev/zero >/data/pair/heavy", "forgejo")
        last = -1
        for number in range(ROUNDS):
            wait_until(lambda: int(script(stack, "cat /data/pair/second", "forgejo")) > last, "the writer to write", 30)
            stack.devstack("backup")
            must(running(stack, "forgejo"), "the writer was not started again")
            archive = restored(stack, "app", f"beside-{number}")
            first, second = (int(content(archive, f"volume/pair/{name}")) for name in ("first", "second"))
            must(first == second, f"the pair was taken in the middle of a write: {first} and {second}")
            must(first > last, f"{first} was taken after {last}: not a later moment")
            last = first
        world.note(f"{ROUNDS} of {ROUNDS} pairs equal, {last} writes")


@scenario()
def a_volume_that_is_written_to_is_taken_file_by_file_as_its_page_says(world: World) -> None:
    declared = "  app: { source: { volume: { volume: forgejo_data } } }"
    with compose_stack(world, [declared], ["forgejo"], override=APP_WRITES) as stack:
        # Between the two in the archive's order, so that its reading takes some time.
        script(stack, "head -c 100000000 /dev/zero >/data/pair/heavy", "forgejo")
        started = stack.container("forgejo")
        seen = []
        for number in range(5):
            stack.devstack("backup")
            archive = restored(stack, "app", f"beside-{number}")
            seen.append(tuple(int(content(archive, f"volume/pair/{name}")) for name in ("first", "second")))
            if seen[-1][1] > seen[-1][0]:
                break
        must(any(second > first for first, second in seen), f"the anomaly that the page names was not seen: {seen}")
        must(stack.container("forgejo") == started and running(stack, "forgejo"), "the writer was touched")
        # A file that shrinks while it is read breaks the archive off: never a good run.
        before = good_runs(stack)
        stack.start_inside("forgejo", "sh", "-c", "while [ ! -e /tmp/stop ]; do head -c 60000000 /dev/zero >/data/pair/heavy; : >/data/pair/heavy; done")
        taken = 0
        for _ in range(8):
            shrank = stack.devstack("backup", expect={0, 7})
            taken += shrank.code == 0
            if "within the file pair/heavy" in shrank.said:
                break
        script(stack, "touch /tmp/stop", "forgejo")
        must("within the file pair/heavy" in shrank.said, "no archive broke off although a file shrank again and again")
        must("`stop`" in shrank.said, "the way out is not named")
        must(len(good_runs(stack)) == len(before) + taken, "an archive that broke off counts as good")
        world.note(f"first and second: {seen}")


@scenario()
def a_live_servers_volume_and_a_writer_that_is_not_stopped_are_refused(world: World) -> None:
    raw = "  raw: { source: { volume: { volume: box_data } } }"
    two = BOX.replace("volumes:\n  box_data", """\
  second:
    profiles: [standard]
    image: ${FORGEJO_IMAGE}
    entrypoint: [sleep, infinity]
    init: true
    volumes: ["box_data:/elsewhere"]
volumes:
  box_data""")
    must(two != BOX, "the second writer is not in the Compose file")
    with box(world, BOX_SERVICE, raw, override=two) as stack:
        script(stack, "echo 1 >/data/file")
        stack.up("second")
        refused = stack.devstack("apply", "--yes", expect=7)
        must("running server" in refused.said and "own source" in refused.said, "a live server's raw files were not refused by name")
        must("second" in refused.said and "not in `stop`" in refused.said, "a writer that goes on is not named")
        must(running(stack, "box"), "a refused take has stopped a container")
        must(not good_runs(stack), "a refused service is in a good run")


@scenario()
def containers_stopped_by_a_killed_devstack_are_started_by_the_next(world: World) -> None:
    with box(world) as stack:
        script(stack, "head -c 150000000 /dev/urandom >/data/big")
        process = stack.start("apply", "--yes")
        wait_until(lambda: not running(stack, "box"), "the container to be stopped")
        process.kill()
        print(process.communicate()[0])
        left = notes(stack)
        must(not running(stack, "box"), "the container runs although nobody has started it")
        must(visitors(stack, left), "there is no visitor, so that nothing is shown")
        again = stack.devstack("apply", "--yes")
        must("which an interrupted apply had left stopped" in again.said, "it is not said that a container was started")
        must(running(stack, "box"), "the container was not started again")
        must(not visitors(stack, left), f"a killed devstack's visitor is left: {left}")
        must(not notes(stack), "notes are left")
        stack.converged()
        # Killed while it restores: what was there is there, nothing of it is taken for data, and the next one finishes.
        script(stack, "cd /data && echo before >file && rm big && head -c 1000 /dev/urandom >small")
        before = script(stack, LOOK)
        process = stack.start("restore", "box", "--in-place", "--without-safety", "--yes", "--approve", "restore:box")
        wait_until(lambda: not running(stack, "box"), "the container to be stopped")
        visitor = next(line.removeprefix("remove ") for line in notes(stack) if line.startswith("remove "))
        begun = ["docker", "exec", visitor, "test", "-d", "/.devstack/volume/.devstack-restore/new"]
        def unpacking() -> bool:
            # Held still while it is looked at: a quick devstack would have finished before the answer comes.
            process.send_signal(signal.SIGSTOP)
            if stack.run(begun, expect=None).code == 0:
                return True
            process.send_signal(signal.SIGCONT)
            return False

        wait_until(unpacking, "the unpacking to begin")
        process.kill()
        print(process.communicate()[0])
        half = stack.devstack("backup", expect=7)
        must("restore into it was interrupted" in half.said, "a half restored volume was backed up")
        must(running(stack, "box"), "the container was not started again after a killed restore")
        now = "\n".join(line for line in script(stack, LOOK).splitlines() if ".devstack-restore" not in line)
        strip = lambda text: [line for line in text.splitlines() if not line.endswith(" .")]  # its folder's time is new
        must(strip(now) == strip(before), f"a killed restore changed data:\n{first_difference(before, now)}")
        in_place(stack, "box")
        must(script(stack, "ls -A /data") == "big\nmounted", "the restore after a killed one is not what was taken")


@scenario()
def a_restore_that_fails_in_the_middle_leaves_the_volume_as_it_was(world: World) -> None:
    small = world.folder / "small"
    bound = f"  box_data: {{ driver_opts: {{ type: none, o: bind, device: {small} }} }}"
    with small_disk(small, "30m"), box(world, override=BOX.replace("  box_data: {}", bound)) as stack:
        script(stack, "head -c 20000000 /dev/urandom >/data/most")
        stack.devstack("apply", "--yes")
        script(stack, "echo now >/data/now")
        before = script(stack, LOOK)
        said = in_place(stack, "box", expect=7)
        must("no space left" in said and "as it was" in said and "box" in said, "neither the cause nor the state is told")
        must(running(stack, "box"), "the container was not started again")
        after = script(stack, LOOK)
        strip = lambda text: [line for line in text.splitlines() if not line.endswith(" .")]
        must(strip(before) == strip(after), f"a restore that failed changed data:\n{first_difference(before, after)}")
        must(not notes(stack), "notes are left")


@scenario("restic")
def restic_and_tar_read_what_devstack_wrote(world: World) -> None:
    with box(world) as stack:
        script(stack, "echo read me >/data/file; chown 12:34 /data/file")
        stack.devstack("apply", "--yes")
        restic = ["restic", "-r", "backups", "--password-file", "key/passphrase"]
        snapshots = json.loads(stack.run([*restic, "snapshots", "--json"]).out)
        holding = [s["id"] for s in snapshots if b"/volume.tar" in stack.run([*restic, "ls", s["id"]]).out]
        must(len(holding) == 1, f"{len(holding)} snapshots hold the volume")
        archive = stack.run([*restic, "dump", holding[0], "/volume.tar"]).out
        stack.inside("box", "tar", "-x", "-p", "-C", "/data", "--strip-components=1", stdin=archive, user="root")
        must(script(stack, "cat /data/file; stat -c %u:%g /data/file") == "read me\n12:34", "tar does not bring back what was taken")
