"""Counts answers that show the state before a write that their reader could know of: the write was answered before the
read was sent, and upstream made the read's answer before it did what the write said.

    outdated.py FOLDER SYSTEM      reads FOLDER/trace.jsonl and FOLDER/SYSTEM.jsonl, prints a number

Only writes that succeeded count. What a write touches: minimum.py.
"""

import json
import sys
from pathlib import Path

from minimum import path_of, touches


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def main():
    folder, system = Path(sys.argv[1]), sys.argv[2]
    events, answers = lines(folder / "trace.jsonl"), lines(folder / f"{system}.jsonl")
    made = [(events[answer["event"]], answer) for answer in answers if answer["made_ms"] and answer["status"] < 300]
    writes = [
        (path_of(event["target"]), answer["sent_ms"] + answer["wait_ms"], answer["made_ms"])
        for event, answer in made
        if event["method"] != "GET"
    ]
    by_path = {}
    outdated = 0
    for event, answer in made:
        if event["method"] != "GET":
            continue
        path = path_of(event["target"])
        if path not in by_path:
            by_path[path] = [(known, done) for written, known, done in writes if touches(written, path)]
        outdated += any(known < answer["sent_ms"] and answer["made_ms"] < done for known, done in by_path[path])
    print(outdated)


if __name__ == "__main__":
    main()
