"""A user of the etcd3 package: everything that programs do with one member, each answer checked.

    client.py HOST PORT
"""

import io
import sys
import threading
import time

import etcd3
from etcd3 import exceptions


def check(ok, *what):
    if not ok:
        raise AssertionError(what)


def keys(client):
    client.put("k/1", "one")
    client.put("k/1", "uno", prev_kv=True)
    for name in ("k/2", "k/3", "k/4"):
        client.put(name, name.upper())
    value, meta = client.get("k/1")
    check(value == b"uno" and meta.version == 2 and meta.mod_revision > meta.create_revision, value, meta)
    found = [(meta.key, value) for value, meta in client.get_prefix("k/", sort_order="descend")]
    check(found == [(b"k/4", b"K/4"), (b"k/3", b"K/3"), (b"k/2", b"K/2"), (b"k/1", b"uno")], found)
    found = [value for value, _ in client.get_range("k/2", "k/4")]
    check(found == [b"K/2", b"K/3"], found)
    check(client.delete("k/2") and not client.delete("k/2"), "delete")
    check(client.delete_prefix("k/").deleted == 3, "delete of a prefix")
    check(client.get("k/1") == (None, None), "get of a deleted key")
    big = b"b" * (1 << 20)
    client.put("big", big)
    check(client.get("big")[0] == big, "a large value")


def txn(client):
    check(client.put_if_not_exists("t/a", "1") and not client.put_if_not_exists("t/a", "2"), "if not exists")
    check(client.replace("t/a", "1", "2") and not client.replace("t/a", "1", "3"), "replace")
    tx = client.transactions
    succeeded, answers = client.transaction(
        compare=[tx.value("t/a") == "2", tx.version("t/b") == 0],
        success=[tx.put("t/b", "x"), tx.get("t/b"), tx.delete("t/a")],
        failure=[tx.get("t/a")],
    )
    check(succeeded and answers[1][0][0] == b"x", answers)
    succeeded, _ = client.transaction(compare=[tx.create("t/a") > 0], success=[], failure=[tx.put("t/c", "y")])
    check(not succeeded and client.get("t/c")[0] == b"y", "failure branch")


def watch(client):
    client.put("w/0", "before")
    start = client.get("w/0")[1].mod_revision
    client.put("w/0", "after")
    events, cancel = client.watch_prefix("w/", start_revision=start + 1, prev_kv=True)
    first = next(events)
    check(isinstance(first, etcd3.events.PutEvent) and first.value == b"after" and first.prev_value == b"before", first)
    for i in range(50):
        client.put(f"w/{i:02}", "x")
    client.delete("w/07")
    for i in range(50):
        event = next(events)
        check(event.key == f"w/{i:02}".encode(), i, event)
    event = next(events)
    check(isinstance(event, etcd3.events.DeleteEvent) and event.key == b"w/07", event)
    cancel()
    check(list(events) == [], "a cancelled watch")
    called = threading.Event()
    number = client.add_watch_callback("w/cb", lambda answer: called.set())
    client.put("w/cb", "x")
    check(called.wait(5), "callback")
    client.cancel_watch(number)


def lease(client):
    kept, short = client.lease(3), client.lease(2)
    client.put("l/kept", "x", lease=kept)
    client.put("l/lost", "x", lease=short)
    end = time.monotonic() + 10
    while client.get("l/lost")[0] is not None:
        check(time.monotonic() < end, "a lease that nobody renews runs out")
        check([answer.TTL for answer in kept.refresh()] == [3], "keepalive")
        time.sleep(0.3)
    check(client.get("l/kept")[0] == b"x", "the kept key is there")
    check(kept.remaining_ttl > 0 and kept.granted_ttl == 3 and list(kept.keys) == [b"l/kept"], "time to live")
    kept.revoke()
    check(client.get("l/kept")[0] is None, "the key goes with its lease")


def lock(client):
    with client.lock("one", ttl=10) as held:
        check(held.is_acquired(), "lock")
        check(not client.lock("one", ttl=10).acquire(timeout=0.2), "two holders")
    other = client.lock("one", ttl=10)
    check(other.acquire(timeout=5) and other.release(), "released")


def compaction(client):
    client.put("c", "1")
    client.put("c", "2")
    revision = client.get("c")[1].mod_revision
    client.compact(revision, physical=True)
    events, _ = client.watch("c", start_revision=1)
    try:
        next(events)
        check(False, "a watch of a compacted revision")
    except exceptions.RevisionCompactedError as error:
        check(error.compacted_revision == revision, error.compacted_revision)


def maintenance(client):
    status = client.status()
    check(status.version.startswith("3.7.") and status.leader is not None and status.db_size > 0, status)
    check(len(list(client.members)) == 1 and list(client.list_alarms()) == [], "members, alarms")
    client.defragment()
    check(client.hash() == client.hash(), "hash")
    snapshot = io.BytesIO()
    client.snapshot(snapshot)
    check(len(snapshot.getvalue()) % 512 == 32, "a snapshot has a file and its hash", len(snapshot.getvalue()))


def main():
    client = etcd3.client(host=sys.argv[1], port=int(sys.argv[2]), timeout=10)
    for step in (keys, txn, watch, lease, lock, compaction, maintenance):
        step(client)
        print(step.__name__, "ok", flush=True)
    client.close()


main()
