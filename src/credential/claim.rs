//! Reads what an organization token says of itself: for which organization it is, and where that lives.
//!
//! `sntrys_` + base64 of JSON + `_` + the secret (`sentry-api.md` §5). The JSON is not signed: whoever sends a token can
//! write anything into it, so this is a claim, and a hint at best.
//!
//! Invariants: no input makes this panic or take more than linear time; the secret is not looked at.
//! Not here: whether anything follows from a claim (`regions`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// What such a token begins with.
const PREFIX: &str = "sntrys_";

/// Longest claim that is read, in bytes of base64: Sentry's take about 200.
const LONGEST: usize = 4_096;

/// What an organization token says of itself. Anybody can write that.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Claim {
    /// The organization's slug.
    #[serde(rename = "org")]
    pub organization: String,
    /// The URL of the region where the organization lives.
    pub region_url: String,
}

impl Claim {
    /// Reads the claim of a token; `None` where it makes none, or none that can be read.
    pub fn read(token: &[u8]) -> Option<Self> {
        let token = str::from_utf8(token).ok()?.strip_prefix(PREFIX)?;
        let (claim, secret) = token.split_once('_')?;
        // "Exactly two underscores."
        if secret.is_empty() || secret.contains('_') || LONGEST < claim.len() {
            return None;
        }
        serde_json::from_slice(&STANDARD.decode(claim).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(json: &str) -> Option<(String, String)> {
        let token = format!("{PREFIX}{}_c2VjcmV0", STANDARD.encode(json));
        Claim::read(token.as_bytes()).map(|claim| (claim.organization, claim.region_url))
    }

    const SOUND: &str =
        r#"{"iat":1700000000.5,"url":"https://sentry.io","region_url":"https://us.sentry.io","org":"acme"}"#;

    #[test]
    fn a_claim_names_the_organization_and_its_region() {
        let expected = Some(("acme".to_owned(), "https://us.sentry.io".to_owned()));
        assert_eq!(read(SOUND), expected);
        assert_eq!(read(r#"{"org":"acme","region_url":"https://us.sentry.io","url":null}"#), expected);
        assert_eq!(read(r#" { "region_url" : "https:\/\/us.sentry.io" , "org" : "\u0061cme" } "#), expected);
    }

    #[test]
    fn every_padding_of_base64_is_read() {
        for pad in ["", " ", "  ", "   "] {
            assert!(read(&format!("{SOUND}{pad}")).is_some());
        }
    }

    #[test]
    fn a_token_without_a_region_claims_nothing() {
        for json in [
            "",
            "{}",
            "[]",
            "null",
            r#"{"org":"acme"}"#,
            r#"{"org":"acme","url":null,"region_url":null}"#,
            r#"{"org":null,"region_url":"https://us.sentry.io"}"#,
            r#"{"org":7,"region_url":"https://us.sentry.io"}"#,
            r#"{"org":"acme","region_url":["https://us.sentry.io"]}"#,
            r#"{"org":"acme","region_url":"https://us.sentry.io""#,
            r#"{"org":"acme","region_url":"https://us.sentry.io"}x"#,
        ] {
            assert_eq!(read(json), None, "{json}");
        }
    }

    #[test]
    fn what_is_not_built_like_such_a_token_claims_nothing() {
        let claim = STANDARD.encode(SOUND);
        let unpadded = claim.trim_end_matches('=');
        assert!(unpadded.len() < claim.len(), "the case needs a padding");
        for token in [
            String::new(),
            "sntrys_".to_owned(),
            "sntrys__".to_owned(),
            format!("sntrys_{claim}"),
            format!("sntrys_{claim}_"),
            format!("sntrys_{claim}_secret_x"),
            format!("sntrys_{unpadded}_secret"),
            format!("sntrys_{claim}=_secret"),
            format!("sntryu_{claim}_secret"),
            format!("SNTRYS_{claim}_secret"),
            format!("sntrys_ {claim}_secret"),
        ] {
            assert_eq!(Claim::read(token.as_bytes()), None, "{token}");
        }
        assert_eq!(Claim::read(b"sntrys_\xff\xfe_secret"), None);
        assert_eq!(
            Claim::read(format!("sntrys_{}_secret", STANDARD.encode(b"{\"org\":\"\xff\"}")).as_bytes()),
            None
        );
    }

    #[test]
    fn a_huge_claim_is_not_read() {
        let huge =
            format!(r#"{{"org":"acme","region_url":"https://us.sentry.io","x":"{}"}}"#, "x".repeat(LONGEST));
        assert_eq!(read(&huge), None);
        let deep = format!("{}{}", "[".repeat(1_000), "]".repeat(1_000));
        assert_eq!(read(&deep), None);
    }

    proptest! {
        #[test]
        fn no_token_makes_it_panic(token in any::<Vec<u8>>(), json in ".{0,40}") {
            let _ = Claim::read(&token);
            let _ = Claim::read(&[PREFIX.as_bytes(), &token, b"_x"].concat());
            let _ = read(&json);
        }
    }
}
