"""The clairvoyant minimum of a trace, and the failures that no cache can hide. Independent of sentrybox: it reads the
trace and its parameters, and nothing else.

    minimum.py FOLDER      reads FOLDER/trace.jsonl and FOLDER/parameters.json, prints a JSON object

What the best possible cache would do that knows the whole trace, keeps to the lifetimes, and never asks ahead:

1. A key is a token and a target (parameters sorted by name). Nobody is given what another token fetched.
2. A response is fetched at a read that finds nothing usable, at time t, and covers every read before t + fresh_for.
   Equal reads while it is under way share it. Fetching at the first uncovered read is optimal, because a later fetch
   never ends its cover earlier.
3. A write is one request. It takes effect for readers when it is answered, after its path's latency. What was fetched
   before that moment is unusable from then on if the write touches it, for every token:
   - a write to issues touches every issue of the organization, and what shows issues: lists, counts, events, tags, short
     ids; one issue has many names, and may be merged with another;
   - a write to releases touches every release of the organization, what shows releases (the organization itself, projects,
     environments, repositories, sessions) and, because a release resolves some, issues as above.
4. What is fetched within `settle` after a write that touches it is fresh for `settling_fresh_for` only.
5. From the first to the last moment of the failure upstream answers nothing. A read of a key that is stored, however
   stale, is answered from the store and costs nothing; every other read fails and costs nothing, and so does every
   write. A write that fails makes unusable what it touches all the same: whether it was done cannot be known.

So a failure (5xx) is dictated by the trace, from `largest_latency` and QUEUE_MS before upstream fails (Sentry's limits make
bursts wait that long: a user's cold start needs up to 70 requests in a second, of which 40 are allowed) until
`largest_latency` after it is well again, because of `write`; of `never_stored`, when nothing was fetched under the key before; or of `invalidated`, when
something was, but a write has touched it since. In that margin it is chance whether a request still gets its answer: what
is fetched there does not count as stored, and a write counts from when it is sent.

`settling` lists other reads of that time: what is stored for them was fetched within `settle` after a write. A cache could
answer them; one that trusts such a response for `settling_fresh_for` and no longer does not. No excuse, but a hint.
"""

import json
import sys
from collections import Counter
from pathlib import Path
from urllib.parse import parse_qsl

LIST = "/api/0/organizations/"
PROJECTS = "/api/0/projects/"
SHOWING_ISSUES = ("issue", "shortids", "eventids", "events", "group", "tags", "user-feedback", "user-reports", "users")
SHOWING_RELEASES = ("release", "projects", "environments", "repos", "sessions", "artifactbundle")
QUEUE_MS = 2_000
CAUSES = ("write", "never_stored", "invalidated")


def path_of(target):
    return target.split("?", 1)[0]


def normalized(target):
    path, _, query = target.partition("?")
    return path, tuple(sorted(parse_qsl(query, keep_blank_values=True), key=lambda pair: pair[0]))


def within(path):
    """The organization of a path, and its segments after that; of a project's path those after the project."""
    for prefix, skipped in ((LIST, 0), (PROJECTS, 1)):
        if path.startswith(prefix) and path != prefix:
            organization, *segments = path[len(prefix):].strip("/").split("/")
            return organization, segments[skipped:]
    return None, []


def shows_issues(segments):
    """Whether what lies here shows issues: a list, a count, an event, or any issue of its own."""
    return bool(segments) and segments[0].startswith(SHOWING_ISSUES)


def touches(written, read):
    """Whether a write to one path touches what is read at another."""
    organization, segments = within(written)
    whose, shown = within(read)
    if segments[:1] not in (["issues"], ["releases"]):
        raise SystemExit(f"no rule for a write to {written}")
    if whose != organization:
        return False
    if segments[0] == "issues":
        return shows_issues(shown)
    return not shown or shown[0].startswith(SHOWING_RELEASES) or shows_issues(shown)


class Writes:
    """Which writes touch what: when each was sent, and when it was answered."""

    def __init__(self, events, latency):
        self.writes = [
            (event["at_ms"], event["at_ms"] + latency[path_of(event["target"])], path_of(event["target"]))
            for event in events
            if event["method"] != "GET"
        ]
        self.by_path = {}

    def touching(self, path):
        if path not in self.by_path:
            touching = [(sent, done) for sent, done, written in self.writes if touches(written, path)]
            self.by_path[path] = touching
        return self.by_path[path]


class Key:
    """What is stored under one key."""

    def __init__(self, writes):
        self.writes = writes
        self.fetched = None  # When what is stored was asked for.
        self.fresh_until = None
        self.surely_fetched = None  # The same, of what the failure cannot have overtaken.

    def covers(self, now):
        """Whether what is stored may be given to a read that comes now."""
        if self.fetched is None or self.fresh_until <= now:
            return False
        return not any(self.fetched < done <= now for _, done in self.writes)

    def fetch(self, now, lifetime, known):
        is_settling = any(0 <= now - done < known["settle_ms"] for _, done in self.writes)
        fresh_for = min(lifetime, known["settling_fresh_for_ms"]) if is_settling else lifetime
        self.fetched, self.fresh_until = now, now + fresh_for

    def excuse(self, now):
        """Why a read that comes now, while upstream fails, may fail too; none if the store must answer it."""
        if self.surely_fetched is None:
            return "never_stored"
        touched = any(sent <= now and self.surely_fetched <= done for sent, done in self.writes)
        return "invalidated" if touched else None

    def is_settling(self, known):
        """Whether what is stored was fetched soon after a write."""
        return any(0 <= self.surely_fetched - done < known["settle_ms"] for _, done in self.writes)


def compute(events, known):
    begin, end = known["failure_ms"]
    margin = known["largest_latency_ms"]
    writes = Writes(events, known["latency_ms"])
    keys, fetches, causes, settling = {}, Counter(), {}, []
    for number, event in enumerate(events):
        now, target = event["at_ms"], event["target"]
        fails = begin <= now < end
        is_near_failure = begin - margin - QUEUE_MS <= now < end + margin
        if event["method"] != "GET":
            fetches["writes"] += not fails
            if is_near_failure:
                causes[number] = "write"
            continue
        path, name = path_of(target), (event["token"], normalized(target))
        key = keys.setdefault(name, Key(writes.touching(path)))
        excuse = key.excuse(now) if is_near_failure else None
        if excuse is not None:
            causes[number] = excuse
        elif is_near_failure and key.is_settling(known):
            settling.append(number)
        if fails or key.covers(now):
            continue
        lifetime = known["fresh_for_ms"][target]
        fetches["reads"] += 1
        fetches[f"reads of what is fresh for {lifetime // 1000} s"] += 1
        key.fetch(now, lifetime, known)
        if not is_near_failure:
            key.surely_fetched = now
    return keys, fetches, causes, settling


def main():
    folder = Path(sys.argv[1])
    events = [json.loads(line) for line in (folder / "trace.jsonl").read_text().splitlines()]
    known = json.loads((folder / "parameters.json").read_text())
    keys, fetches, causes, settling = compute(events, known)
    dictated = Counter(causes.values())
    answer = {
        "requests": len(events),
        "keys": len(keys),
        "minimum": fetches["reads"] + fetches["writes"],
        "fetches": dict(sorted(fetches.items())),
        "dictated": {cause: dictated[cause] for cause in CAUSES},
        "causes": causes,
        "settling": settling,
    }
    json.dump(answer, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
