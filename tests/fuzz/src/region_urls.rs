//! Region URLs in JSON bodies: the first line says which kind of body (`organization`, `list`, anything else: `regions`), the
//! rest is the body.
//!
//! Holds: places are in order and within the body; JSON stays JSON, and nothing in it changes but region URLs; what has been
//! put in is not found again.

use sentrybox::links::region_urls::{RegionUrlShape, Splice, SpliceWith, apply, scan};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::text;

const BASE: &str = "http://box.example:9000";

/// Tries one input.
pub fn run(input: &[u8]) {
    let (kind, body) = text::first_line(input);
    let shape = match kind {
        b"organization" => RegionUrlShape::Organization,
        b"list" => RegionUrlShape::OrganizationList,
        _ => RegionUrlShape::Regions,
    };
    let reachable = |url: &str| url.contains("sentry.io");
    let found = scan(body, shape, &reachable);
    check_places(body, &found.splices);
    let sent = apply(body, &found.splices, BASE);
    if found.splices.is_empty() {
        assert_eq!(sent, body);
        return;
    }
    let is_json = |body: &[u8]| serde_json::from_slice::<&RawValue>(body).is_ok();
    assert!(is_json(body) && is_json(&sent), "JSON stays JSON, and nothing else has places");
    // Half a surrogate pair is JSON, and no text.
    if let (Ok(before), Ok(after)) = (serde_json::from_slice(body), serde_json::from_slice(&sent)) {
        assert_alike(&before, &after, shape);
    }
    let again = scan(&sent, shape, &|url| reachable(url) && !url.starts_with(BASE));
    assert_eq!(again.organizations.len(), found.organizations.len());
    let is_left = |splice: &Splice| sent[splice.range.clone()].starts_with(BASE.as_bytes());
    assert!(!again.splices.iter().any(is_left), "the base is replaced once more");
}

fn check_places(body: &[u8], splices: &[Splice]) {
    let mut end = 0;
    for splice in splices {
        assert!(end <= splice.range.start && splice.range.start < splice.range.end, "{splices:?}");
        end = splice.range.end;
        if splice.with == SpliceWith::Base {
            assert_eq!(body[splice.range.start - 1], b'"', "a URL begins where a string does");
        }
    }
    assert!(end <= body.len(), "{splices:?}");
}

/// Fails unless both are the same but for origins of URLs, and for regions that would be listed twice.
fn assert_alike(before: &Value, after: &Value, shape: RegionUrlShape) {
    match (before, after) {
        (Value::String(before), Value::String(after)) if before != after => {
            let path = after.strip_prefix(BASE).expect("what changes begins with the base");
            assert!(before.ends_with(path) && before.contains("sentry.io"), "{before} became {after}");
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            before.iter().zip(after).for_each(|(before, after)| assert_alike(before, after, shape));
        }
        (Value::Array(before), Value::Array(after)) => {
            assert_eq!(shape, RegionUrlShape::Regions, "only regions are taken out");
            assert!(after.len() < before.len());
        }
        (Value::Object(before), Value::Object(after)) => {
            assert!(before.keys().eq(after.keys()), "the same members");
            before.iter().for_each(|(name, before)| assert_alike(before, &after[name], shape));
        }
        (before, after) => assert_eq!(before, after),
    }
}
