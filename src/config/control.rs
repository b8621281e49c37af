//! Says which URL is the control host's: what serves users, tokens and integrations for every region (`sentry-api.md` §6).
//!
//! Invariant: a control host that nobody has named is one that the region lies below, as `us.sentry.io` lies below
//! `sentry.io`: no token of another deployment's is sent to Sentry's own. Not here: what is sent there (`regions`).

use http::Uri;

use crate::config::UpstreamConfig;

/// Name of the region that reaches every other one: Sentry's gateway, which is the control host too.
pub const GLOBAL: &str = "global";

/// Returns the URL of the control host; `None` where there is none, and everything stays with the one upstream.
pub fn control_url(upstream: &UpstreamConfig) -> Option<&str> {
    if !upstream.control.is_empty() {
        return Some(&upstream.control);
    }
    let global = upstream.regions.get(GLOBAL).filter(|_| upstream.url.is_empty())?;
    let region = upstream.regions.get(&upstream.region)?;
    (upstream.region == GLOBAL || is_below(region, global)).then_some(global)
}

/// Returns whether a URL is one of Sentry's own hosts: that of the control silo, or of a region.
pub fn is_sentrys_own(url: &str) -> bool {
    let host = url.parse::<Uri>().ok().and_then(|uri| Some(uri.host()?.to_ascii_lowercase()));
    host.is_some_and(|host| host == "sentry.io" || host.ends_with(".sentry.io"))
}

/// Returns whether a URL's host is a name below that of another one, all else being equal.
fn is_below(url: &str, parent: &str) -> bool {
    let (Ok(url), Ok(parent)) = (url.parse::<Uri>(), parent.parse::<Uri>()) else { return false };
    let (Some(host), Some(above)) = (url.host(), parent.host()) else { return false };
    let (host, above) = (host.to_ascii_lowercase(), above.to_ascii_lowercase());
    let is_name_below = host.strip_suffix(&above).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'));
    is_name_below && url.scheme() == parent.scheme() && url.port_u16() == parent.port_u16()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(expected: Option<&str>, change: impl FnOnce(&mut UpstreamConfig)) {
        let mut upstream = crate::config::load::defaults().upstream;
        change(&mut upstream);
        assert_eq!(control_url(&upstream), expected);
    }

    fn set(upstream: &mut UpstreamConfig, region: &str, url: &str) {
        upstream.regions.insert(region.to_owned(), url.to_owned());
        region.clone_into(&mut upstream.region);
    }

    #[test]
    fn sentrys_own_regions_have_sentrys_control_host() {
        check(Some("https://sentry.io"), |_| {});
        for region in ["us", "de"] {
            check(Some("https://sentry.io"), |upstream| region.clone_into(&mut upstream.region));
        }
        check(Some("https://sentry.io"), |upstream| set(upstream, "us2", "https://US2.sentry.IO"));
    }

    #[test]
    fn sentrys_own_hosts_are_told_from_all_others() {
        for url in ["https://sentry.io", "https://US.sentry.io:443/", "https://acme.sentry.io"] {
            assert!(is_sentrys_own(url), "{url}");
        }
        for url in
            ["https://sentry.example", "https://evil-sentry.io", "https://sentry.io.example", "sentry", ""]
        {
            assert!(!is_sentrys_own(url), "{url}");
        }
    }

    #[test]
    fn a_server_elsewhere_has_none_unless_it_is_named() {
        for url in [
            "https://sentry.example",
            "https://evil-sentry.io",
            "https://sentry.io.example",
            "http://us.sentry.io",
            "https://us.sentry.io:8443",
            "http://127.0.0.1:8000",
        ] {
            check(None, |upstream| set(upstream, "here", url));
        }
        check(None, |upstream| "https://us.sentry.io".clone_into(&mut upstream.url));
        check(Some("https://control.example"), |upstream| {
            set(upstream, "here", "https://sentry.example");
            "https://control.example".clone_into(&mut upstream.control);
        });
        check(Some("https://control.example"), |upstream| {
            "https://sentry.example".clone_into(&mut upstream.url);
            "https://control.example".clone_into(&mut upstream.control);
        });
    }
}
