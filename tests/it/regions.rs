//! Each request reaches the silo that can answer it, and no host that nobody configured.
//!
//! Upstream here is a deployment: `sentry.io` knows everything, a region its own organizations; what is not a silo's own it
//! answers with 404 and no word. `acme` (7) lives in `us`, `bolt` (8) in `de`.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use sentrybox::config::cache::RuleConfig;
use sentrybox::config::{Config, Routing};
use sentrybox::metrics::exposition::Exposition;
use tokio::time::sleep;

use crate::support::corridor::{ALICE, BOB, House, asking, is_hit};
use crate::support::scripted::{Act, Received};

const LIST: &str = "/api/0/organizations/";
const ACME: &str = "/api/0/organizations/acme/";
const ACMES_TEAMS: &str = "/api/0/organizations/acme/teams/";
const BOLT: &str = "/api/0/organizations/bolt/";
const REGIONS: &str = "/api/0/users/me/regions/";

/// Paths that only the control silo serves.
const CONTROL_PATHS: [&str; 6] = [
    "/api/0/organizations/acme/integrations/",
    "/api/0/organizations/acme/integrations/12/",
    "/api/0/organizations/acme/org-auth-tokens/",
    "/api/0/auth/",
    "/api/0/internal/health/",
    REGIONS,
];

/// Returns an organization as bodies show it.
fn organization(id: &str, slug: &str, region: &str) -> String {
    format!(
        r#"{{"id":"{id}","slug":"{slug}","links":{{"organizationUrl":"https://{slug}.sentry.io","regionUrl":"{region}"}}}}"#
    )
}

/// Returns what a silo says of what is not its own.
fn not_mine() -> Act {
    Act::bytes("").with_status(404).with("content-type", "text/html; charset=utf-8")
}

/// Answers as the deployment does.
fn deployment(received: &Received) -> Act {
    let host = received.uri.host().unwrap();
    let segments: Vec<_> = received.uri.path().trim_start_matches("/api/0/").split('/').collect();
    let region = |name: &str| match name {
        "acme" | "7" => Some("us.sentry.io"),
        "bolt" | "8" => Some("de.sentry.io"),
        _ => None,
    };
    let is_control = CONTROL_PATHS.contains(&received.uri.path());
    match segments.as_slice() {
        _ if is_control && host != "sentry.io" => not_mine(),
        ["users", "me", "regions", ""] => Act::json(
            r#"{"regions":[{"name":"us","url":"https://us.sentry.io"},{"name":"de","url":"https://de.sentry.io"}]}"#,
        ),
        ["organizations", ""] => {
            let (acme, bolt) = (
                organization("7", "acme", "https://us.sentry.io"),
                organization("8", "bolt", "https://de.sentry.io"),
            );
            Act::json(format!("[{acme},{bolt}]"))
        }
        ["organizations" | "projects" | "teams", name, ..] if !is_control => match region(name) {
            Some(home) if host == home || host == "sentry.io" => match (segments.as_slice(), *name) {
                (["organizations", _, ""], "acme" | "7") => {
                    Act::json(organization("7", "acme", "https://us.sentry.io"))
                }
                (["organizations", _, ""], _) => Act::json(organization("8", "bolt", "https://de.sentry.io")),
                (_, _) => Act::json("[]"),
            },
            Some(_) | None => not_mine(),
        },
        _ => Act::json("{}"),
    }
}

/// Builds the proxy before the deployment, with routing by organization.
fn routed() -> House {
    routed_with(|_| {})
}

fn routed_with(change: impl FnOnce(&mut Config)) -> House {
    let house = House::with(|config| {
        config.upstream.routing = Routing::ByOrganization;
        change(config);
    });
    house.upstream.improvises(deployment);
    house
}

/// Builds the proxy before the deployment, pinned to a region.
fn pinned(region: &str) -> House {
    let house = House::with(|config| region.clone_into(&mut config.upstream.region));
    house.upstream.improvises(deployment);
    house
}

/// Returns where everything went since the last time: method, host, target.
fn went(house: &House) -> Vec<String> {
    let log = house.upstream.log();
    house.upstream.forget();
    log.iter()
        .map(|received| format!("{} {}{}", received.method, received.uri.host().unwrap(), received.target()))
        .collect()
}

/// Returns the value of a metric, given by its name and labels as they are rendered.
fn metric(house: &House, series: &str) -> u64 {
    let rendered = house.proxy.metrics().encode(Exposition::Text);
    let line = rendered.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in {rendered}")).parse().unwrap()
}

const IGNORED_IN_BODIES: &str = r#"sentrybox_regions_ignored_total{source="body"}"#;
const IGNORED_IN_TOKENS: &str = r#"sentrybox_regions_ignored_total{source="token"}"#;

/// Returns a token for `acme` that says where it lives.
fn claiming(region: &str) -> String {
    let claim =
        serde_json::json!({"iat": 1.5, "url": "https://sentry.io", "region_url": region, "org": "acme"});
    format!("Bearer sntrys_{}_c2VjcmV0", STANDARD.encode(claim.to_string()))
}

/// What is no host of the configuration, however much it looks like one.
const FOREIGN: [&str; 9] = [
    "https://evil.example",
    "https://us.sentry.io@evil.example",
    "https://us.sentry.io.evil.example",
    "https://evil-us.sentry.io",
    "http://us.sentry.io",
    "https://us.sentry.io:8443",
    "https://us.sentry.io\\\\@evil.example",
    "//us.sentry.io",
    "us.sentry.io",
];

#[tokio::test(start_paused = true)]
async fn pinned_to_a_region_what_only_the_control_host_serves_goes_there_and_all_else_to_the_region() {
    let house = pinned("us");
    for path in CONTROL_PATHS {
        assert_eq!(house.get(path).await.status, StatusCode::OK, "{path}");
        assert_eq!(went(&house), [format!("GET sentry.io{path}")]);
    }
    house.put("/api/0/organizations/acme/integrations/12/").await;
    assert_eq!(went(&house), ["PUT sentry.io/api/0/organizations/acme/integrations/12/"]);
    for path in [LIST, ACME, "/api/0/projects/acme/web/", "/api/0/issues/1/", "/api/0/"] {
        house.get(path).await;
        assert_eq!(went(&house), [format!("GET us.sentry.io{path}")]);
    }
    // The region does not know it, and pinned is pinned.
    assert_eq!(house.get(BOLT).await.status, StatusCode::NOT_FOUND);
    assert_eq!(went(&house), [format!("GET us.sentry.io{BOLT}")]);
}

#[tokio::test(start_paused = true)]
async fn the_list_goes_to_the_control_host_and_tells_where_everything_goes() {
    let house = routed();
    house.get(LIST).await;
    assert_eq!(went(&house), [format!("GET sentry.io{LIST}")]);
    for (path, host) in [
        (ACME, "us"),
        ("/api/0/organizations/7/teams/", "us"),
        ("/api/0/projects/acme/web/", "us"),
        ("/api/0/teams/acme/core/", "us"),
        (BOLT, "de"),
        ("/api/0/organizations/8/", "de"),
        ("/api/0/projects/bolt/web/", "de"),
    ] {
        house.get_as(BOB, path).await;
        house.put(path).await;
        assert_eq!(
            went(&house),
            [format!("GET {host}.sentry.io{path}"), format!("PUT {host}.sentry.io{path}")]
        );
    }
    for path in CONTROL_PATHS {
        house.get(path).await;
        assert_eq!(went(&house), [format!("GET sentry.io{path}")]);
    }
    assert_eq!(metric(&house, r#"sentrybox_regions_changes_total{change="learned"}"#), 2);
    assert_eq!(metric(&house, "sentrybox_organizations_known"), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_known_goes_to_the_control_host_and_what_names_no_organization_to_the_region() {
    let house = routed_with(|config| "us".clone_into(&mut config.upstream.region));
    for path in [ACME, "/api/0/projects/bolt/web/"] {
        house.get(path).await;
    }
    house.get("/api/0/issues/1/").await;
    let expected = [format!("GET sentry.io{ACME}"), "GET sentry.io/api/0/projects/bolt/web/".to_owned()];
    let log = went(&house);
    assert_eq!((&log[..2], log[2].as_str()), (&expected[..], "GET us.sentry.io/api/0/issues/1/"));
}

#[tokio::test(start_paused = true)]
async fn an_organizations_own_body_tells_where_it_lives_whoever_asked_and_however() {
    for path in [ACME, "/api/0/organizations/7/"] {
        let house = routed();
        house.get(path).await;
        house.get_as(BOB, ACMES_TEAMS).await;
        assert_eq!(went(&house), [format!("GET sentry.io{path}"), format!("GET us.sentry.io{ACMES_TEAMS}")]);
    }
    let owned = format!(
        r#"[{{"organization":{},"singleOwner":true}}]"#,
        organization("8", "bolt", "https://de.sentry.io")
    );
    let house = routed();
    house.upstream.plays_once(LIST, Act::json(owned));
    house.get(&format!("{LIST}?owner=1")).await;
    // A write's answer tells it as well, and a read that is not cached.
    house.ask(Method::PUT, ACME, &[]).await;
    house.upstream.forget();
    house.get(BOLT).await;
    house.get(ACMES_TEAMS).await;
    assert_eq!(went(&house), [format!("GET de.sentry.io{BOLT}"), format!("GET us.sentry.io{ACMES_TEAMS}")]);
}

#[tokio::test(start_paused = true)]
async fn names_are_known_in_either_mode_and_a_renamed_organization_keeps_both() {
    for house in [pinned("us"), routed()] {
        house.get(ACME).await;
        let names = |name: &str| house.proxy.regions().organizations().names_of(name);
        assert_eq!((names("acme"), names("7")), (vec!["7".to_owned()], vec!["acme".to_owned()]));
        house.upstream.plays_once(ACME, Act::json(organization("7", "acme-new", "https://us.sentry.io")));
        house.put(ACME).await;
        assert_eq!(names("acme-new"), ["7", "acme"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_names_another_host_changes_nothing_and_is_counted() {
    for region in FOREIGN {
        let house = routed();
        house.upstream.plays_once(ACME, Act::json(organization("7", "acme", region)));
        let answer = house.get(ACME).await;
        assert!(answer.text().contains(&format!(r#""regionUrl":"{region}""#)), "{answer:?}");
        house.get(ACMES_TEAMS).await;
        house.put(ACME).await;
        let hosts: Vec<_> =
            house.upstream.log().iter().map(|received| received.uri.host().unwrap().to_owned()).collect();
        assert_eq!(hosts, ["sentry.io"; 3], "{region}");
        assert_eq!(metric(&house, IGNORED_IN_BODIES), 1, "{region}");
    }
    let house = routed();
    house.upstream.plays_once(REGIONS, Act::json(r#"{"regions":[{"name":"us","url":"https://us.sentry.io"},{"name":"x","url":"https://evil.example"}]}"#));
    house.get(REGIONS).await;
    assert_eq!(metric(&house, IGNORED_IN_BODIES), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_learned_stays_whatever_a_later_body_names() {
    let house = routed();
    house.get(LIST).await;
    house.upstream.plays_once(ACME, Act::json(organization("7", "acme", "https://evil.example")));
    house.get(ACME).await;
    house.get(ACMES_TEAMS).await;
    assert_eq!(went(&house)[2], format!("GET us.sentry.io{ACMES_TEAMS}"));
    assert_eq!(metric(&house, IGNORED_IN_BODIES), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_learned_but_from_a_whole_successful_json_answer_of_a_known_path() {
    let poison = organization("7", "acme", "https://de.sentry.io");
    for (path, act) in [
        (ACME, Act::status(403, poison.clone())),
        (ACME, Act::status(500, poison.clone())),
        (ACME, Act::bytes(poison.clone()).with("content-type", "text/html")),
        (ACME, Act::json(format!("{poison}x"))),
        (ACME, Act::json(poison.clone()).breaking_off()),
        (ACME, Act::json(format!(r#"{{"projects":[{poison}]}}"#))),
        ("/api/0/organizations/evil/projects/", Act::json(format!("[{poison}]"))),
        ("/api/0/projects/evil/web/", Act::json(poison.clone())),
    ] {
        let house = routed_with(|config| config.budget.enabled = false);
        house.upstream.plays_once(path, act);
        drop(house.begin(asking(Method::GET, path, &[], "")).await);
        assert_eq!(house.upstream.count(), 1, "{path}");
        house.upstream.forget();
        assert_eq!(house.proxy.regions().organizations().count(), 0, "{path}");
        house.get(ACMES_TEAMS).await;
        assert_eq!(went(&house), [format!("GET sentry.io{ACMES_TEAMS}")]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_names_another_host_changes_nothing_and_is_counted() {
    for region in FOREIGN {
        let house = routed();
        let token = claiming(&region.replace("\\\\", "\\"));
        house.get_as(&token, ACMES_TEAMS).await;
        house.ask(Method::PUT, ACME, &[("authorization", &token)]).await;
        assert_eq!(
            went(&house),
            [format!("GET sentry.io{ACMES_TEAMS}"), format!("PUT sentry.io{ACME}")],
            "{region}"
        );
        assert_eq!(metric(&house, IGNORED_IN_TOKENS), 2, "{region}");
    }
    let house = pinned("us");
    house.get_as(&claiming("https://evil.example"), ACMES_TEAMS).await;
    assert_eq!(
        (went(&house), metric(&house, IGNORED_IN_TOKENS)),
        (vec![format!("GET us.sentry.io{ACMES_TEAMS}")], 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_tokens_word_steers_its_own_reads_and_once_accepted_its_writes_and_nobody_elses() {
    let house = routed();
    let token = claiming("https://us.sentry.io");
    let own = [("authorization", token.as_str())];
    house.ask(Method::PUT, ACMES_TEAMS, &own).await;
    assert_eq!(went(&house), [format!("PUT sentry.io{ACMES_TEAMS}")], "an untried word steers no write");
    house.ask(Method::GET, ACMES_TEAMS, &own).await;
    house.ask(Method::PUT, ACMES_TEAMS, &own).await;
    house.ask(Method::GET, "/api/0/organizations/bolt/teams/", &own).await;
    let expected = [
        format!("GET us.sentry.io{ACMES_TEAMS}"),
        format!("PUT us.sentry.io{ACMES_TEAMS}"),
        "GET sentry.io/api/0/organizations/bolt/teams/".to_owned(),
    ];
    assert_eq!(went(&house), expected);
    house.get_as(ALICE, ACMES_TEAMS).await;
    house.get_as(&format!("{token}2"), ACMES_TEAMS).await;
    assert_eq!(
        went(&house),
        [format!("GET sentry.io{ACMES_TEAMS}"), format!("GET us.sentry.io{ACMES_TEAMS}")]
    );
    assert_eq!(metric(&house, r#"sentrybox_regions_changes_total{change="proven"}"#), 2);
    assert_eq!(metric(&house, IGNORED_IN_TOKENS), 0);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_wrong_costs_its_client_one_detour_and_is_not_followed_for_a_while() {
    let json = |status| Act::status(status, r#"{"detail":"Invalid org token"}"#);
    for act in [json(401), json(403), json(404), not_mine(), Act::unreachable()] {
        let house = routed_with(|config| config.budget.retries = 0);
        let token = claiming("https://de.sentry.io");
        house.upstream.plays_once(ACMES_TEAMS, act);
        let answer = house.get_as(&token, ACMES_TEAMS).await;
        assert_eq!((answer.status, answer.text()), (StatusCode::OK, "[]"));
        assert_eq!(
            went(&house),
            [format!("GET de.sentry.io{ACMES_TEAMS}"), format!("GET sentry.io{ACMES_TEAMS}")]
        );
        assert!(is_hit(&house.get_as(&token, ACMES_TEAMS).await));
        house.get_as(&token, "/api/0/projects/acme/web/").await;
        assert_eq!(went(&house), ["GET sentry.io/api/0/projects/acme/web/"]);
        assert_eq!(metric(&house, r#"sentrybox_regions_changes_total{change="refuted"}"#), 1);
        sleep(Duration::from_mins(11)).await;
        house.get_as(&token, "/api/0/projects/acme/web/").await;
        let expected =
            ["GET de.sentry.io/api/0/projects/acme/web/", "GET sentry.io/api/0/projects/acme/web/"];
        assert_eq!(went(&house), expected, "it is tried again");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_wrong_region_says_to_a_token_says_nothing_of_the_token() {
    let house = routed();
    let token = claiming("https://de.sentry.io");
    house.get_as(&token, LIST).await;
    // Learned from the list; forgotten, so that the token's own word counts.
    assert!(house.proxy.regions().organizations().forget_region("acme"));
    house.upstream.plays_once(ACMES_TEAMS, Act::status(401, r#"{"detail":"Invalid org token"}"#));
    // Not found, which accepts nothing either.
    house.upstream.plays_once(ACMES_TEAMS, Act::status(404, r#"{"detail":"Not found"}"#));
    assert_eq!(house.get_as(&token, ACMES_TEAMS).await.status, StatusCode::NOT_FOUND);
    assert!(is_hit(&house.get_as(&token, LIST).await), "it is not suspended");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_control_host_is_the_clients_answer() {
    let house = routed();
    let denied = || Act::status(401, r#"{"detail":"Invalid org token"}"#);
    house.upstream.plays_once(ACMES_TEAMS, denied());
    house.upstream.plays_once(ACMES_TEAMS, denied());
    let answer = house.get_as(&claiming("https://us.sentry.io"), ACMES_TEAMS).await;
    assert_eq!((answer.status, house.upstream.count()), (StatusCode::UNAUTHORIZED, 2));
}

#[tokio::test(start_paused = true)]
async fn many_who_follow_the_same_wrong_word_take_one_detour_together() {
    let house = routed();
    let token = claiming("https://de.sentry.io");
    let crowd = house.crowd(20, ACMES_TEAMS, &[("authorization", &token)]);
    let answers = crowd.join_all().await;
    assert!(answers.iter().all(|answer| answer.status == StatusCode::OK));
    assert_eq!(
        went(&house),
        [format!("GET de.sentry.io{ACMES_TEAMS}"), format!("GET sentry.io{ACMES_TEAMS}")]
    );
    house.assert_nothing_leaks();
}

#[tokio::test(start_paused = true)]
async fn an_organization_that_has_moved_is_found_at_once_and_forgotten_where_it_was() {
    let house = routed();
    house.get(LIST).await;
    house.upstream.forget();
    house.upstream.improvises(|received| match received.uri.host() {
        Some("us.sentry.io") => not_mine(),
        _ => Act::json("[]"),
    });
    assert_eq!(house.get(ACMES_TEAMS).await.status, StatusCode::OK);
    assert_eq!(
        went(&house),
        [format!("GET us.sentry.io{ACMES_TEAMS}"), format!("GET sentry.io{ACMES_TEAMS}")]
    );
    house.put(ACME).await;
    assert_eq!(went(&house), [format!("PUT sentry.io{ACME}")]);
    assert_eq!(metric(&house, r#"sentrybox_regions_changes_total{change="forgotten"}"#), 1);
    house.upstream.plays_once(ACME, Act::json(organization("7", "acme", "https://de.sentry.io")));
    house.get(ACME).await;
    house.put(ACME).await;
    assert_eq!(went(&house), [format!("GET sentry.io{ACME}"), format!("PUT de.sentry.io{ACME}")]);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_where_its_organization_lived_is_looked_for_at_the_control_host_once_in_a_minute() {
    let house = routed();
    house.get(LIST).await;
    let missing = "/api/0/organizations/acme/releases/9.9/";
    let words = r#"{"detail":"The requested resource does not exist"}"#;
    house.upstream.plays(missing, Act::status(404, words));
    for _ in 0..3 {
        assert_eq!(house.get(missing).await.status, StatusCode::NOT_FOUND);
        sleep(Duration::from_secs(10)).await;
    }
    let asked = went(&house);
    assert_eq!(asked.iter().filter(|it| it.starts_with("GET sentry.io") && it.ends_with(missing)).count(), 1);
    assert_eq!(metric(&house, r#"sentrybox_regions_changes_total{change="forgotten"}"#), 0);
    // Now it has moved, and the region speaks as one that has never heard of it.
    sleep(Duration::from_mins(1)).await;
    house.upstream.improvises(move |received| match received.uri.host() {
        Some("us.sentry.io") => Act::status(404, words),
        _ => Act::json("[]"),
    });
    assert_eq!(house.get(ACMES_TEAMS).await.status, StatusCode::OK);
    house.put(ACME).await;
    assert_eq!(went(&house).last().unwrap(), &format!("PUT sentry.io{ACME}"));
}

#[tokio::test(start_paused = true)]
async fn what_is_merely_not_there_is_not_hidden_by_the_control_hosts_trouble() {
    let house = routed();
    house.get(LIST).await;
    house.upstream.improvises(|received| match received.uri.host() {
        Some("us.sentry.io") => Act::status(404, r#"{"detail":"The requested resource does not exist"}"#),
        _ => Act::unreachable(),
    });
    let answer = house.get("/api/0/organizations/acme/releases/9.9/").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert!(answer.text().contains("does not exist"), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_route_makes_nobody_forget_where_an_organization_lives() {
    let house = routed();
    house.get(LIST).await;
    let nonsense = "/api/0/organizations/acme/nonsense/";
    house.upstream.plays(nonsense, not_mine());
    for credential in [ALICE, BOB, ""] {
        assert_eq!(house.get_as(credential, nonsense).await.status, StatusCode::NOT_FOUND);
    }
    // Nobody knows who that is, and nobody is asked again.
    house.ask(Method::PUT, nonsense, &[("authorization", "Bearer sntryu_stranger")]).await;
    house.upstream.forget();
    house.get(ACMES_TEAMS).await;
    assert_eq!(went(&house), [format!("GET us.sentry.io{ACMES_TEAMS}")]);
    assert_eq!(metric(&house, r#"sentrybox_regions_changes_total{change="forgotten"}"#), 0);
}

#[tokio::test(start_paused = true)]
async fn a_write_to_where_an_organization_lives_no_more_is_sent_once_and_the_next_one_goes_elsewhere() {
    let house = routed();
    house.get(LIST).await;
    house.upstream.forget();
    house.upstream.plays_once(ACMES_TEAMS, not_mine());
    assert_eq!(house.put(ACMES_TEAMS).await.status, StatusCode::NOT_FOUND);
    house.put(ACMES_TEAMS).await;
    assert_eq!(
        went(&house),
        [format!("PUT us.sentry.io{ACMES_TEAMS}"), format!("PUT sentry.io{ACMES_TEAMS}")]
    );
}

#[tokio::test(start_paused = true)]
async fn a_region_that_is_down_is_down_and_the_other_one_is_not() {
    let house = routed();
    house.get(LIST).await;
    house.upstream.improvises(|received| match received.uri.host() {
        Some("us.sentry.io") => Act::unreachable(),
        _ => deployment(received),
    });
    for _ in 0..8 {
        assert!(house.put(ACME).await.status.is_server_error());
        assert_eq!(house.put(BOLT).await.status, StatusCode::OK);
    }
    assert_eq!(house.proxy.regions().organizations().names_of("acme"), ["7"]);
    assert_eq!(metric(&house, r#"sentrybox_regions_changes_total{change="forgotten"}"#), 0);
}

#[tokio::test(start_paused = true)]
async fn by_organization_every_region_in_a_body_points_back_here_and_pinned_only_its_own() {
    let here = r#""regionUrl":"http://box.example""#;
    let listed = r#"{"regions":[{"name":"us","url":"http://box.example"}]}"#;
    let house = routed();
    assert_eq!(house.get(LIST).await.text().matches(here).count(), 2);
    assert_eq!(house.get(REGIONS).await.text(), listed);
    let house = pinned("us");
    let list = house.get(LIST).await;
    assert_eq!(
        (list.text().matches(here).count(), list.text().matches("https://de.sentry.io").count()),
        (1, 1)
    );
    let both = r#"{"regions":[{"name":"us","url":"http://box.example"},{"name":"de","url":"https://de.sentry.io"}]}"#;
    assert_eq!(house.get(REGIONS).await.text(), both);
}

#[tokio::test(start_paused = true)]
async fn regions_are_learned_from_a_body_in_gzip_too() {
    use std::io::Write as _;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(organization("7", "acme", "https://us.sentry.io").as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    for credential in [ALICE, ""] {
        let house = routed();
        let act = Act::bytes(gzip.clone())
            .with("content-type", "application/json")
            .with("content-encoding", "gzip");
        house.upstream.plays_once(ACME, act);
        let answer = house.get_as(credential, ACME).await;
        assert!(answer.text().contains(r#""regionUrl":"http://box.example""#), "{answer:?}");
        house.get(ACMES_TEAMS).await;
        assert_eq!(went(&house)[1], format!("GET us.sentry.io{ACMES_TEAMS}"));
    }
}

#[tokio::test(start_paused = true)]
async fn bodies_are_read_to_the_byte_where_they_are_not_rewritten() {
    for credential in [ALICE, ""] {
        let house = routed_with(|config| config.rewrite.region_urls = false);
        let list = house.get_as(credential, LIST).await;
        let expected = format!(
            "[{},{}]",
            organization("7", "acme", "https://us.sentry.io"),
            organization("8", "bolt", "https://de.sentry.io")
        );
        assert_eq!(list.text(), expected);
        house.upstream.forget();
        house.get(BOLT).await;
        assert_eq!(went(&house), [format!("GET de.sentry.io{BOLT}")]);
    }
}

#[tokio::test(start_paused = true)]
async fn links_of_every_silo_lead_back_here() {
    let house = routed();
    house.get(LIST).await;
    for host in ["sentry.io", "us.sentry.io", "de.sentry.io"] {
        let url = format!("https://{host}{ACMES_TEAMS}?&cursor=0:100:0");
        let link = format!(r#"<{url}>; rel="next"; results="true"; cursor="0:100:0""#);
        house
            .upstream
            .plays_once(ACMES_TEAMS, Act::status(302, "{}").with("link", &link).with("location", &url));
        let answer = house.put(ACMES_TEAMS).await;
        let expected = format!("http://box.example{ACMES_TEAMS}?&cursor=0:100:0");
        assert_eq!(answer.field("location"), expected);
        assert!(answer.field("link").starts_with(&format!("<{expected}>")), "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_route_that_backstage_reads_is_cached_once_a_rule_names_it() {
    let issues = "/api/0/projects/acme/web/issues/";
    let house = House::new();
    house.get(issues).await;
    assert!(!is_hit(&house.get(issues).await));
    let house = House::with(|config| {
        config.cache.rules = vec![RuleConfig {
            route: "/api/0/projects/{organization}/{project}/issues/".to_owned(),
            class: Some("volatile".to_owned()),
            never: false,
            overrides: false,
        }];
    });
    house.get(issues).await;
    assert!(is_hit(&house.get(issues).await));
    assert!(!is_hit(&house.get_as(BOB, issues).await));
}
