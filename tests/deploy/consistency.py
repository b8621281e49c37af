"""Holds rules, alerts, their tests and the Grafana dashboard to what sentrybox has. Run by tests/deploy/check.

    consistency.py METRICS_RS QUERIES      METRICS_RS is src/metrics.rs; QUERIES is written: the dashboard's queries as rules

1. Every metric in an expression, an annotation or a description stands in the table at the head of METRICS_RS, or is
   recorded by rules.yml; what is recorded is used. The labels that an expression names are those of the table, and the
   values that it asks for are literals in the sources beside it. Tests feed series with exactly the table's labels.
2. Every option that an annotation or a description names stands in config/default.toml.
3. Every alert has a severity, a summary, a description, a runbook of sentences, a test in which a target raises it and another
   one does not, and one of the minute before it is due.
4. Every panel has an id and a title of its own, a description, and a place that no other one takes.

Says every problem, and fails if there is one. The YAML that is read is what the files here are written in: block maps, block
lists, plain, quoted and block scalars, each key's value on its line or below it; promtool has read them as YAML before.
"""

import json
import re
import sys
from pathlib import Path

OURS = re.compile(r"\b(?:sentrybox|process)_[a-z0-9_]+")
NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
SELECTOR = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*\{([^{}]*)\}")
MATCHER = re.compile(r'\s*([a-zA-Z_]\w*)\s*(=~|!~|!=|=)\s*"([^"]*)"\s*(?:,|$)')
GROUPING = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\(([^()]*)\)")
OPTION = re.compile(r"`([a-z_]+(?:\.[a-z_]+)+)`")
FUNCTIONS = set(
    "absent avg avg_over_time changes clamp_max clamp_min count histogram_quantile increase max "
    "max_over_time min min_over_time rate sum sum_over_time time bottomk topk vector".split()
)
OPERATORS = {"and", "or", "unless", "bool", "offset", "inf", "nan"}
TARGET_LABELS = {"job", "instance"}
# Labels whose values a configuration, a version or Prometheus makes.
OPEN_LABELS = {"job", "instance", "route", "class", "version", "le", "alertname", "alertstate", "severity"}
FOREIGN = {"up": {"job", "instance"}, "ALERTS": {"alertname", "alertstate", "severity"} | TARGET_LABELS}
SEVERITIES = {"critical", "warning", "info"}
COLUMNS = 24

problems = []


def complain(where, what):
    problems.append(f"{where}: {what}")


# Reading


def read_yaml(path):
    """The file as maps, lists and texts; no text is taken for a number."""
    lines = [(len(line) - len(line.lstrip()), line.strip()) for line in path.read_text().splitlines()]
    value, rest = read_block(lines, 0, path)
    if any(text and not text.startswith("#") for _, text in rest):
        raise ValueError(f"{path}: cannot read {rest[0][1]!r}")
    return value


def skip(lines):
    while lines and (not lines[0][1] or lines[0][1].startswith("#")):
        lines = lines[1:]
    return lines


def read_block(lines, indent, path):
    """A map or a list that is indented by `indent`, and the lines after it."""
    lines = skip(lines)
    is_list = lines[0][1].startswith("- ")
    block = [] if is_list else {}
    while True:
        lines = skip(lines)
        if not lines or lines[0][0] < indent or lines[0][1].startswith("- ") != is_list:
            return block, lines
        depth, text = lines[0]
        if depth != indent:
            raise ValueError(f"{path}: unexpected indentation before {text!r}")
        if is_list:
            item = text[2:]
            if re.match(r"[\w-]+:( |$)", item):
                value, lines = read_block([(indent + 2, item), *lines[1:]], indent + 2, path)
            else:
                value, lines = scalar(item), lines[1:]
            block.append(value)
        else:
            key, found, text = text.partition(":")
            if not found or not re.fullmatch(r"[\w-]+", key) or key in block:
                raise ValueError(f"{path}: expected a new key, found {lines[0][1]!r}")
            block[key], lines = read_value(text.strip(), lines[1:], indent, path)


def read_value(text, lines, indent, path):
    if text in ("|", ">-"):
        taken = 0
        while taken < len(lines) and (not lines[taken][1] or indent < lines[taken][0]):
            taken += 1
        joint = "\n" if text == "|" else " "
        return joint.join(text for _, text in lines[:taken]).strip(), lines[taken:]
    if text:
        return scalar(text), lines
    below = skip(lines)
    if not below or below[0][0] <= indent:
        raise ValueError(f"{path}: a key without a value")
    return read_block(below, below[0][0], path)


def scalar(text):
    if text == "[]":
        return []
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1].replace('\\"', '"')
    return text


def read_table(path):
    """Each series of the table at the head of the file, with its labels."""
    series = {}
    for line in path.read_text().splitlines():
        if not line.startswith("//! | `"):
            continue
        name, kind, labels = (cell.strip() for cell in line.removeprefix("//! | ").split("|")[:3])
        name, labels = name.strip("`"), set(re.findall(r"`([^`]+)`", labels)) | TARGET_LABELS
        if kind == "histogram":
            series |= {f"{name}_bucket": labels | {"le"}, f"{name}_sum": labels, f"{name}_count": labels}
        else:
            series[name] = labels
    return series


def read_options(path):
    """Each option, as section.key."""
    section, options = "", set()
    for line in path.read_text().splitlines():
        if found := re.match(r"\[\[?([\w.]+)\]\]?$", line):
            section = found[1]
            parts = section.split(".")
            options |= {".".join(parts[:end]) for end in range(1, len(parts) + 1)}
        elif found := re.match(r"(\w+) = ", line):
            options.add(f"{section}.{found[1]}".lstrip("."))
        elif found := re.match(r"#\s+\[\[([\w.]+)\]\]$", line):
            options.add(found[1])
    return options


def read_literals(metrics):
    """Every text between quotes in the sources that labels come from."""
    rooms = [*metrics.parent.glob("metrics/*.rs"), *metrics.parent.glob("handling*.rs"), *metrics.parent.glob("handling/*.rs")]
    return {text for room in rooms for text in re.findall(r'"([\w-]+)"', room.read_text())}


# Comparing


class Names:
    """What there is to be named, and what was."""

    def __init__(self, metrics, recorded):
        self.series = read_table(metrics)
        self.literals = read_literals(metrics)
        self.options = read_options(metrics.parent.parent / "config" / "default.toml")
        self.recorded = recorded
        self.labels = set().union(*self.series.values(), *FOREIGN.values())
        self.used = set()

    def check_expression(self, where, expression):
        for name, matchers in SELECTOR.findall(expression):
            self.check_matchers(where, name, matchers)
        bare = re.sub(r'"[^"]*"', "", SELECTOR.sub(r"\1", expression))
        for _, labels in GROUPING.findall(bare):
            for label in NAME.findall(labels):
                if label not in self.labels:
                    complain(where, f"{label} is no label")
        bare = GROUPING.sub(" ", re.sub(r"\[[^\]]*\]|\boffset\s+\w+", " ", bare))
        bare = re.sub(r"\b\d[\w.]*", " ", bare)
        for found in NAME.finditer(bare):
            name, is_call = found[0], bare[found.end() :].lstrip().startswith("(")
            if name in OPERATORS or (is_call and name in FUNCTIONS):
                continue
            self.check_series(where, name)

    def check_series(self, where, name):
        self.used.add(name)
        if name not in self.series and name not in self.recorded and name not in FOREIGN:
            complain(where, f"{name} is neither in the table nor recorded")

    def check_matchers(self, where, name, matchers):
        rest = matchers.strip()
        known = self.series.get(name) or FOREIGN.get(name) or self.labels
        while rest:
            found = MATCHER.match(rest)
            if not found:
                complain(where, f"cannot read {{{matchers}}}")
                return
            label, _, values = found.groups()
            if label not in known:
                complain(where, f"{name} has no label {label}")
            if label not in OPEN_LABELS:
                for value in values.split("|"):
                    if value not in self.literals:
                        complain(where, f'{label}="{value}": the sources know no such value')
            rest = rest[found.end() :].strip()

    def check_text(self, where, text):
        families = {re.sub("_bucket$", "", name) for name in self.series}
        for name in OURS.findall(text):
            if name not in self.series and name not in families:
                complain(where, f"{name} is not in the table")
        for name, matchers in SELECTOR.findall(text):
            if name in self.series:
                self.check_matchers(where, name, matchers)
        for option in OPTION.findall(text):
            if option not in self.options:
                complain(where, f"{option} is no option")


def check_alerts(alerts, names):
    for alert in alerts:
        name, notes = alert["alert"], alert.get("annotations", {})
        names.check_expression(name, alert["expr"])
        if "for" not in alert:
            complain(name, "does not say for how long")
        if alert.get("labels", {}).get("severity") not in SEVERITIES:
            complain(name, "has none of the severities")
        for note in ("summary", "description", "runbook"):
            if not notes.get(note):
                complain(name, f"has no {note}")
            names.check_text(f"{name}: {note}", notes.get(note, ""))
        if len(re.findall(r"[.?](?: |$)", notes.get("runbook", ""))) < 2 or "lient" not in notes.get("runbook", ""):
            complain(name, "its runbook does not say in sentences what it means for clients, and what to do")
        for other in re.findall(r"\bSentrybox[A-Z]\w+", " ".join(notes.values())):
            if other not in {alert["alert"] for alert in alerts}:
                complain(name, f"refers to {other}, which is no alert")
    known = [alert["alert"] for alert in alerts]
    if len(set(known)) != len(known):
        complain("alerts", "two have one name")


def instance_of(series):
    return re.search(r'instance="([^"]*)"', series)


def check_tests(tests, alerts, names):
    fires, spares, waits = set(), set(), set()
    for test in tests:
        for fed in test["input_series"]:
            check_fed(f"the test \"{test['name']}\"", fed["series"], names)
        fed = {found[1] for each in test["input_series"] if (found := instance_of(each["series"]))}
        for query in test["promql_expr_test"]:
            names.check_expression(f"the test \"{test['name']}\"", query["expr"])
            asked = re.fullmatch(r'ALERTS\{alertname="(\w+)"(, alertstate="firing")?\}', query["expr"])
            if not asked:
                continue
            raised = {found[1] if (found := instance_of(each["labels"])) else "" for each in query["exp_samples"]}
            if raised:
                fires.add(asked[1])
            elif asked[2]:
                waits.add(asked[1])
            if (raised and fed - raised) or not (raised or asked[2]):
                spares.add(asked[1])
    for name in (alert["alert"] for alert in alerts):
        for tested, what in ((fires, "a target raises it"), (spares, "a target does not"), (waits, "it is not due yet")):
            if name not in tested:
                complain(name, f"has no test in which {what}")


def check_fed(where, series, names):
    found = SELECTOR.fullmatch(series)
    if not found:
        complain(where, f"cannot read {series}")
        return
    name, matchers = found.groups()
    given = {label for label, _, _ in MATCHER.findall(matchers)}
    wanted = names.series.get(name) or FOREIGN.get(name)
    if wanted is None:
        complain(where, f"{name} is not in the table")
    elif given != wanted:
        complain(where, f"{name} has the labels {', '.join(sorted(wanted))}, not {', '.join(sorted(given))}")
    names.check_matchers(where, name, matchers)


def panels_of(dashboard):
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", [])


def check_panels(dashboard, names):
    ids, titles, taken = set(), set(), {}
    for panel in panels_of(dashboard):
        where = f"panel {panel.get('id')} ({panel.get('title')})"
        if type(panel.get("id")) is not int or panel["id"] in ids:
            complain(where, "its id is none, or another one's, too")
        if not panel.get("title") or panel["title"] in titles:
            complain(where, "its title is empty, or another one's, too")
        ids.add(panel.get("id"))
        titles.add(panel.get("title"))
        check_place(where, panel["gridPos"], taken)
        if panel["type"] == "row":
            continue
        if len(panel.get("description", "")) < 40:
            complain(where, "has no description")
        names.check_text(where, panel.get("description", ""))
        if not panel.get("targets"):
            complain(where, "shows nothing")
        for each in (panel, *panel.get("targets", [])):
            check_source(where, each)
        references = [target["refId"] for target in panel.get("targets", [])]
        if len(set(references)) != len(references):
            complain(where, "two queries have one refId")


def check_source(where, asking):
    if asking.get("datasource") != {"type": "prometheus", "uid": "${datasource}"}:
        complain(where, "does not ask ${datasource}")


def check_place(where, place, taken):
    if place["x"] < 0 or place["w"] < 1 or place["h"] < 1 or COLUMNS < place["x"] + place["w"]:
        complain(where, "does not fit into the grid")
    for row in range(place["y"], place["y"] + place["h"]):
        for column in range(place["x"], place["x"] + place["w"]):
            if (row, column) in taken:
                complain(where, f"lies over {taken[row, column]}")
                return
            taken[row, column] = where


def queries_of(dashboard):
    """Each PromQL expression of the dashboard: where it stands, and its text."""
    for panel in panels_of(dashboard):
        for target in panel.get("targets", []):
            yield f"panel {panel['id']} ({panel['title']})", f"panel_{panel['id']}_{target['refId']}", target["expr"]
    for number, annotation in enumerate(dashboard["annotations"]["list"]):
        if "expr" in annotation:
            yield f"annotation {annotation['name']}", f"annotation_{number}", annotation["expr"]


def check_dashboard(path, names):
    dashboard = json.loads(path.read_text())
    check_panels(dashboard, names)
    rules = []
    for where, record, expression in queries_of(dashboard):
        expression = re.sub(r"\$__(rate_interval|interval|range)\b", "5m", expression)
        names.check_expression(where, expression)
        rules.append({"record": record, "expr": expression})
    for annotation in dashboard["annotations"]["list"]:
        if "expr" in annotation:
            check_source(f"annotation {annotation['name']}", annotation)
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            check_source(f"variable {variable['name']}", variable)
            found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            names.check_expression(f"variable {variable['name']}", f"sum by ({found[2]}) ({found[1]})")
    return rules


def main():
    metrics, queries = Path(sys.argv[1]), Path(sys.argv[2])
    folder = Path("deploy/prometheus")
    recording, alerting = (read_yaml(folder / name)["groups"] for name in ("rules.yml", "alerts.yml"))
    recorded = [rule for group in recording for rule in group["rules"]]
    alerts = [rule for group in alerting for rule in group["rules"]]
    suite = read_yaml(folder / "alerts_test.yml")
    if suite["group_eval_order"] != [group["name"] for group in recording + alerting]:
        complain("alerts_test.yml", "group_eval_order does not list the groups in their order")
    names = Names(metrics, {rule["record"] for rule in recorded})
    for rule in recorded:
        names.check_expression(rule["record"], rule["expr"])
    check_alerts(alerts, names)
    rules = check_dashboard(Path("deploy/grafana/sentrybox.json"), names)
    for name in names.recorded - names.used:
        complain(name, "is recorded, and nothing uses it")
    check_tests(suite["tests"], alerts, names)
    # JSON is YAML.
    queries.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    for problem in problems:
        print(problem)
    used = len(names.used & names.series.keys())
    print(f"{len(alerts)} alerts, {len(recorded)} recorded series, {len(rules)} queries, {used} series of sentrybox: ", end="")
    print(f"{len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
