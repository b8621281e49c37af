"""Uses sentrypy for one thing, and prints what it got.

    python sentrypy_use.py WHAT [ARGUMENT...]

Which Sentry, and as whom: SENTRY_URL and SENTRY_AUTH_TOKEN. The library has https://sentry.io in every URL that it makes,
so that alone is replaced, on the way out; a URL from `Link`, which it follows as it stands, is left as it is.
"""

import json
import os
import sys

import requests.api
from sentrypy import Sentry

BUILT_IN = "https://sentry.io/"

send = requests.api.request


def send_elsewhere(method, url, **options):
    """Sends a request to SENTRY_URL that was meant for sentry.io."""
    if url.startswith(BUILT_IN):
        url = f"{os.environ['SENTRY_URL']}/{url.removeprefix(BUILT_IN)}"
    return send(method, url, **options)


requests.api.request = send_elsewhere


def show(things):
    """Prints things, one to a line."""
    for thing in things:
        print(json.dumps(thing.json))


sentry = Sentry(os.environ["SENTRY_AUTH_TOKEN"])
match sys.argv[1:]:
    case ["projects"]:
        show(sentry.projects())
    case ["organization", slug]:
        show([sentry.organization(slug)])
    case ["teams", slug]:
        show(sentry.organization(slug).teams())
    case ["create-team", slug, team]:
        show([sentry.organization(slug).create_team(team)])
    case ["delete-team", slug, team]:
        print(sentry.organization(slug).team(team).delete().status_code)
    case ["project", slug, project]:
        show([sentry.organization(slug).project(project)])
    case ["issues", slug, project]:
        show(sentry.organization(slug).project(project).issues())
    case ["issue", slug, issue]:
        show([sentry.organization(slug).issue(issue)])
    case ["events", slug, issue]:
        show(sentry.organization(slug).issue(issue).events())
    case ["update-issue", slug, issue, status]:
        show([sentry.organization(slug).issue(issue).update(status=status)])
    case ["update-issues", slug, project, issue, status]:
        print(sentry.organization(slug).project(project).update_issues(by_id=int(issue), status=status))
    case unknown:
        sys.exit(f"unknown: {unknown}")
