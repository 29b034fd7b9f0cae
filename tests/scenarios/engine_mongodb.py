"""MongoDB: taken, destroyed, restored, and compared by its own shell. On a server that is not MongoDB's own (the stand-in
of the test stack) what it cannot do is left out."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from compose_stack import ComposeStack, compose_stack, images
from scenario import World, must, scenario
from stack import wait_until

DECLARED = "  mongodb: { source: { mongodb: { container: mongodb, user: root, password: { env: MONGO_ROOT_PASSWORD } } } }"

# Quotes, backslashes and what YAML, a shell or a URI would take for their own.
ODD_PASSWORD = "p\"a'ss\\w: #o%r@d/ $HOME `x` {y} ß漢é - &z"

# The shell starts slowly, and asked every second it would keep a processor busy. Only the server that stays listens at the
# container's own address.
CHEAPLY = """
services:
  mongodb:
    healthcheck: { test: ["CMD", "bash", "-c", "exec 3<>/dev/tcp/$$HOSTNAME/27017"] }
"""

BEGINNING = r"""
const {WHO = "root", PASSWORD} = process.env;
const server = new Mongo(`mongodb://${encodeURIComponent(WHO)}:${encodeURIComponent(PASSWORD)}@localhost:27017/?directConnection=true`);
const admin = server.getDB("admin"), shop = server.getDB("shop");
const genuine = admin.runCommand({buildInfo: 1}).ferretdbVersion === undefined;
const answer = (value) => print("answer " + JSON.stringify(value));
const many = (home, name, count, make) => {
  for (let begin = 0; begin < count; begin += 10000)
    home.getCollection(name).insertMany(Array.from({length: Math.min(10000, count - begin)}, (_, n) => make(begin + n)));
};
"""

EVERYTHING = r"""
shop.orders.insertMany([
  {_id: new ObjectId("65f000000000000000000001"), number: 1, paid: true, lines: [{sku: "a", price: 1.5, tags: {x: null}}, {sku: "b"}],
   at: new Date("2026-03-29T01:30:00.123Z"), total: Long("9007199254740993"), raw: BinData(0, "AP8QgH8="), ref: UUID("01234567-89ab-cdef-0123-456789abcdef"),
   pattern: /^a.*z$/i, moment: Timestamp({t: 1700000000, i: 7}), nothing: null, empty: {}, none: [], text: "tab\tnewline\nback\\slash \"q\" $x"},
  {_id: "text as a key", number: 2, words: "Ελληνικά 漢字 🐘", low: Long("-9223372036854775808"), whole: Int32(5), half: 0.5, before: new Date(-1)},
  {_id: 3, number: 3, deep: {a: {b: {c: {d: {e: [1, "two", {three: Long("3")}]}}}}}, large: "x".repeat(1000000)},
]);
shop.orders.createIndex({number: 1}, {unique: true});
shop.orders.createIndex({"lines.sku": 1, number: -1}, {name: "by sku"});
shop.createCollection("empty");
shop.getCollection("Größe").insertMany([{_id: 1, "ключ": "значение"}]);
many(shop, "events", 100000, (n) => ({_id: n, kind: "k" + n % 7, n: n * 0.5}));
server.getDB("other-db").things.insertOne({_id: 1});
server.getDB("scratch_1").things.insertOne({_id: 1});
admin.runCommand({createUser: "clerk", pwd: "throw-away-1", roles: genuine ? [{role: "readWrite", db: "shop"}] : []});
admin.runCommand({createUser: "odd user", pwd: process.env.ODD, roles: genuine ? [{role: "backup", db: "admin"}] : []});
if (genuine) {
  shop.money.insertMany([{_id: MinKey(), v: Decimal128("1.10")}, {_id: MaxKey(), v: Decimal128("NaN")}, {_id: NaN, v: [[1], [[2]]]}, {_id: 1, f: Code("x"), "a.b": 1}]);
  shop.orders.createIndex({at: 1}, {expireAfterSeconds: 2000000000});
  shop.orders.createIndex({words: "text"});
  shop.orders.createIndex({half: 1}, {partialFilterExpression: {half: {$gt: 0}}, sparse: false});
  shop.orders.createIndex({ref: "hashed"});
  shop.createCollection("sorted", {collation: {locale: "de"}});
  shop.createCollection("checked", {validator: {a: {$exists: true}}, validationAction: "error"});
  shop.checked.insertOne({_id: 1}, {bypassDocumentValidation: true});
  shop.createCollection("last", {capped: true, size: 100000});
  shop.last.insertMany([{_id: 2}, {_id: 1}]);
  shop.createView("paid", "orders", [{$match: {paid: true}}]);
  shop.createCollection("weather", {timeseries: {timeField: "t", metaField: "at"}});
  shop.weather.insertMany([{t: new Date(0), at: 1, v: 1}, {t: new Date(1), at: 2, v: 2}]);
  shop.getCollection("with.dots").insertOne({_id: 1});
  shop.getSiblingDB("admin").runCommand({createRole: "looker", privileges: [], roles: ["readAnyDatabase"]});
}
"""

# Everything that a person would look at: each document in a form that tells all types apart.
LOOK = r"""
const {createHash} = require("crypto");
for (const name of ["shop", "other-db"])
  for (const {name: it, type, options} of server.getDB(name).getCollectionInfos().sort((a, b) => a.name < b.name ? -1 : 1)) {
    if (it.startsWith("system.")) continue;
    const collection = server.getDB(name).getCollection(it);
    print(name, it, type, EJSON.stringify(options), type === "collection" ? EJSON.stringify(collection.getIndexes().sort((a, b) => a.name < b.name ? -1 : 1)) : "");
    const documents = collection.find().toArray().map((one) => EJSON.stringify(one, {relaxed: false})).sort();
    if (documents.length < 100) documents.forEach((text) => print(text.slice(0, 2000)));
    print(documents.length, createHash("sha256").update(documents.join()).digest("hex"));
  }
const users = admin.getCollection("system.users").find().sort({_id: 1}).toArray();
print(EJSON.stringify(users.map(({_id, user, db, roles, credentials}) => ({_id, user, db, roles, credentials}))));
"""


def shell(
    stack: ComposeStack, script: str, *, who: str = "root", password: str | None = None, expect: int | None = 0, **more: str
) -> str:
    """What `mongosh` prints of a script."""
    env = {"WHO": who, "PASSWORD": password or stack.variables["MONGO_ROOT_PASSWORD"], **more}
    run = "f=$(mktemp); cat >$f; mongosh --nodb --norc --quiet --file $f; e=$?; rm $f; exit $e"
    ran = stack.inside("mongodb", "sh", "-c", run, stdin=BEGINNING + script, env=env, expect=expect)
    return ran.text + ran.err


def asked(stack: ComposeStack, script: str, **more: str) -> Any:
    [line] = [line for line in shell(stack, script, **more).splitlines() if line.startswith("answer ")]
    return json.loads(line.removeprefix("answer "))


@contextlib.contextmanager
def mongodb(world: World, *declared: str, retention: str = "") -> Iterator[ComposeStack]:
    services = list(declared) or [DECLARED]
    with compose_stack(world, services, ["mongodb"], override=CHEAPLY, retention=retention) as stack:
        yield stack


def restore(stack: ComposeStack, expect: int = 0) -> str:
    arguments = ("restore", "mongodb", "--in-place", "--without-safety", "--yes", "--approve", "restore:mongodb")
    return stack.devstack(*arguments, expect=expect).said


def good_runs(stack: ComposeStack) -> list[str]:
    return [name for name, run in stack.runs().items() if run.verified]


def first_difference(before: str, after: str) -> str:
    for number, (old, new) in enumerate(zip(before.splitlines(), after.splitlines(), strict=False)):
        if old != new:
            return f"line {number}: {old[:500]!r} before, {new[:500]!r} after"
    return f"{len(before)} characters before, {len(after)} after"


@scenario("restic")
def mongodb_comes_back_with_everything_it_has(world: World) -> None:
    declared = (
        '  mongodb: { source: { mongodb: { container: mongodb, user: "odd user", password: { env: ODD }, auth_database: admin,'
        ' databases: { exclude: ["scratch_*"] }, restore_as: { user: root, password: { env: MONGO_ROOT_PASSWORD } } } } }'
    )
    with mongodb(world, declared) as stack:
        stack.environment["ODD"] = ODD_PASSWORD
        before = shell(stack, EVERYTHING + LOOK, ODD=ODD_PASSWORD)
        stack.devstack("apply", "--yes")
        stack.reborn("mongodb")
        restore(stack)
        after = shell(stack, LOOK)
        must(before == after, f"what came back differs:\n{first_difference(before, after)}")
        answer = asked(stack, "answer(shop.orders.countDocuments({}))", who="clerk", password="throw-away-1")
        must(answer == 3, "a user that came back cannot read")
        answer = asked(stack, 'answer(server.getDB("scratch_1").getCollectionNames())')
        must(answer == [], "a database that is excluded was in the backup")
        # Without devstack: restic, and the server's own tool with its password as the first line of its input.
        must(asked(stack, 'answer(server.getDB("other-db").things.drop())'), "nothing was there to drop")
        dump = ["restic", "-r", "backups", "--password-file", "key/passphrase", "dump", "--tag", "service:mongodb", "latest"]
        archive = stack.run([*dump, "/databases/other-db.archive"]).out
        password = stack.variables["MONGO_ROOT_PASSWORD"].encode() + b"\n"
        tool = ["mongorestore", "--username=root", "--authenticationDatabase=admin", "--archive", "--drop"]
        stack.inside("mongodb", *tool, stdin=password + archive)
        again = asked(stack, 'answer(server.getDB("other-db").things.find().toArray())')
        must(again == [{"_id": 1}], f"what restic and mongorestore bring back differs: {again}")
        world.note(f"{len(before)} characters compared, 100,000 documents by their hash")


WRITER = r"""
const fs = require("fs");
for (let n = 0; !fs.existsSync("/tmp/stop"); n++) {
  shop.a_orders.insertOne({_id: n});
  shop.z_items.insertOne({_id: n, order: n});
}
"""


@scenario()
def mongodb_taken_under_load_has_collections_of_different_moments_as_its_page_says(world: World) -> None:
    with mongodb(world) as stack:
        shell(stack, 'shop.createCollection("a_orders"); shop.createCollection("z_items");'
                     'many(shop, "m_filler", 6000, (n) => ({_id: n, text: "x".repeat(2000)}));')
        script = BEGINNING + WRITER
        env = stack.environment
        stack.inside("mongodb", "sh", "-c", "cat >/tmp/writer.js", stdin=script)
        stack.environment = env | {"PASSWORD": stack.variables["MONGO_ROOT_PASSWORD"]}
        line = ["docker", "exec", "--env", "PASSWORD", "--detach", stack.container("mongodb")]
        stack.run([*line, "mongosh", "--nodb", "--norc", "--quiet", "--file", "/tmp/writer.js"])
        stack.environment = env
        counts = "answer([shop.a_orders.countDocuments({}), shop.z_items.countDocuments({})])"
        wait_until(lambda: asked(stack, counts)[1] > 0, "the writer to write")
        stack.devstack("apply", "--yes")
        stack.inside("mongodb", "touch", "/tmp/stop")
        orders, items = asked(stack, counts)
        must(orders - items in {0, 1}, f"the writer kept no order: {orders} orders and {items} items")
        must(len(good_runs(stack)) == 1, "a backup under load is not good")
        restore(stack)
        orders, items = asked(stack, counts)
        must(abs(orders - items) > 1, f"{orders} orders and {items} items came back: the page promises less than is kept")
        world.note(f"{orders} orders and {items} of their items came back")


@scenario()
def a_wrong_password_of_mongodb_or_a_server_that_dies_fails_its_run_and_the_others_finish(world: World) -> None:
    files = "  files: { source: { files: { paths: [data] } } }"
    with mongodb(world, DECLARED, files) as stack:
        (stack.folder / "data").mkdir()
        (stack.folder / "data/one").write_text("1")
        empty = stack.devstack("apply", "--yes", expect={4, 7})
        must("mongodb" in empty.said and not good_runs(stack), "an empty server became a good run")
        shell(stack, 'many(shop, "big", 10000, (n) => ({_id: n, text: "x".repeat(2000) + n}));')
        stack.devstack("apply", "--yes")
        before = good_runs(stack)
        password = stack.environment["MONGO_ROOT_PASSWORD"]
        stack.environment["MONGO_ROOT_PASSWORD"] = "not-the-one"
        wrong = stack.devstack("backup", expect=7)
        must("Authentication failed" in wrong.said and "mongodb" in wrong.said, "the cause is not named")
        must(password not in wrong.said and "not-the-one" not in wrong.said, "a password shows")
        del stack.environment["MONGO_ROOT_PASSWORD"]
        missing = stack.devstack("backup", expect=3)
        must("MONGO_ROOT_PASSWORD" in missing.said, "the variable that is not set is not named")
        stack.environment["MONGO_ROOT_PASSWORD"] = password
        process = stack.start("backup")
        container = stack.container("mongodb")
        processes: list[str] = []

        def dumping() -> bool:
            processes.append(stack.run(["docker", "top", container]).text)
            return "mongodump --" in processes[-1]

        wait_until(dumping, "the dump to begin")
        stack.kill("mongodb")
        said, _ = process.communicate(timeout=120)
        print(said)
        must(not any(password in seen for seen in processes), "the password is in an argument list")
        must(process.returncode == 7, f"a server killed in the middle ended with {process.returncode}")
        must("mongodb" in said and "take files/backup" in said, "it is not said who failed and who finished")
        must(set(good_runs(stack)) == set(before), "a dump that was cut counts as good")
        down = stack.devstack("backup", expect=7)
        must("is not running" in down.said, "a stopped server is not named as such")
        stack.up("mongodb")
        stack.devstack("backup", expect=0)


def replace_tool(stack: ComposeStack, tool: str, script: str) -> None:
    """Puts a script in the place of a tool in the container; the real one is `TOOL.real`."""
    put = f"p=$(command -v {tool}); [ -e $p.real ] || mv $p $p.real; cat >$p; chmod 755 $p"
    stack.inside("mongodb", "sh", "-c", put, stdin=f"#!/bin/sh\n{script}\n", user="root")


@scenario(long=True)
def a_mongodump_that_is_missing_or_ends_early_without_a_word_is_seen(world: World) -> None:
    with mongodb(world) as stack:
        shell(stack, 'shop.orders.insertOne({_id: 1}); many(shop, "big", 2000, (n) => ({_id: n, text: "x".repeat(500) + n}));')
        stack.devstack("apply", "--yes")
        before = good_runs(stack)
        replace_tool(stack, "mongodump", 'case "$*" in *version) exec mongodump.real "$@";; esac\nmongodump.real "$@" | head -c 300000')
        early = stack.devstack("backup", expect=7)
        must("not whole" in early.said and "/databases/shop.archive" in early.said, "a dump that ended early is not named")
        # A dump of a database that is not there is a success to the tool, and whole by its form.
        replace_tool(stack, "mongodump", 'case "$*" in *version) exec mongodump.real "$@";; esac\nexec mongodump.real "$@" --db=not_there')
        bare = stack.devstack("backup", expect=7)
        must("no collection" in bare.said and "shop" in bare.said, "a dump of nothing is not named")
        stack.inside("mongodb", "sh", "-c", "rm $(command -v mongodump)", user="root")
        missing = stack.devstack("backup", expect=7)
        must("mongodump" in missing.said and "not in the container" in missing.said, "the missing tool is not named")
        must(good_runs(stack) == before, "a run without its dump counts as good")


STATE = "answer([shop.orders.find().toArray().map((it) => it._id), shop.getCollectionNames().sort()])"


@scenario(long=True)
def a_restore_of_mongodb_that_fails_in_the_middle_leaves_what_was_there(world: World) -> None:
    with mongodb(world) as stack:
        shell(stack, 'shop.orders.insertOne({_id: 1}); many(shop, "big", 2000, (n) => ({_id: n, text: "x".repeat(500) + n}));')
        stack.devstack("apply", "--yes")
        shell(stack, "shop.orders.insertOne({_id: 42})")
        was = asked(stack, STATE)
        replace_tool(stack, "mongorestore", 'head -c 600000 | mongorestore.real "$@"')
        failed = restore(stack, expect=7)
        must("as it was before" in failed and "mongorestore" in failed, "neither the cause nor the state is told")
        must(asked(stack, STATE) == was, "a restore that failed changed what was there")
        # A tool that loads nothing and says that all is well.
        replace_tool(stack, "mongorestore", "cat >/dev/null")
        silent = restore(stack, expect=7)
        must("shop.big is missing" in silent and "as it was before" in silent, "a restore of nothing is not noticed")
        must(asked(stack, STATE) == was, "a restore of nothing changed what was there")
        stack.inside("mongodb", "sh", "-c", "p=$(command -v mongorestore); mv $p.real $p", user="root")
        # As a restore that is killed between two exchanges leaves it.
        shell(stack, 'const move = (from, to) => admin.runCommand({renameCollection: "shop." + from, to: "shop." + to});'
                     'move("big", "devstack_aside_big"); shop.big.insertOne({_id: "new"}); shop.devstack_loading_orders.insertOne({_id: "new"})')
        half = stack.devstack("backup", expect=7)
        must("cut off" in half.said and "restore it again" in half.said, "a half restored database was backed up")
        replace_tool(stack, "mongorestore", "exit 3")
        restore(stack, expect=7)
        must(asked(stack, STATE) == was, "what was aside did not come back")
        must(asked(stack, "answer(shop.big.countDocuments({}))") == 2000, "what was aside came back with less")
        stack.inside("mongodb", "sh", "-c", "p=$(command -v mongorestore); mv $p.real $p", user="root")
        told = restore(stack)
        must(asked(stack, STATE) == [[1], was[1]], f"the restore did not bring the backup back: {told}")


@scenario()
def the_least_rights_for_mongodb_that_the_page_names_are_enough_and_one_less_is_not(world: World) -> None:
    if images()["MONGO_IMAGE"].startswith("devstack-test/"):
        world.note("not shown: the stand-in for MongoDB has no roles")
        return
    declared = (
        "  mongodb: { source: { mongodb: { container: mongodb, user: devstack_backup, password: { env: BACKUP_PASSWORD },"
        " restore_as: { user: devstack_restore, password: { env: BACKUP_PASSWORD } } } } }"
    )
    with mongodb(world, declared) as stack:
        page = (Path(__file__).parents[2] / "docs/engines/mongodb.md").read_text()
        statements = page.split("```javascript\n", 1)[1].split("```", 1)[0].replace("…", "throw-away-2")
        stack.environment["BACKUP_PASSWORD"] = "throw-away-2"
        shell(stack, f"shop.orders.insertOne({{_id: 1}}); const db = admin; {statements}")
        stack.devstack("apply", "--yes")
        shell(stack, "shop.orders.deleteMany({})")
        restore(stack)
        must(asked(stack, "answer(shop.orders.countDocuments({}))") == 1, "the restore did not bring the document back")
        shell(stack, 'admin.runCommand({revokeRolesFromUser: "devstack_backup", roles: ["backup"]})')
        less = stack.devstack("backup", expect=7)
        must("not authorized" in less.said, "the right that is missing is not named")
