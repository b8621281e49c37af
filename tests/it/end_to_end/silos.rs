//! The built binary before a deployment of three servers: a control silo and two regions, among which organizations are
//! spread. Which server was asked is read in each one's journal.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use sentrybox::sandbox::silos::{Deployment, Home, RegionUrls};
use sentrybox::sandbox::{Sandbox, SandboxOptions};

use crate::end_to_end::{LIST, OWNER, Stage, count, next_page};
use crate::support::binary::{Binary, sentrybox};
use crate::support::http::{Answer, Fields, get, put};

const REGIONS: &str = "/api/0/users/me/regions/";

/// The binary before a deployment; the control silo is the stage's sandbox.
struct Theatre {
    stage: Stage,
    us: Sandbox,
    de: Sandbox,
}

impl Theatre {
    /// Opens it with routing by organization.
    async fn by_organization() -> Self {
        Self::open(|command, control| {
            command.env("SENTRYBOX_UPSTREAM__ROUTING", "by-organization");
            command.env("SENTRYBOX_UPSTREAM__REGIONS__GLOBAL", control);
        })
        .await
    }

    /// Opens it pinned to `us`, with a control host that is named.
    async fn pinned() -> Self {
        Self::open(|command, control| {
            command.args(["--region", "us"]).env("SENTRYBOX_UPSTREAM__CONTROL", control);
        })
        .await
    }

    /// Starts all four; `tell` tells the binary of the control silo, by its URL.
    async fn open(tell: impl FnOnce(&mut Command, &str)) -> Self {
        let Deployment { control, us, de } = Deployment::start(&SandboxOptions::unhindered()).await.unwrap();
        let mut command = sentrybox();
        command.env("SENTRYBOX_LOG__LEVEL", "debug").env("SENTRYBOX_LOG__REQUESTS", "all");
        command.env("SENTRYBOX_UPSTREAM__REGIONS__US", us.origin());
        command.env("SENTRYBOX_UPSTREAM__REGIONS__DE", de.origin());
        tell(&mut command, &control.origin());
        Self { stage: Stage { binary: Binary::start(command), sandbox: control }, us, de }
    }

    async fn get(&self, target: &str) -> Answer {
        self.stage.get(target, OWNER).await
    }

    /// Returns how often each of the three was asked for a target: control, `us`, `de`.
    fn asked(&self, target: &str) -> [u64; 3] {
        [&self.stage.sandbox, &self.us, &self.de].map(|sandbox| sandbox.requests_to(target))
    }

    /// Returns a metric of the binary.
    async fn metric(&self, series: &str) -> u64 {
        let rendered = get(self.stage.binary.admin, "/metrics", &[]).await;
        let line = rendered.text().lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap().parse().unwrap()
    }
}

/// Returns how often each is asked when the right region is, for the `number`-th organization, whose id is one more.
fn only_home(number: u64) -> [u64; 3] {
    match Home::of(number + 1) {
        Home::Us => [0, 1, 0],
        Home::De => [0, 0, 1],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_comes_from_control_and_each_organizations_requests_reach_its_own_region() {
    let theatre = Theatre::by_organization().await;
    let base = theatre.stage.base();
    let mut target = LIST.to_owned();
    let mut seen = 0;
    loop {
        let page = theatre.get(&target).await;
        assert_eq!(page.text().matches(&format!(r#""regionUrl":"{base}""#)).count(), count(&page));
        seen += count(&page);
        assert_eq!(theatre.asked(&target), [1, 0, 0]);
        let Some(next) = next_page(&page) else { break };
        next.strip_prefix(&base).unwrap().clone_into(&mut target);
    }
    assert_eq!(seen, 150);
    for number in 1..=8 {
        for (target, status) in [
            (format!("/api/0/organizations/org-{number:03}/"), 200),
            (format!("/api/0/organizations/{}/teams/", number + 1), 200),
            (format!("/api/0/projects/org-{number:03}/project-001/"), 200),
            (format!("/api/0/teams/org-{number:03}/team-1/"), 200),
        ] {
            let answer = theatre.get(&target).await;
            assert_eq!(
                (answer.status.as_u16(), theatre.asked(&target)),
                (status, only_home(number)),
                "{target}"
            );
        }
        // Perhaps it has moved: the control host is asked as well, once in a minute.
        let missing = format!("/api/0/organizations/org-{number:03}/releases/none%2Fhere/");
        assert_eq!(theatre.get(&missing).await.status, StatusCode::NOT_FOUND);
        let mut both = only_home(number);
        both[0] += 1;
        assert_eq!(theatre.asked(&missing), both);
    }
    assert_eq!(theatre.metric(r#"sentrybox_regions_changes_total{change="learned"}"#).await, 150);
    assert_eq!(theatre.metric("sentrybox_organizations_known").await, 150);
    theatre.stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_goes_where_the_organization_lives_and_is_seen_by_the_next_read() {
    let theatre = Theatre::by_organization().await;
    theatre.get(LIST).await;
    for number in [149, 150] {
        let target = format!("/api/0/organizations/org-{number}/");
        theatre.get(&target).await;
        let answer = put(theatre.stage.binary.address, &target, OWNER, r#"{"name":"Renamed"}"#).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert!(theatre.get(&target).await.text().contains(r#""name":"Renamed""#));
        assert_eq!(theatre.asked(&target), only_home(number).map(|times| 3 * times));
        assert!(answer.text().contains(&format!(r#""regionUrl":"{}""#, theatre.stage.base())), "{answer:?}");
    }
    let list = theatre.get(LIST).await;
    assert_eq!(list.text().matches(r#""name":"Renamed""#).count(), 2);
    assert_eq!(theatre.asked(LIST), [2, 0, 0]);
    theatre.stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_of_a_region_lead_back_to_the_proxy() {
    let theatre = Theatre::by_organization().await;
    theatre.get("/api/0/organizations/org-001/").await;
    let first = theatre.get("/api/0/organizations/org-001/projects/").await;
    let base = theatre.stage.base();
    let next = next_page(&first).unwrap().strip_prefix(&base).unwrap().to_owned();
    assert_eq!(first.field("link").matches(&format!("<{base}/api/0/")).count(), 2, "{first:?}");
    let second = theatre.get(&next).await;
    assert_eq!((count(&first), count(&second)), (100, 20));
    assert_eq!(theatre.asked(&next), [0, 1, 0]);
    theatre.stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pinned_to_a_region_what_only_control_serves_comes_from_there() {
    let theatre = Theatre::pinned().await;
    let installations = "/api/0/organizations/org-001/sentry-app-installations/";
    for target in [REGIONS, "/api/0/auth/", installations, "/api/0/%75sers/me/regions/"] {
        assert_eq!(theatre.get(target).await.status, StatusCode::OK, "{target}");
        assert_eq!(theatre.asked(target), [1, 0, 0], "{target}");
    }
    assert_eq!((theatre.get(LIST).await.status, theatre.asked(LIST)), (StatusCode::OK, [0, 1, 0]));
    // A region knows its own alone, and the other one is never asked.
    let foreign = theatre.get("/api/0/organizations/org-002/").await;
    assert_eq!(foreign.status, StatusCode::NOT_FOUND);
    assert_eq!(theatre.de.requests_total(), 0);
    theatre.stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_regions_of_a_user_list_the_proxy_once_where_it_reaches_all_of_them() {
    let theatre = Theatre::by_organization().await;
    let expected = format!(r#"{{"regions":[{{"name":"us","url":"{}"}}]}}"#, theatre.stage.base());
    assert_eq!(theatre.get(REGIONS).await.text(), expected);
    assert_eq!(theatre.asked(REGIONS), [1, 0, 0]);
    theatre.stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_or_a_token_that_names_a_host_of_its_own_changes_nothing_and_is_counted() {
    let theatre = Theatre::by_organization().await;
    let thief = Sandbox::start(SandboxOptions::unhindered()).await.unwrap();
    let urls = RegionUrls { us: thief.origin(), de: format!("{}@{}", theatre.de.origin(), thief.address()) };
    theatre.stage.sandbox.tell_regions(urls);
    let list = theatre.get(LIST).await;
    theatre.get(REGIONS).await;
    assert_eq!(theatre.metric(r#"sentrybox_regions_ignored_total{source="body"}"#).await, 102);
    assert_eq!(list.text().matches(&theatre.stage.base()).count(), 0, "it is not reached, so it stays");

    let claim = format!(r#"{{"org":"org-150","region_url":"{}"}}"#, thief.origin());
    let token = format!("Bearer sntrys_{}_secret", STANDARD.encode(claim));
    let token: Fields<'_> = &[("authorization", &token)];
    for fields in [OWNER, token] {
        theatre.stage.get("/api/0/organizations/org-150/", fields).await;
        put(theatre.stage.binary.address, "/api/0/organizations/org-150/", fields, "{}").await;
    }
    assert_eq!(theatre.asked("/api/0/organizations/org-150/"), [4, 0, 0]);
    assert_eq!(theatre.metric(r#"sentrybox_regions_ignored_total{source="token"}"#).await, 2);
    assert_eq!(thief.requests_total(), 0);
    theatre.stage.close().await;
}
