//! Every client's condition, on everything that can be stored, whatever upstream answers: one table ([RFC 9110 §13]).
//!
//! Stored is `"v1"`; upstream's new answer is `"v2"`. A cell is what the client gets: the status, and which body.
//!
//! [RFC 9110 §13]: https://www.rfc-editor.org/rfc/rfc9110#section-13

use std::time::Duration;

use http::{Method, StatusCode};
use tokio::time::sleep;

use crate::support::corridor::{House, PROJECTS, Verdict};
use crate::support::http::{Answer, Fields};
use crate::support::scripted::Act;

/// When `v1` and `v2` were modified, and a moment before both.
const BEFORE: &str = "Fri, 15 Jan 2021 07:00:00 GMT";
const FIRST: &str = "Fri, 15 Jan 2021 08:00:00 GMT";
const SECOND: &str = "Fri, 15 Jan 2021 09:00:00 GMT";

/// Longer than what is stored may be reused without asking, shorter than it may stand in for a failure.
const STALE: Duration = Duration::from_mins(13);

/// What upstream does, in the order of the columns.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Upstream {
    New,
    NotModified,
    NotFound,
    Failing,
    Silent,
}

const COLUMNS: [Upstream; 5] =
    [Upstream::New, Upstream::NotModified, Upstream::NotFound, Upstream::Failing, Upstream::Silent];

/// What is stored when the client asks.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Stored {
    Nothing,
    Fresh,
    Stale,
}

/// Whether upstream sends validators.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Validators {
    Upstreams,
    Ours,
}

impl Upstream {
    fn act(self, validators: Validators) -> Act {
        match self {
            Self::New => version("v2", SECOND, validators),
            Self::NotModified if validators == Validators::Upstreams => {
                Act::status(304, "").with("etag", "\"v1\"").with("last-modified", FIRST)
            }
            Self::NotModified => Act::status(304, ""),
            Self::NotFound => Act::status(404, "{}"),
            Self::Failing => Act::status(503, "{}"),
            Self::Silent => Act::timeout().after(Duration::from_secs(30)),
        }
    }
}

fn version(name: &str, modified: &str, validators: Validators) -> Act {
    let act = Act::json(format!("\"{name}\""));
    match validators {
        Validators::Upstreams => act.with("etag", &format!("\"{name}\"")).with("last-modified", modified),
        Validators::Ours => act,
    }
}

/// Builds a house in which this is stored, and upstream then does that.
async fn house(stored: Stored, upstream: Upstream, validators: Validators) -> House {
    let house = House::new();
    if stored != Stored::Nothing {
        house.upstream.plays_once(PROJECTS, version("v1", FIRST, validators));
        house.get(PROJECTS).await;
    }
    if stored == Stored::Stale {
        sleep(STALE).await;
    }
    house.upstream.plays(PROJECTS, upstream.act(validators));
    house
}

/// Says what the client got: `200 v1`, `304`, `404`.
fn told(answer: &Answer) -> String {
    match answer.status {
        StatusCode::OK => format!("200 {}", answer.text().trim_matches('"')),
        status => status.as_str().to_owned(),
    }
}

/// Holds a row: 5 cells for each of nothing, fresh and stale.
async fn check(client: Fields<'_>, validators: Validators, row: [[&str; 5]; 3]) {
    for (stored, cells) in [Stored::Nothing, Stored::Fresh, Stored::Stale].into_iter().zip(row) {
        for (upstream, cell) in COLUMNS.into_iter().zip(cells) {
            let house = house(stored, upstream, validators).await;
            let asked = house.upstream.count();
            let answer = house.ask(Method::GET, PROJECTS, client).await;
            let scene = format!("{client:?} on {stored:?}, upstream {upstream:?}");
            assert_eq!(told(&answer), cell, "{scene}: {answer:?}");
            assert_eq!(answer.status == StatusCode::NOT_MODIFIED, answer.body.is_empty(), "{scene}");
            assert_eq!(Verdict::of(&answer).says("hit"), stored == Stored::Fresh, "{scene}");
            if stored == Stored::Fresh {
                assert_eq!(house.upstream.count(), asked, "{scene}");
                continue;
            }
            // Upstream hears our conditions, and never the client's.
            let is_ours = stored == Stored::Stale && validators == Validators::Upstreams;
            let (tag, since) = if is_ours { ("\"v1\"", FIRST) } else { ("", "") };
            let received = house.upstream.last();
            assert_eq!(received.field("if-none-match"), tag, "{scene}");
            assert_eq!(received.field("if-modified-since"), since, "{scene}");
        }
    }
}

/// What upstream does where nothing is stored: nobody asked conditionally, so a 304 is no answer.
fn nothing(new: &str) -> [&str; 5] {
    [new, "502", "404", "503", "504"]
}

/// What comes of something stale: the new answer, or the old one, freshened or standing in.
fn stale<'a>(new: &'a str, old: &'a str) -> [&'a str; 5] {
    [new, old, "404", old, old]
}

#[tokio::test(start_paused = true)]
async fn rfc9110_13_conditions_are_judged_by_upstreams_validator_whatever_upstream_does() {
    let upstreams = Validators::Upstreams;
    let old = ["200 v1"; 5];
    let same = ["304"; 5];

    check(&[], upstreams, [nothing("200 v2"), old, stale("200 v2", "200 v1")]).await;
    // `If-None-Match`.
    let first = [("if-none-match", "\"v1\"")];
    check(&first, upstreams, [nothing("200 v2"), same, stale("200 v2", "304")]).await;
    let weak = [("if-none-match", "W/\"v1\"")];
    check(&weak, upstreams, [nothing("200 v2"), same, stale("200 v2", "304")]).await;
    let second = [("if-none-match", "\"v2\"")];
    check(&second, upstreams, [nothing("304"), old, stale("304", "200 v1")]).await;
    let list = [("if-none-match", "\"v0\", \"v1\" , W/\"v2\"")];
    check(&list, upstreams, [nothing("304"), same, stale("304", "304")]).await;
    let lines = [("if-none-match", "\"v1\""), ("if-none-match", "\"v2\"")];
    check(&lines, upstreams, [nothing("304"), same, stale("304", "304")]).await;
    // As Node.js and browsers send it: the last two are theirs, and change nothing.
    let fetched = [
        ("if-none-match", "\"v1\""),
        ("sec-fetch-mode", "cors"),
        ("pragma", "no-cache"),
        ("cache-control", "no-cache"),
    ];
    check(&fetched, upstreams, [nothing("200 v2"), same, stale("200 v2", "304")]).await;
    let any = [("if-none-match", "*")];
    check(&any, upstreams, [nothing("304"), same, stale("304", "304")]).await;
    for other in ["\"v0\"", "v1", "\"v1", ""] {
        let other = [("if-none-match", other)];
        check(&other, upstreams, [nothing("200 v2"), old, stale("200 v2", "200 v1")]).await;
    }
    // `If-Modified-Since`.
    let since = |moment| [("if-modified-since", moment)];
    check(&since(BEFORE), upstreams, [nothing("200 v2"), old, stale("200 v2", "200 v1")]).await;
    check(&since(FIRST), upstreams, [nothing("200 v2"), same, stale("200 v2", "304")]).await;
    check(&since(SECOND), upstreams, [nothing("304"), same, stale("304", "304")]).await;
    check(
        &since("Friday, 15-Jan-21 08:00:00 GMT"),
        upstreams,
        [nothing("200 v2"), same, stale("200 v2", "304")],
    )
    .await;
    check(&since("yesterday"), upstreams, [nothing("200 v2"), old, stale("200 v2", "200 v1")]).await;
    // Both: the date is ignored.
    let both = |tag, moment| [("if-none-match", tag), ("if-modified-since", moment)];
    check(&both("\"v0\"", SECOND), upstreams, [nothing("200 v2"), old, stale("200 v2", "200 v1")]).await;
    check(&both("\"v1\"", BEFORE), upstreams, [nothing("200 v2"), same, stale("200 v2", "304")]).await;
    // "If-Match and If-Unmodified-Since … are not applicable to a cache" (RFC 9111 §4.3.2).
    for (name, value) in [("if-match", "\"v0\""), ("if-unmodified-since", BEFORE)] {
        check(&[(name, value)], upstreams, [nothing("200 v2"), old, stale("200 v2", "200 v1")]).await;
    }
}

/// Returns the validator that we give a version of which upstream sends none.
async fn own_tag(upstream: Act) -> String {
    let house = House::new();
    house.upstream.plays(PROJECTS, upstream);
    house.get(PROJECTS).await.field("etag").to_owned()
}

#[tokio::test(start_paused = true)]
async fn rfc9110_13_conditions_are_judged_by_our_validator_where_upstream_has_none_whatever_it_does() {
    let ours = Validators::Ours;
    let first = own_tag(version("v1", FIRST, ours)).await;
    let second = own_tag(version("v2", SECOND, ours)).await;
    assert!(first.starts_with('"') && first != second, "{first} {second}");
    let (old, same) = (["200 v1"; 5], ["304"; 5]);

    check(&[], ours, [nothing("200 v2"), old, stale("200 v2", "200 v1")]).await;
    let weak = format!("W/{first}");
    for tag in [&first, &weak] {
        let asked = [("if-none-match", tag.as_str())];
        check(&asked, ours, [nothing("200 v2"), same, stale("200 v2", "304")]).await;
    }
    check(&[("if-none-match", &second)], ours, [nothing("304"), old, stale("304", "200 v1")]).await;
    check(&[("if-none-match", "*")], ours, [nothing("304"), same, stale("304", "304")]).await;
    check(&[("if-none-match", "\"v0\"")], ours, [nothing("200 v2"), old, stale("200 v2", "200 v1")]).await;
    // Without `Last-Modified` the date of the answer counts, and all of this is new.
    let since = [("if-modified-since", SECOND)];
    check(&since, ours, [nothing("200 v2"), old, stale("200 v2", "200 v1")]).await;
}
