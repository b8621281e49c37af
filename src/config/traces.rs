//! `[traces]`: whether requests are traced, and where their spans go. Plain data, and what it must satisfy.
//!
//! Invariant: the further fields may hold a collector's key, so no message of ours repeats them.
//! Not here: which requests are traced (`traces`), sending spans (`exporter`).

use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use crate::config::Secret;
use crate::config::validate::Finding;

/// Whether requests are traced, and where their spans go.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TracesConfig {
    /// URL to which spans are sent, as OTLP over HTTP; empty means that nothing is traced.
    pub endpoint: String,
    /// Further fields of what is sent there, `name: value` on each line, such as a collector's key; empty means none.
    pub headers: Secret,
    /// File that holds those fields instead.
    pub headers_file: PathBuf,
    /// Which share of the requests is traced whose client does not say whether it traces them: from 0 to 1.
    pub sample_ratio: f64,
    /// Name under which the collector knows this proxy.
    pub service_name: String,
    /// How long sending spans may take, repeats included.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

impl TracesConfig {
    /// Returns whether anything is traced.
    pub fn is_enabled(&self) -> bool {
        !self.endpoint.is_empty()
    }

    /// Reads the URL of the collector; `None` for what cannot be sent to.
    pub fn collector(&self) -> Option<Uri> {
        // `http::Uri` drops a fragment without a word.
        let uri = self.endpoint.parse::<Uri>().ok().filter(|_| !self.endpoint.contains('#'))?;
        let authority = uri.authority()?;
        let is_port_sound = authority.host().len() == authority.as_str().len() || authority.port().is_some();
        let is_sound = matches!(uri.scheme_str(), Some("http" | "https"))
            && !authority.host().is_empty()
            && !authority.as_str().contains('@')
            && is_port_sound;
        is_sound.then_some(uri)
    }

    /// Reads the further fields; `None` where a line is no field.
    pub fn fields(&self) -> Option<HeaderMap> {
        let lines = self.headers.expose().lines().map(str::trim).filter(|line| !line.is_empty());
        let field = |line: &str| {
            let (name, value) = line.split_once(':')?;
            let mut value = HeaderValue::from_str(value.trim()).ok()?;
            value.set_sensitive(true);
            Some((HeaderName::from_bytes(name.trim().as_bytes()).ok()?, value))
        };
        lines.map(field).collect()
    }

    /// Returns every rule that the section breaks.
    pub fn findings(&self) -> Vec<Finding> {
        let endpoint = (self.is_enabled() && self.collector().is_none()).then(|| {
            // What stands there is not repeated: it may hold a key.
            let expected = "expected the http or https URL of a collector, without a user, such as \
                            \"http://127.0.0.1:4318/v1/traces\"";
            Finding::of(&["traces.endpoint"], expected.to_owned())
        });
        let headers = self.fields().is_none().then(|| {
            let expected = "expected a field on each line, as in `name: value`".to_owned();
            Finding::of(&["traces.headers", "traces.headers_file"], expected)
        });
        let ratio = (!(0.0..=1.0).contains(&self.sample_ratio)).then(|| {
            let expected = format!("expected a number from 0 to 1, found {}", self.sample_ratio);
            Finding::of(&["traces.sample_ratio"], expected)
        });
        let name = self.service_name.trim().is_empty().then(|| {
            Finding::of(&["traces.service_name"], "expected a name, such as \"sentrybox\"".to_owned())
        });
        [endpoint, headers, ratio, name].into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::defaults;

    fn check(change: impl FnOnce(&mut TracesConfig), key: Option<&str>) {
        let mut traces = defaults().traces;
        change(&mut traces);
        let findings = traces.findings();
        let found: Vec<_> = findings.iter().map(|finding| finding.keys[0].as_str()).collect();
        assert_eq!(found, key.into_iter().collect::<Vec<_>>(), "{traces:?}");
        assert!(!format!("{findings:?}").contains("canary"), "{findings:?}");
    }

    #[test]
    fn a_collector_is_an_http_url_with_any_path_and_no_user() {
        for url in [
            "",
            "http://127.0.0.1:4318/v1/traces",
            "https://collector.example",
            "https://o1.ingest.example/api/7/integration/otlp/v1/traces?x=y",
            "http://[::1]:4318/v1/traces",
        ] {
            check(|traces| url.clone_into(&mut traces.endpoint), None);
        }
        for url in [
            "collector.example:4318",
            "grpc://collector.example:4317",
            "/v1/traces",
            "http://me:canary@collector.example/",
            "http://collector.example:99999/",
            "http://collector.example/#x",
            "http://",
        ] {
            check(|traces| url.clone_into(&mut traces.endpoint), Some("traces.endpoint"));
        }
    }

    #[test]
    fn further_fields_stand_on_a_line_each_and_are_never_repeated() {
        let with = |text: &str| TracesConfig { headers: Secret::new(text.to_owned()), ..defaults().traces };
        let fields = with("\nx-key: canary:1\r\n\nX-Scope-OrgID: acme\n").fields().unwrap();
        assert_eq!(
            (&fields["x-key"], &fields["x-scope-orgid"]),
            (&"canary:1".parse().unwrap(), &"acme".parse().unwrap())
        );
        assert!(!format!("{fields:?}").contains("canary"));
        for text in ["canary", "x y: canary", ": canary", "x-key: can\u{1}ary"] {
            check(|traces| traces.headers = Secret::new(text.to_owned()), Some("traces.headers"));
        }
    }

    #[test]
    fn a_share_is_from_nothing_to_all() {
        for ratio in [0.0, 0.01, 1.0] {
            check(|traces| traces.sample_ratio = ratio, None);
        }
        for ratio in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            check(|traces| traces.sample_ratio = ratio, Some("traces.sample_ratio"));
        }
        check(|traces| traces.service_name = " ".to_owned(), Some("traces.service_name"));
    }
}
