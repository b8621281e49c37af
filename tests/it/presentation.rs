//! What a client gets to see: the same content in its own coding, on its own base, with fields that are true.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use bytesize::ByteSize;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::{Method, StatusCode};
use sentrybox::config::cache::Downstream;
use tokio::time::sleep;

use crate::support::corridor::{House, PROJECTS, Verdict, detail, is_hit};
use crate::support::http::{Answer, Fields};
use crate::support::scripted::{Act, Chunk};

const ORGANIZATIONS: &str = "/api/0/organizations/";
const GZIP: (&str, &str) = ("accept-encoding", "gzip, deflate");

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn gunzip(bytes: &[u8]) -> String {
    let mut text = String::new();
    GzDecoder::new(bytes).read_to_string(&mut text).unwrap();
    text
}

fn zipped(text: &str) -> Act {
    Act::bytes(gzip(text)).with("content-type", "application/json").with("content-encoding", "gzip")
}

async fn get(house: &House, target: &str, fields: Fields<'_>) -> Answer {
    house.ask(Method::GET, target, fields).await
}

#[tokio::test(start_paused = true)]
async fn a_head_is_answered_from_a_stored_get() {
    let house = House::new();
    house.upstream.plays(PROJECTS, Act::json("[1,2,3]").with("x-hits", "3"));
    let get = house.get(PROJECTS).await;
    let head = house.ask(Method::HEAD, PROJECTS, &[]).await;
    assert!(is_hit(&head));
    assert_eq!((head.text(), head.field("content-length")), ("", "7"));
    for name in ["content-type", "etag", "x-hits", "cache-control", "content-length"] {
        assert_eq!(head.field(name), get.field(name), "{name}");
    }
    assert_eq!(house.upstream.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_head_of_what_is_not_stored_is_forwarded_as_it_is_and_stores_nothing() {
    let house = House::new();
    let head = house.ask(Method::HEAD, PROJECTS, &[]).await;
    assert_eq!((head.status, head.text()), (StatusCode::OK, ""));
    assert_eq!(house.upstream.last().method, Method::HEAD);
    assert!(!is_hit(&house.get(PROJECTS).await));
}

#[tokio::test(start_paused = true)]
async fn a_head_of_a_stale_answer_has_it_refreshed_for_everybody() {
    let house = House::new();
    let named = r#"[{"links":{"regionUrl":"https://us.sentry.io"}}]"#;
    house.upstream.plays_once(ORGANIZATIONS, Act::json("[]"));
    house.upstream.plays(ORGANIZATIONS, Act::json(named));
    house.get(ORGANIZATIONS).await;
    sleep(Duration::from_mins(6)).await;
    let head = house.ask(Method::HEAD, ORGANIZATIONS, &[]).await;
    assert_eq!(Verdict::of(&head).word("detail"), "stale-while-revalidate");
    sleep(Duration::from_secs(1)).await;
    let answer = house.get(ORGANIZATIONS).await;
    assert!(is_hit(&answer));
    assert_eq!(answer.text(), named.replace("https://us.sentry.io", "http://box.example"));
    assert_eq!(house.upstream.last().method, Method::GET);
}

#[tokio::test(start_paused = true)]
async fn every_stored_answer_has_a_strong_validator_that_is_answered_with_304() {
    let house = House::new();
    house.upstream.plays(PROJECTS, Act::json("[1]"));
    let first = house.get(PROJECTS).await;
    let tag = first.field("etag");
    assert!(tag.starts_with('"') && tag.len() > 16, "{tag}");
    assert_eq!(house.get(PROJECTS).await.field("etag"), tag, "the same on a hit");
    for condition in [tag.to_owned(), format!("W/{tag}"), format!("\"x,y\", {tag}"), "*".to_owned()] {
        let answer = get(&house, PROJECTS, &[("if-none-match", &condition)]).await;
        assert_eq!((answer.status, answer.text()), (StatusCode::NOT_MODIFIED, ""), "{condition}");
        assert_eq!(answer.field("etag"), tag);
        assert!(is_hit(&answer));
    }
    let other = get(&house, PROJECTS, &[("if-none-match", "\"another\"")]).await;
    assert_eq!((other.status, other.text()), (StatusCode::OK, "[1]"));
}

#[tokio::test(start_paused = true)]
async fn a_client_whose_copy_is_old_gets_the_new_one_and_one_whose_copy_is_current_a_304() {
    let house = House::new();
    house.upstream.plays(PROJECTS, Act::json("[1]"));
    let tag = house.get(PROJECTS).await.field("etag").to_owned();
    house.purge_everything().await;
    let same = get(&house, PROJECTS, &[("if-none-match", &tag)]).await;
    assert_eq!(same.status, StatusCode::NOT_MODIFIED, "fetched anew, and still the same");
    house.purge_everything().await;
    house.upstream.plays(PROJECTS, Act::json("[2]"));
    let other = get(&house, PROJECTS, &[("if-none-match", &tag)]).await;
    assert_eq!((other.status, other.text()), (StatusCode::OK, "[2]"));
}

#[tokio::test(start_paused = true)]
async fn nobody_gets_a_304_who_did_not_ask_for_it() {
    let house = House::new();
    house.upstream.plays(PROJECTS, Act::json("[1]").with("etag", "\"v1\"").after(Duration::from_secs(1)));
    let conditional = house.crowd(5, PROJECTS, &[("if-none-match", "\"v1\"")]);
    let plain = house.crowd(5, PROJECTS, &[]);
    assert!(conditional.join_all().await.iter().all(|answer| answer.status == StatusCode::NOT_MODIFIED));
    assert!(plain.join_all().await.iter().all(|answer| answer.status == StatusCode::OK));
    assert_eq!(house.upstream.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_error_has_no_validator_of_ours_and_meets_no_condition() {
    let house = House::new();
    house.upstream.plays(PROJECTS, Act::status(404, "{}"));
    let answer = get(&house, PROJECTS, &[("if-none-match", "*")]).await;
    assert_eq!((answer.status, answer.field("etag")), (StatusCode::NOT_FOUND, ""));
}

#[tokio::test(start_paused = true)]
async fn gzip_goes_verbatim_to_who_takes_it_and_decoded_to_who_does_not() {
    let house = House::new();
    house.upstream.plays(PROJECTS, zipped("[1,2,3]"));
    let zipped = get(&house, PROJECTS, &[GZIP]).await;
    assert_eq!((zipped.field("content-encoding"), &*zipped.body), ("gzip", &*gzip("[1,2,3]")));
    for fields in [&[][..], &[("accept-encoding", "identity")], &[("accept-encoding", "gzip;q=0, br")]] {
        let plain = get(&house, PROJECTS, fields).await;
        assert!(is_hit(&plain));
        assert_eq!((plain.field("content-encoding"), plain.text()), ("", "[1,2,3]"));
        assert_eq!(plain.field("content-length"), "7");
        assert_ne!(plain.field("etag"), zipped.field("etag"), "strong validators tell codings apart");
        assert!(plain.field("vary").to_ascii_lowercase().contains("accept-encoding"));
    }
    assert_eq!(get(&house, PROJECTS, &[GZIP]).await.body, zipped.body);
    assert_eq!(house.upstream.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_for_one_alone_is_decoded_too() {
    let text = format!("[\"{}\"]", "x".repeat(5_000));
    let acts = [
        zipped(&text).with("cache-control", "no-store"),
        zipped(&text).with("set-cookie", "a=1").of_unknown_length(),
        Act::chunks(gzip(&text).chunks(7).map(|part| Chunk::Data(part.to_vec().into())).collect())
            .of_unknown_length()
            .with("content-encoding", "gzip"),
    ];
    for act in acts {
        for fields in [&[][..], &[GZIP]] {
            let house = House::with(|config| config.cache.max_response_bytes = ByteSize::b(20));
            house.upstream.plays(PROJECTS, act.clone());
            let answer = get(&house, PROJECTS, fields).await;
            if fields.is_empty() {
                assert_eq!((answer.field("content-encoding"), answer.text()), ("", text.as_str()), "{act:?}");
                assert!(["", "5004"].contains(&answer.field("content-length")), "{act:?}");
            } else {
                assert_eq!(answer.field("content-encoding"), "gzip");
                assert_eq!(gunzip(&answer.body), text);
            }
            assert_eq!(house.upstream.count(), 1);
        }
    }
}

/// Fails unless everything in the answer to `host` points to `host` and nowhere else.
async fn check_base(house: &House, host: &str) {
    let answer = get(house, ORGANIZATIONS, &[("host", host)]).await;
    let links: Vec<_> = answer.fields.get_all("link").iter().map(|link| link.to_str().unwrap()).collect();
    assert_eq!(
        links,
        [
            format!(
                "<http://{host}{ORGANIZATIONS}?&cursor=0:0:1>; rel=\"previous\"; results=\"false\"; cursor=\"0:0:1\""
            ),
            format!(
                "<http://{host}{ORGANIZATIONS}?&cursor=0:100:0>; rel=\"next\"; results=\"true\"; cursor=\"0:100:0\""
            ),
        ]
    );
    assert_eq!(answer.field("location"), format!("http://{host}/api/0/organizations/acme/"));
    let body = format!(
        r#"[{{"links": {{"organizationUrl":"https://acme.sentry.io","regionUrl":"http://{host}"}}}} ]"#
    );
    assert_eq!(answer.text(), body);
    assert_eq!(answer.field("content-length"), body.len().to_string());
}

#[tokio::test(start_paused = true)]
async fn links_and_region_urls_point_to_where_each_client_asked_and_never_elsewhere() {
    let house = House::new();
    let body =
        r#"[{"links": {"organizationUrl":"https://acme.sentry.io","regionUrl":"https://us.sentry.io"}} ]"#;
    let link = |cursor: &str, rel: &str, results: &str, host: &str| {
        format!(
            "<https://{host}{ORGANIZATIONS}?&cursor={cursor}>; rel=\"{rel}\"; results=\"{results}\"; cursor=\"{cursor}\""
        )
    };
    let act = zipped(body)
        .with("link", &link("0:0:1", "previous", "false", "sentry.io"))
        .with("link", &link("0:100:0", "next", "true", "us.sentry.io"))
        .with("location", "https://us.sentry.io/api/0/organizations/acme/");
    house.upstream.plays(ORGANIZATIONS, act);
    for host in ["box.example", "other.example:8080", "box.example", "127.0.0.1:9000", "[::1]:9000"] {
        check_base(&house, host).await;
    }
    assert_eq!(house.upstream.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_validator_of_one_base_is_none_of_another() {
    let house = House::new();
    let link = "<https://sentry.io/api/0/organizations/acme/projects/?&cursor=0:100:0>; rel=\"next\"";
    house.upstream.plays(PROJECTS, Act::json("[1]").with("link", link));
    let here = house.get(PROJECTS).await;
    let there = [("host", "other.example"), ("if-none-match", here.field("etag"))];
    assert_eq!(get(&house, PROJECTS, &there).await.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn limit_fields_are_those_of_this_very_forward_or_none() {
    let house = House::new();
    let act =
        Act::json("[1]").with("x-sentry-rate-limit-remaining", "39").with("x-sentry-rate-limit-limit", "40");
    house.upstream.plays(PROJECTS, act.after(Duration::from_secs(1)));
    for forwarded in house.crowd(3, PROJECTS, &[]).join_all().await {
        assert_eq!(forwarded.field("x-sentry-rate-limit-remaining"), "39");
    }
    let hit = house.get(PROJECTS).await;
    assert!(is_hit(&hit));
    assert!(!hit.fields.keys().any(|name| name.as_str().starts_with("x-sentry-rate-limit")), "{hit:?}");
}

#[tokio::test(start_paused = true)]
async fn clients_are_told_to_come_back_each_time() {
    let house = House::new();
    for _ in 0..2 {
        assert_eq!(house.get(PROJECTS).await.field("cache-control"), "private, no-cache");
    }
}

#[tokio::test(start_paused = true)]
async fn clients_are_told_what_is_left_of_the_lifetime_when_the_operator_wants_it() {
    let house = House::with(|config| config.cache.downstream = Downstream::Lifetime);
    house.upstream.plays(PROJECTS, Act::json("[1]").after(Duration::from_secs(1)));
    assert_eq!(house.get(PROJECTS).await.field("cache-control"), "private, max-age=119");
    sleep(Duration::from_mins(1)).await;
    assert_eq!(house.get(PROJECTS).await.field("cache-control"), "private, max-age=59");
    sleep(Duration::from_mins(2)).await;
    assert_eq!(house.get(PROJECTS).await.field("cache-control"), "private, max-age=0");
}

#[tokio::test(start_paused = true)]
async fn upstreams_own_cache_control_passes_unchanged() {
    for downstream in [Downstream::Revalidate, Downstream::Lifetime] {
        let house = House::with(|config| config.cache.downstream = downstream);
        let stated = "max-age=60, stale-while-revalidate=5, x-unknown=\"a, b\"";
        house.upstream.plays(PROJECTS, Act::json("[]").with("cache-control", stated));
        for _ in 0..2 {
            assert_eq!(house.get(PROJECTS).await.field("cache-control"), stated);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn fields_that_belong_to_one_answer_or_one_connection_do_not_outlive_it() {
    let house = House::new();
    let act = Act::json("[]")
        .with("connection", "x-private")
        .with("x-private", "1")
        .with("keep-alive", "timeout=5")
        .with("alt-svc", "h3=\":443\"")
        .with("x-served-by", "web-1")
        .with("x-hits", "12");
    house.upstream.plays(PROJECTS, act);
    house.get(PROJECTS).await;
    let hit = house.get(PROJECTS).await;
    for name in ["connection", "x-private", "keep-alive", "alt-svc", "x-served-by"] {
        assert_eq!(hit.field(name), "", "{name}");
    }
    assert_eq!(hit.field("x-hits"), "12");
}

#[tokio::test(start_paused = true)]
async fn every_answer_says_how_it_came_about() {
    let house = House::new();
    house.upstream.plays("/api/0/organizations/acme/teams/", Act::unreachable());
    let cases: [(&str, Fields<'_>, &str); 9] = [
        (PROJECTS, &[], "uri-miss"),
        (PROJECTS, &[], "hit"),
        (PROJECTS, &[("cache-control", "no-cache")], "request"),
        ("/api/0/organizations/acme/teams/", &[], "uri-miss"),
        ("/api/0/users/me/", &[], "bypass"),
        ("/robots.txt", &[], "unknown-path"),
        ("/api/0/organizations/../x/", &[], "unsafe-path"),
        (PROJECTS, &[("host", "user@box.example")], "bad-authority"),
        (PROJECTS, &[("via", "1.1 sentrybox, 1.1 sentrybox")], "loop"),
    ];
    for (target, fields, expected) in cases {
        let answer = get(&house, target, fields).await;
        let verdict = Verdict::of(&answer);
        let said =
            [verdict.word("fwd"), verdict.word("detail"), if verdict.says("hit") { "hit" } else { "" }];
        assert!(said.contains(&expected), "{target} {fields:?}: {answer:?}");
        if answer.status.is_client_error() || answer.status.is_server_error() {
            assert!(!detail(&answer).is_empty(), "{target}");
        }
    }
    let written = house.put(PROJECTS).await;
    assert_eq!(Verdict::of(&written).word("fwd"), "method");
}

#[tokio::test(start_paused = true)]
async fn caches_nearer_to_upstream_keep_their_say() {
    let house = House::new();
    house.upstream.plays("/api/0/users/me/", Act::json("{}").with("cache-status", "edge; fwd=miss"));
    let answer = house.get("/api/0/users/me/").await;
    let lines: Vec<_> = answer.fields.get_all("cache-status").iter().collect();
    assert_eq!(*lines.first().unwrap(), "edge; fwd=miss");
    assert_eq!(Verdict::of(&answer).word("fwd"), "bypass");
}
