//! The origins that requests may be sent to: those of the configuration, fixed at start.
//!
//! What a body or a token says is looked up here, and at most answered with a place in this list: a request is sent to an
//! origin as the configuration spells it, never to anything that was read.
//!
//! Invariant: whatever text is looked up, nothing outside the list comes out. Not here: who goes where (`regions`).

use std::sync::Arc;

use http::uri::{Authority, Scheme, Uri};

use crate::organizations::RegionId;

/// Scheme and authority of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The scheme.
    pub scheme: Scheme,
    /// The authority.
    pub authority: Authority,
    /// The same, for those who keep it.
    name: Arc<str>,
}

/// An upstream URL of the configuration that is none.
#[derive(Debug, thiserror::Error)]
#[error("could not read {key} as a URL of scheme and authority")]
pub struct BadOrigin {
    /// The key that holds it.
    pub key: String,
}

impl Origin {
    /// Reads the URL under a key of the configuration.
    ///
    /// # Errors
    /// Names the key.
    pub fn parse(key: &str, url: &str) -> Result<Self, BadOrigin> {
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

    /// Returns the authority.
    pub fn authority(&self) -> &str {
        self.authority.as_str()
    }

    /// Returns the authority, for those who keep it.
    pub fn name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }
}

/// An origin in the form in which two of them are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Comparable {
    scheme: Scheme,
    host: String,
    port: u16,
}

impl Comparable {
    /// Reads scheme, host and port of a URL; `None` for what has a user, a port that is none, or another scheme.
    fn of(scheme: Option<&Scheme>, authority: Option<&Authority>) -> Option<Self> {
        let (scheme, authority) = (scheme?, authority?);
        let default = match scheme.as_str() {
            "https" => 443,
            "http" => 80,
            _ => return None,
        };
        let host = authority.host();
        // A user before it, or a port behind it that cannot be read, makes it longer than its host.
        let port = if authority.as_str().len() == host.len() { default } else { authority.port_u16()? };
        let is_plain = !host.is_empty() && authority.as_str().starts_with(host);
        is_plain.then(|| Self { scheme: scheme.clone(), host: host.to_ascii_lowercase(), port })
    }
}

/// The origins that requests may be sent to, and under which names they are known.
#[derive(Debug, Default)]
pub struct AllowList {
    origins: Vec<Origin>,
    names: Vec<(Comparable, RegionId)>,
}

impl AllowList {
    /// Adds an origin, if it is not there yet, and returns its place.
    pub fn add(&mut self, origin: &Origin) -> RegionId {
        if let Some(known) = self.place_of(Some(&origin.scheme), Some(&origin.authority)) {
            return known;
        }
        let place = RegionId(self.origins.len());
        self.origins.push(origin.clone());
        self.alias(origin, place);
        place
    }

    /// Has an origin stand for a place in the list, unless it stands for one already.
    pub fn alias(&mut self, origin: &Origin, place: RegionId) {
        if let Some(name) = Comparable::of(Some(&origin.scheme), Some(&origin.authority)) {
            self.names.push((name, place));
        }
    }

    /// Returns the origin at a place.
    pub fn origin(&self, place: RegionId) -> Option<&Origin> {
        self.origins.get(place.0)
    }

    /// Returns the place of the origin of a URL; `None` for every origin that is not in the list.
    pub fn find(&self, url: &str) -> Option<RegionId> {
        let uri = url.parse::<Uri>().ok()?;
        self.place_of(uri.scheme(), uri.authority())
    }

    /// Returns every place.
    pub fn places(&self) -> impl Iterator<Item = RegionId> {
        (0..self.origins.len()).map(RegionId)
    }

    fn place_of(&self, scheme: Option<&Scheme>, authority: Option<&Authority>) -> Option<RegionId> {
        let sought = Comparable::of(scheme, authority)?;
        self.names.iter().find(|(name, _)| *name == sought).map(|(_, place)| *place)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SENTRY: [&str; 3] = ["https://sentry.io", "https://us.sentry.io", "http://127.0.0.1:8000"];

    fn list(urls: &[&str]) -> AllowList {
        let mut list = AllowList::default();
        for url in urls {
            list.add(&Origin::parse("here", url).unwrap());
        }
        list
    }

    #[test]
    fn an_origin_is_found_however_it_is_spelled() {
        let list = list(&SENTRY);
        for (url, place) in [
            ("https://sentry.io", 0),
            ("https://us.sentry.io", 1),
            ("https://us.sentry.io/", 1),
            ("HTTPS://US.Sentry.IO", 1),
            ("https://us.sentry.io:443", 1),
            ("https://us.sentry.io/api/0/?x", 1),
            ("http://127.0.0.1:8000", 2),
        ] {
            assert_eq!(list.find(url), Some(RegionId(place)), "{url}");
        }
    }

    #[test]
    fn what_only_looks_like_one_is_not_found() {
        let list = list(&SENTRY);
        for url in [
            "https://us.sentry.io@evil.example",
            "https://us.sentry.io:443@evil.example",
            "https://evil.example@us.sentry.io",
            "https://us.sentry.io.evil.example",
            "https://us.sentry.io.",
            "https://evil-us.sentry.io",
            "https://usXsentry.io",
            "http://us.sentry.io",
            "https://us.sentry.io:8443",
            "https://us.sentry.io:99999",
            "https://us.sentry.io:",
            "https://us.sentry.io:x",
            "https://us.sentry.io\\@evil.example",
            "https://evil.example\\@us.sentry.io",
            "https://us.sentry.io%2eevil.example",
            "https://evil.example/https://us.sentry.io",
            "https://evil.example#us.sentry.io",
            "https://evil.example?us.sentry.io",
            "https:us.sentry.io",
            "https:///us.sentry.io",
            "//us.sentry.io",
            "us.sentry.io",
            "us.sentry.io:443",
            " https://us.sentry.io",
            "https://us.sentry.io ",
            "https://us.sentry.io\n",
            "https://us\u{2024}sentry.io",
            "ftp://us.sentry.io",
            "http://127.0.0.1",
            "http://127.0.0.1:80",
            "http://0177.0.0.1:8000",
            "javascript:https://us.sentry.io",
            "null",
            "",
        ] {
            assert_eq!(list.find(url), None, "{url}");
        }
    }

    #[test]
    fn an_origin_has_one_place_and_may_stand_for_another() {
        let mut list = list(&["https://sentry.io", "https://SENTRY.io:443", "https://us.sentry.io"]);
        assert_eq!(list.places().count(), 2);
        let moved = Origin::parse("here", "http://127.0.0.1:8000").unwrap();
        list.alias(&moved, RegionId(1));
        assert_eq!((list.find("http://127.0.0.1:8000"), list.places().count()), (Some(RegionId(1)), 2));
        assert_eq!(list.origin(RegionId(1)).unwrap().authority(), "us.sentry.io");
        assert_eq!(list.origin(RegionId(2)), None);
    }

    proptest! {
        #[test]
        fn whatever_is_looked_up_nothing_comes_out_that_was_not_put_in(
            before in "(https?://)?[a-zA-Z0-9@:/.\\\\%#?-]{0,12}",
            after in "[a-zA-Z0-9@:/.\\\\%#? -]{0,12}",
            anything in ".{0,30}",
        ) {
            let list = list(&SENTRY);
            let urls = [format!("{before}us.sentry.io{after}"), format!("https://us.sentry.io{after}"), before, anything];
            for url in urls {
                let Some(place) = list.find(&url) else { continue };
                let origin = list.origin(place).unwrap();
                let own = format!("{}://{}", origin.scheme, origin.authority());
                prop_assert!(SENTRY.contains(&own.as_str()));
                // And it is what was named: nothing is found under a name that is not its own.
                let named = url.to_ascii_lowercase();
                let rest = named.strip_prefix(&own);
                let rest = rest.map(|rest| rest.strip_prefix(":443").unwrap_or(rest));
                prop_assert!(rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#'])), "{url}");
            }
        }
    }
}
