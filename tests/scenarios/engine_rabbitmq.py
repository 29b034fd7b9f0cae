"""RabbitMQ: its definitions and its messages, taken, destroyed, restored, and compared by its own clients."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from compose_stack import ComposeStack, compose_stack
from scenario import Broken, World, must, scenario
from stack import wait_until

DEFINITIONS = "  rabbitmq: { source: { rabbitmq: { container: rabbitmq } } }"
MESSAGES = "  rabbitmq: { source: { rabbitmq: { container: rabbitmq, messages: true } } }"


@contextmanager
def rabbitmq(world: World, *services: str, override: str = "") -> Iterator[ComposeStack]:
    with compose_stack(world, list(services) or [DEFINITIONS], ["rabbitmq"], override=override) as stack:
        yield stack


def ctl(stack: ComposeStack, *arguments: str, expect: int | None = 0, stdin: str = "") -> str:
    return stack.inside("rabbitmq", "rabbitmqctl", "--silent", *arguments, expect=expect, stdin=stdin).text


# The management plugin's own interface, asked with what every image with Erlang has: no client is needed in the image.
HTTP = r"""
{ok, _} = application:ensure_all_started(inets),
Ask = fun(Method, Path, Body) ->
  Url = "http://127.0.0.1:15672/api/" ++ Path,
  Auth = {"authorization", "Basic " ++ binary_to_list(base64:encode(<<"@USER@:@PASSWORD@">>))},
  Request = case Method of get -> {Url, [Auth]}; delete -> {Url, [Auth]}; _ -> {Url, [Auth], "application/json", base64:decode(Body)} end,
  {ok, {{_, Code, _}, _, Answer}} = httpc:request(Method, Request, [{ssl, [{verify, verify_none}]}], [{body_format, binary}]),
  io:format("~b ~s~n", [Code, base64:encode(Answer)])
end,
"""


def api(stack: ComposeStack, asks: list[tuple[str, str, Any]]) -> list[Any]:
    """Asks the management plugin, all in one call, since a call takes a second."""
    head = HTTP.replace("@USER@", stack.variables["RABBITMQ_USER"]).replace("@PASSWORD@", stack.variables["RABBITMQ_PASSWORD"])
    lines = []
    for method, path, body in asks:
        data = base64.b64encode(json.dumps(body).encode()).decode()
        lines.append(f'Ask({method}, "{path}", "{data}")')
    answers = []
    for line in ctl(stack, "eval", head + ",\n".join(lines) + ".").splitlines():
        code, _, data = line.partition(" ")
        if not code.isdigit():
            continue
        text = base64.b64decode(data)
        if int(code) >= 300:
            raise Broken(f"{asks[len(answers)][:2]} was answered with {code}: {text!r}")
        answers.append(json.loads(text) if text else None)
    must(len(answers) == len(asks), f"{len(answers)} answers to {len(asks)} questions")
    return answers


def fill(stack: ComposeStack) -> None:
    v = "b%C3%BCro%2Ftest"
    api(stack, [
        ("put", f"vhosts/{v}", {"description": "a vhost", "tags": "x,y"}),
        ("put", "users/o'brien", {"password": "throw-away-1", "tags": "monitoring,policymaker"}),
        ("put", "users/nobody", {"password_hash": "", "tags": ""}),
        ("put", f"permissions/{v}/o'brien", {"configure": "^a.*", "write": ".*", "read": "x|y"}),
        ("put", f"permissions/{v}/{stack.variables['RABBITMQ_USER']}", {"configure": ".*", "write": ".*", "read": ".*"}),
        ("put", f"topic-permissions/{v}/o'brien", {"exchange": "topics", "write": "^w", "read": "^r"}),
        ("put", f"exchanges/{v}/topics", {"type": "topic", "durable": True, "arguments": {"alternate-exchange": "lost"}}),
        ("put", f"exchanges/{v}/lost", {"type": "fanout", "durable": True}),
        ("put", f"exchanges/{v}/heads", {"type": "headers", "durable": True}),
        ("put", f"queues/{v}/quorum", {"durable": True, "arguments": {"x-queue-type": "quorum", "x-delivery-limit": 7}}),
        ("put", f"queues/{v}/classic", {"durable": True, "arguments": {"x-message-ttl": 3600000, "x-max-length": 100000}}),
        ("put", f"queues/{v}/stream", {"durable": True, "arguments": {"x-queue-type": "stream"}}),
        ("put", f"queues/{v}/%F0%9F%90%98%20q", {"durable": True, "arguments": {}}),
        ("post", f"bindings/{v}/e/topics/q/quorum", {"routing_key": "#.önce", "arguments": {}}),
        ("post", f"bindings/{v}/e/topics/q/classic", {"routing_key": "a.*", "arguments": {}}),
        ("post", f"bindings/{v}/e/heads/q/classic", {"routing_key": "", "arguments": {"x-match": "any", "n": 4}}),
        ("post", f"bindings/{v}/e/topics/e/lost", {"routing_key": "gone", "arguments": {}}),
        ("put", f"policies/{v}/short", {"pattern": "^c", "definition": {"expires": 36000000, "max-length-bytes": 10**9}, "priority": 3, "apply-to": "queues"}),
        ("put", f"operator-policies/{v}/limit", {"pattern": ".*", "definition": {"max-length": 500000}, "priority": 1, "apply-to": "queues"}),
        ("put", f"vhost-limits/{v}/max-connections", {"value": 500}),
        ("put", f"vhost-limits/{v}/max-queues", {"value": 77}),
        ("put", "user-limits/o'brien/max-channels", {"value": 8}),
        ("put", "global-parameters/own", {"name": "own", "value": {"a": [1, 2.5, "ü"], "b": {"c": True}}}),
    ])


LISTS = ("users", "vhosts", "permissions", "topic-permissions", "exchanges", "queues", "bindings", "policies",
         "operator-policies", "parameters", "global-parameters", "vhost-limits", "user-limits")

# What one node counts or calls itself, and another may not.
OF_THE_NODE = {
    "name", "password_hash", "hashing_algorithm", "tags", "description", "metadata", "vhost", "user", "configure", "write",
    "read", "exchange", "type", "durable", "internal", "auto_delete", "arguments", "source", "destination",
    "destination_type", "routing_key", "pattern", "definition", "priority", "apply-to", "value", "component", "limits",
}


def look(stack: ComposeStack) -> dict[str, list[str]]:
    answers = api(stack, [("get", name, None) for name in LISTS])
    seen = {}
    for name, answer in zip(LISTS, answers, strict=True):
        kept = [{key: value for key, value in one.items() if key in OF_THE_NODE} for one in answer]
        kept = [one for one in kept if one.get("name") not in {"internal_cluster_id", "cluster_name"}]
        seen[name] = sorted(json.dumps(one, sort_keys=True) for one in kept)
    return seen


def must_be_same(before: dict[str, list[str]], after: dict[str, list[str]]) -> None:
    for name in LISTS:
        lost = [one for one in before[name] if one not in after[name]]
        more = [one for one in after[name] if one not in before[name]]
        must(not lost and not more, f"{name}: lost {lost}, more {more}")


def in_place(stack: ComposeStack, expect: int = 0) -> str:
    approve = ("--in-place", "--without-safety", "--yes", "--approve", "restore:rabbitmq")
    return stack.devstack("restore", "rabbitmq", *approve, expect=expect).said


def good_runs(stack: ComposeStack) -> list[str]:
    return [name for name, run in stack.runs().items() if run.verified]


@scenario()
def rabbitmqs_definitions_come_back_with_everything(world: World) -> None:
    with rabbitmq(world) as stack:
        empty = stack.devstack("apply", "--yes", expect=4)
        must("--approve take:rabbitmq" in empty.said and not good_runs(stack), "a new server was backed up unasked")
        stack.devstack("apply", "--yes", "--approve", "take:rabbitmq")
        stack.devstack("backup")
        must(len(good_runs(stack)) == 2, "what somebody has called right once is asked again")
        fill(stack)
        stack.devstack("backup")
        before = look(stack)
        stack.reborn("rabbitmq")
        must(look(stack) != before, "the new server is not empty, so nothing would be shown")
        in_place(stack)
        must_be_same(before, look(stack))
        login = ctl(stack, "authenticate_user", "o'brien", "throw-away-1")
        must("Success" in login or login == "", "the user's password is another")
        # Over what is there: changed back, and what the backup does not hold stays, and is told.
        ctl(stack, "add_vhost", "later")
        ctl(stack, "set_permissions", "--vhost", "büro/test", "o'brien", "", "", "")
        said = in_place(stack)
        must("1 vhosts" in said, "what stays beside is not told")
        after = look(stack)
        must(any("later" in one for one in after["vhosts"]), "an import removed what the backup does not hold")
        after = {name: [one for one in all_of_it if '"later"' not in one] for name, all_of_it in after.items()}
        must_be_same(before, after)
        world.note(f"{sum(map(len, before.values()))} definitions compared")
        with world.part("a plugin that is not enabled is told before anything is touched"):
            plugins = lambda *words: stack.inside("rabbitmq", "rabbitmq-plugins", "--quiet", *words, user="root")  # noqa: E731
            plugins("enable", "rabbitmq_consistent_hash_exchange")
            api(stack, [("put", "exchanges/%2F/spread", {"type": "x-consistent-hash", "durable": True})])
            stack.devstack("backup", expect={0, 8})
            api(stack, [("delete", "exchanges/%2F/spread", None), ("delete", "users/o'brien", None)])
            plugins("disable", "rabbitmq_consistent_hash_exchange")
            untouched = look(stack)
            said = in_place(stack, expect=7)
            must("x-consistent-hash" in said and "rabbitmq-plugins enable" in said, f"the plugin is not told: {said}")
            must_be_same(untouched, look(stack))
            plugins("enable", "rabbitmq_consistent_hash_exchange")
            in_place(stack)
            must(any("spread" in one for one in look(stack)["exchanges"]), "the exchange did not come back")


def publish(stack: ComposeStack, queue: str, bodies: list[str]) -> None:
    asks = [
        ("post", "exchanges/%2F/amq.default/publish",
         {"routing_key": queue, "payload": body, "payload_encoding": "string",
          "properties": {"delivery_mode": 2, "headers": {"n": number, "s": "ü"}}})
        for number, body in enumerate(bodies)
    ]
    # An argument may have 128 KiB.
    for start in range(0, len(asks), 50):
        api(stack, asks[start:start + 50])


def waiting(stack: ComposeStack) -> dict[str, int]:
    listed = ctl(stack, "list_queues", "name", "messages_persistent", "--formatter", "json")
    return {one["name"]: one["messages_persistent"] for one in json.loads(listed)}


def messages(stack: ComposeStack, queue: str) -> list[tuple[str, Any]]:
    """The messages of a queue, left where they are. (Looking counts as a delivery, which a header tells, and what was
    looked at may stand elsewhere in the queue: they are sorted.)"""
    got = api(stack, [("post", f"queues/%2F/{queue}/get", {"count": 1000, "ackmode": "ack_requeue_true", "encoding": "auto"})])
    kept = []
    for one in got[0]:
        properties = one["properties"]
        properties["headers"] = {name: value for name, value in properties["headers"].items() if not name.startswith("x-")}
        kept.append((one["payload"], properties))
    return sorted(kept, key=lambda one: one[0])


QUEUES = [
    ("put", "queues/%2F/quorum", {"durable": True, "arguments": {"x-queue-type": "quorum"}}),
    ("put", "queues/%2F/classic", {"durable": True, "arguments": {}}),
]


@scenario()
def durable_messages_come_back_onto_the_same_node(world: World) -> None:
    with rabbitmq(world, MESSAGES) as stack:
        api(stack, QUEUES)
        publish(stack, "quorum", [f"quorum {n} ü" for n in range(100)])
        publish(stack, "classic", [f"classic {n}" for n in range(99)] + ["x" * 40_000])
        before = {queue: messages(stack, queue) for queue in ("quorum", "classic")}
        must([len(found) for found in before.values()] == [100, 100], f"{waiting(stack)} was published")
        definitions = look(stack)
        container = stack.container("rabbitmq")
        stack.devstack("apply", "--yes")
        must(stack.container("rabbitmq") == container, "the container was replaced")
        ctl(stack, "await_startup")
        stack.reborn("rabbitmq")
        must(not waiting(stack), "the new server is not empty, so nothing would be shown")
        in_place(stack)
        after = {queue: messages(stack, queue) for queue in ("quorum", "classic")}
        for queue, found in before.items():
            odd = [pair for pair in zip(found, after[queue], strict=False) if pair[0] != pair[1]]
            must(found == after[queue], f"{queue}: {len(found)} and {len(after[queue])} messages, others: {odd[:2]}")
        must_be_same(definitions, look(stack))
        world.note("200 messages compared")


OTHER_NAME = """\
services:
  rabbitmq:
    hostname: other
    environment: { RABBITMQ_NODENAME: rabbit@other }
"""


@scenario(long=True)
def another_node_name_is_refused_before_anything_is_touched(world: World) -> None:
    with rabbitmq(world, MESSAGES) as stack:
        api(stack, QUEUES)
        publish(stack, "classic", ["one"])
        stack.devstack("apply", "--yes")
        (stack.folder / "other.yml").write_text(OTHER_NAME)
        stack.destroy("rabbitmq")
        stack.compose("--file", "docker-compose.yml", "--file", "other.yml", "up", "--detach", "--wait", "rabbitmq")
        started = json.loads(stack.run(["docker", "inspect", stack.container("rabbitmq")]).out)[0]["State"]["StartedAt"]
        said = in_place(stack, expect=7)
        must("rabbit@rabbitmq" in said and "rabbit@other" in said, "the two names are not told")
        must("RABBITMQ_NODENAME" in said, "the way out is not told")
        now = json.loads(stack.run(["docker", "inspect", stack.container("rabbitmq")]).out)[0]["State"]["StartedAt"]
        must(now == started, "the node was stopped although its name is another")


@scenario()
def a_rabbitmq_that_is_down_or_dies_or_ends_early_is_seen(world: World) -> None:
    with rabbitmq(world) as stack:
        api(stack, QUEUES)
        stack.devstack("apply", "--yes")
        before = good_runs(stack)
        real = stack.inside("rabbitmq", "sh", "-c", "command -v rabbitmqctl").text
        script = f'#!/bin/sh\ncase "$*" in *export_definitions*) sh {real}.real "$@" | head -c 400; exit 0;; esac\nexec sh {real}.real "$@"\n'
        stack.inside("rabbitmq", "sh", "-c", f"cp -L {real} {real}.real; rm {real}; cat >{real}; chmod 755 {real}", stdin=script, user="root")
        early = stack.devstack("backup", expect=7)
        must("rabbitmq" in early.said and "EOF" in early.said, "an export that ended early is not named")
        must(good_runs(stack) == before, "an export that ended early counts as good")
        slow = f'#!/bin/sh\ncase "$*" in *export_definitions*) touch /tmp/exporting; sleep 60;; esac\nexec sh {real}.real "$@"\n'
        stack.inside("rabbitmq", "sh", "-c", f"cat >{real}", stdin=slow, user="root")
        process = stack.start("backup")
        wait_until(lambda: stack.inside("rabbitmq", "test", "-e", "/tmp/exporting", expect=None).code == 0, "the export to begin")
        stack.kill("rabbitmq")
        said, _ = process.communicate(timeout=120)
        print(said)
        must(process.returncode == 7 and "rabbitmq" in said, f"a server killed in the middle ended with {process.returncode}")
        down = stack.devstack("backup", expect=7)
        must("is not running" in down.said, "a stopped server is not named as such")
        must(good_runs(stack) == before, "a run without its server counts as good")
        stack.compose("rm", "--force", "--stop", "rabbitmq")
        gone = stack.devstack("backup", expect=7)
        must("no container rabbitmq" in gone.said, "a missing container is not named as such")


@scenario()
def a_wrong_cookie_and_an_import_that_fails_are_named(world: World) -> None:
    with rabbitmq(world) as stack:
        fill(stack)
        stack.devstack("apply", "--yes")
        before = good_runs(stack)
        # A queue cannot become one of another kind: the import of that one fails on the server.
        api(stack, [("delete", "queues/b%C3%BCro%2Ftest/classic", None),
                    ("put", "queues/b%C3%BCro%2Ftest/classic", {"durable": True, "arguments": {"x-queue-type": "quorum"}})])
        failed = in_place(stack, expect=7)
        must("classic" in failed and "importing the definitions" in failed, "the import that failed is not named")
        must("what was there before is there" in failed, "the state after a failed import is not told")
        stack.inside("rabbitmq", "sh", "-c", "cookie=/var/lib/rabbitmq/.erlang.cookie; chmod 600 $cookie; echo WRONG >$cookie", user="root")
        wrong = stack.devstack("backup", expect=7)
        must("rabbitmq" in wrong.said and ("cookie" in wrong.said or "unable to" in wrong.said), "the wrong cookie is not named")
        must(good_runs(stack) == before, "a run without its service counts as good")


@scenario("restic")
def restic_and_rabbitmqctl_read_what_devstack_wrote(world: World) -> None:
    with rabbitmq(world) as stack:
        fill(stack)
        # These two RabbitMQ exports in a form that it does not read back; devstack does, and the page says how by hand.
        api(stack, [("delete", "operator-policies/b%C3%BCro%2Ftest/limit", None), ("delete", "global-parameters/own", None)])
        stack.devstack("apply", "--yes")
        before = look(stack)
        stack.reborn("rabbitmq")
        restic = ["restic", "-r", "backups", "--password-file", "key/passphrase"]
        snapshots = json.loads(stack.run([*restic, "snapshots", "--json"]).out)
        holding = [s["id"] for s in snapshots if b"/definitions.json" in stack.run([*restic, "ls", s["id"]]).out]
        must(len(holding) == 1, f"{len(holding)} snapshots hold the definitions")
        definitions = stack.run([*restic, "dump", holding[0], "/definitions.json"]).out
        stack.inside("rabbitmq", "sh", "-c", "cat | rabbitmqctl import_definitions /dev/stdin", stdin=definitions)
        must_be_same(before, look(stack))
