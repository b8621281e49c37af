//! Decides which upstream a request goes to, and which hosts count as Sentry's.
//!
//! Today every request goes to the one configured region ("pinned"): what is learned from answers, and paths
//! that only the control host serves, come with routing by organization.
//!
//! Invariants: a request goes to a configured URL and nowhere else, whatever a body, a token or a field says; a
//! region's URL in a body is rewritten only when a request for that region through us would reach it.
//! Not here: the rewriting itself (`links`), sending (`upstream`).

use std::sync::Arc;

use http::uri::{Authority, Scheme, Uri};

use crate::admission::AdmittedRequest;
use crate::config::UpstreamConfig;
use crate::links::KnownHosts;

/// Name of the region that reaches every other one: Sentry's gateway.
const GLOBAL: &str = "global";

/// The upstreams, fixed by the configuration.
#[derive(Debug)]
pub struct Regions {
    chosen: Origin,
    /// Authorities of the regions that a request through us reaches.
    reachable: Vec<Origin>,
    /// Further authorities under which the chosen upstream speaks of itself.
    aliases: Vec<String>,
    known_hosts: KnownHosts,
}

/// Scheme and authority of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    scheme: Scheme,
    authority: Authority,
    /// The same, for those who keep it.
    name: Arc<str>,
}

/// An upstream URL of the configuration that is none.
#[derive(Debug, thiserror::Error)]
#[error("could not read {key} as a URL of scheme and authority")]
pub struct BadOrigin {
    key: String,
}

impl Origin {
    /// Returns the authority.
    pub fn authority(&self) -> &str {
        self.authority.as_str()
    }

    /// Returns the authority, for those who keep it.
    pub fn name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    fn parse(key: &str, url: &str) -> Result<Self, BadOrigin> {
        let bad = || BadOrigin { key: key.to_owned() };
        let parts = url.trim_end_matches('/').parse::<Uri>().map_err(|_| bad())?.into_parts();
        match (parts.scheme, parts.authority) {
            (Some(scheme), Some(authority)) => {
                let name = Arc::from(authority.as_str());
                Ok(Self { scheme, authority, name })
            }
            (None | Some(_), None) | (None, Some(_)) => Err(bad()),
        }
    }
}

impl Regions {
    /// Reads the upstreams of a configuration.
    ///
    /// # Errors
    /// Names the key whose URL is none.
    pub fn new(config: &UpstreamConfig) -> Result<Self, BadOrigin> {
        let region = |name: &String, url: &String| Origin::parse(&format!("upstream.regions.{name}"), url);
        let all =
            config.regions.iter().map(|(name, url)| region(name, url)).collect::<Result<Vec<_>, _>>()?;
        let named = config.regions.get(&config.region).map(|url| region(&config.region, url)).transpose()?;
        // `upstream.url` says where the region is reached; it stays the same region.
        let chosen = match (config.url.as_str(), &named) {
            ("", Some(origin)) => origin.clone(),
            ("", None) => return Err(BadOrigin { key: "upstream.region".to_owned() }),
            (url, _) => Origin::parse("upstream.url", url)?,
        };
        let authorities = all.iter().chain([&chosen]).map(|origin| origin.authority().to_owned());
        let known_hosts = KnownHosts::new(authorities.chain(config.link_hosts.iter().cloned()));
        // The gateway finds each organization's region by itself (`sentry-api.md` §6).
        let mut reachable = if config.region == GLOBAL { all } else { named.into_iter().collect() };
        reachable.push(chosen.clone());
        Ok(Self { chosen, reachable, aliases: config.link_hosts.clone(), known_hosts })
    }

    /// Returns the upstream for a request.
    pub fn upstream(&self, _request: &AdmittedRequest) -> &Origin {
        &self.chosen
    }

    /// Returns the upstream's URL of the request: the client's own path and query, to the byte.
    pub fn target(&self, request: &AdmittedRequest) -> Option<Uri> {
        let origin = self.upstream(request);
        let mut target = request.path().to_owned();
        if let Some(query) = request.query() {
            target.push('?');
            target.push_str(query);
        }
        Uri::builder()
            .scheme(origin.scheme.clone())
            .authority(origin.authority.clone())
            .path_and_query(target)
            .build()
            .ok()
    }

    /// Returns the hosts that count as Sentry's in `Link` and `Location`.
    pub fn known_hosts(&self) -> &KnownHosts {
        &self.known_hosts
    }

    /// Returns whether a request for the region of this URL, sent through us, would reach it.
    pub fn reaches(&self, url: &str) -> bool {
        let Ok(uri) = url.parse::<Uri>() else { return false };
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else { return false };
        self.reachable.iter().any(|origin| origin.scheme == *scheme && origin.authority == *authority)
            || self.aliases.iter().any(|alias| alias.eq_ignore_ascii_case(authority.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::UpstreamConfig;

    fn regions(region: &str, url: &str) -> Regions {
        let mut config: UpstreamConfig = crate::config::load::defaults().upstream;
        config.region = region.to_owned();
        config.url = url.to_owned();
        config.regions = BTreeMap::from(
            [("global", "https://sentry.io"), ("us", "https://us.sentry.io"), ("de", "https://de.sentry.io")]
                .map(|(name, url)| (name.to_owned(), url.to_owned())),
        );
        Regions::new(&config).unwrap()
    }

    #[test]
    fn a_pinned_region_reaches_only_itself() {
        let regions = regions("us", "");
        assert!(regions.reaches("https://us.sentry.io"));
        assert!(!regions.reaches("http://us.sentry.io"));
        assert!(!regions.reaches("https://de.sentry.io"));
        assert!(!regions.reaches("https://evil.example"));
    }

    #[test]
    fn the_gateway_reaches_every_configured_region() {
        let regions = regions("global", "");
        assert!(regions.reaches("https://us.sentry.io"));
        assert!(regions.reaches("https://de.sentry.io/"));
        assert!(!regions.reaches("https://fr.sentry.io"));
    }

    #[test]
    fn an_upstream_url_moves_the_region_and_leaves_it_the_same_region() {
        let regions = regions("us", "http://127.0.0.1:8080/");
        assert_eq!(regions.chosen.authority(), "127.0.0.1:8080");
        assert!(regions.reaches("https://us.sentry.io"));
        assert!(regions.reaches("http://127.0.0.1:8080"));
        assert!(!regions.reaches("https://de.sentry.io"));
    }
    fn target(line: &str, url: &str) -> String {
        let request = crate::testing::asked(line, &[]);
        regions("us", url).target(&request).unwrap().to_string()
    }

    #[test]
    fn a_target_is_the_clients_own_spelling_to_the_byte() {
        for path in [
            "/api/0/organizations/",
            "/api/0/organizations/acme/releases/web%2F1.0+2@x/?&cursor=0%3a100:0&a=%20b+c&a",
            "/api/0/organizations/acme/issues/?query=is%3Aunresolved&query=",
            "/api/0/organizations/acme/issues/?",
        ] {
            let expected = format!("https://us.sentry.io{path}");
            assert_eq!(target(&format!("GET {path}"), ""), expected);
        }
    }

    #[test]
    fn a_target_is_upstreams_whatever_authority_the_client_named() {
        let line = "GET http://evil.example/api/0/organizations/";
        assert_eq!(target(line, ""), "https://us.sentry.io/api/0/organizations/");
        assert_eq!(target(line, "http://127.0.0.1:8080/"), "http://127.0.0.1:8080/api/0/organizations/");
    }

    #[test]
    fn the_hosts_of_all_regions_and_the_configured_ones_are_known() {
        let mut config = crate::config::load::defaults().upstream;
        config.url = "http://127.0.0.1:8080".to_owned();
        config.link_hosts = vec!["sentry.corp.example".to_owned()];
        let regions = Regions::new(&config).unwrap();
        let known = |host: &str| {
            let link =
                http::HeaderValue::from_str(&format!("<http://{host}/api/0/x/>; rel=\"next\"")).unwrap();
            crate::links::rewrite_link(&link, "http://proxy.example", regions.known_hosts()).is_some()
        };
        for host in ["sentry.io", "us.sentry.io", "de.sentry.io", "127.0.0.1:8080", "sentry.corp.example"] {
            assert!(known(host), "{host}");
        }
        for host in ["evil.example", "127.0.0.1:8081", "evil-sentry.io", "sentry.io.evil.example"] {
            assert!(!known(host), "{host}");
        }
    }

    #[test]
    fn an_alias_of_the_chosen_upstream_is_reached() {
        let mut config = crate::config::load::defaults().upstream;
        config.region = "us".to_owned();
        config.link_hosts = vec!["Sentry.corp.example".to_owned()];
        let regions = Regions::new(&config).unwrap();
        assert!(regions.reaches("https://sentry.CORP.example"));
        assert!(regions.reaches("HTTPS://US.sentry.io"));
        for url in ["us.sentry.io", "/api/0/", "", "https://", "https://us.sentry.io:8443", "nonsense:"] {
            assert!(!regions.reaches(url), "{url}");
        }
    }

    #[test]
    fn a_url_that_is_none_is_reported_by_its_key() {
        let check = |region: &str, url: &str, us: &str, key: &str| {
            let mut config = crate::config::load::defaults().upstream;
            config.region = region.to_owned();
            config.url = url.to_owned();
            config.regions.insert("us".to_owned(), us.to_owned());
            let error = Regions::new(&config).unwrap_err().to_string();
            assert_eq!(error, format!("could not read {key} as a URL of scheme and authority"));
        };
        check("us", "", "us.sentry.io", "upstream.regions.us");
        check("us", "/nowhere", "https://us.sentry.io", "upstream.url");
        check("mars", "", "https://us.sentry.io", "upstream.region");
    }
}
