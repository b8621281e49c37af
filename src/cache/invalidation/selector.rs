//! Says which stored responses an operator means by a purge. Pure.
//!
//! Invariant: what cannot be understood purges nothing. Not here: which templates there are (`admission`), purging
//! (`cache::store`), who may (`admin`).

use std::fmt;

use http::Uri;

use crate::credential::Fingerprint;
use crate::routes::spelling::normalized_path;
use crate::routes::tags::{self, Tag};

/// What is to be purged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// The resource of a URL or path, with all its variants by query, credential and negotiation.
    Url(String),
    /// All of a route, by its template.
    Route(String),
    /// All of an organization, by slug or number.
    Organization(String),
    /// All of a credential.
    Credential(Fingerprint),
    /// All that carries a tag, as in `issue:4711`.
    Tag(String),
    /// Everything.
    Everything,
}

/// Why nothing was purged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// The URL has no path.
    #[error("`url` wants a URL or a path that begins with a slash, as in /api/0/organizations/acme/")]
    Url,
    /// No rule has the template.
    #[error(
        "`route` wants the template of a rule, configured or built in, as in \
         /api/0/organizations/{{organization}}/projects/"
    )]
    Route,
    /// The organization's name is none.
    #[error("`organization` wants a slug (letters, digits, `-` and `_`) or a number")]
    Organization,
    /// The tag is none.
    #[error(
        "`tag` wants project:ORGANIZATION/PROJECT, team:ORGANIZATION/TEAM, issue:ID or \
         release:ORGANIZATION/VERSION"
    )]
    Tag,
}

/// Writes what it names; the query of a URL may hold anything, and is left out.
impl fmt::Display for Selector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => write!(formatter, "url:{}", url.split('?').next().unwrap_or_default()),
            Self::Route(template) => write!(formatter, "route:{template}"),
            Self::Organization(name) => write!(formatter, "organization:{name}"),
            Self::Credential(fingerprint) => write!(formatter, "credential:{fingerprint}"),
            Self::Tag(text) => formatter.write_str(text),
            Self::Everything => formatter.write_str("everything"),
        }
    }
}

impl Selector {
    /// Returns the tags that are meant, of organizations under the name that it uses.
    ///
    /// # Errors
    /// What is meant cannot be told.
    pub fn tags(&self) -> Result<Vec<Tag>, SelectorError> {
        Ok(match self {
            Self::Url(url) => vec![Tag::Resource(tags::with_slash(&normalized_path(&path_of(url)?)))],
            Self::Route(template) => vec![Tag::Route(template.clone())],
            Self::Organization(name) => of_organization(name)?,
            Self::Credential(fingerprint) => vec![Tag::Credential(Some(*fingerprint))],
            Self::Tag(text) => vec![Tag::parse(&normalized_path(text)).ok_or(SelectorError::Tag)?],
            Self::Everything => vec![Tag::Everything],
        })
    }
}

/// Returns the path of a URL, or the path itself; an authority and a query say nothing.
fn path_of(url: &str) -> Result<String, SelectorError> {
    let uri: Uri = url.parse().map_err(|_| SelectorError::Url)?;
    let has_path = url.starts_with('/') || uri.scheme().is_some();
    if has_path { Ok(uri.path().to_owned()) } else { Err(SelectorError::Url) }
}

/// Returns the tags of an organization; what does not say whose it is counts as its own, and so does the list, which shows it.
fn of_organization(name: &str) -> Result<Vec<Tag>, SelectorError> {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if name.is_empty() || !name.bytes().all(is_part) {
        return Err(SelectorError::Organization);
    }
    let list = Tag::Resource(tags::organization_list().to_owned());
    Ok(vec![Tag::Organization(name.to_owned()), Tag::Unplaced, list])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(selector: &Selector) -> Vec<String> {
        let tags = selector.tags().unwrap();
        tags.iter().map(ToString::to_string).collect()
    }

    fn text(text: &str) -> String {
        text.to_owned()
    }

    #[test]
    fn a_url_means_its_resource_whatever_its_authority_query_and_spelling() {
        for url in [
            "/api/0/organizations/acme/releases/web@1.0/",
            "/api/0/organizations/acme/releases/web%401.0",
            "http://127.0.0.1:9000/api/0/organizations/acme/releases/web@1.0/?per_page=5",
        ] {
            let expected = ["resource:/api/0/organizations/acme/releases/web@1.0/"];
            assert_eq!(tags(&Selector::Url(text(url))), expected);
        }
    }

    #[test]
    fn an_organization_means_what_says_so_and_what_may_be_its_own() {
        for name in ["acme", "4711"] {
            let list = text("resource:/api/0/organizations/");
            let expected = [format!("organization:{name}"), text("unplaced"), list];
            assert_eq!(tags(&Selector::Organization(text(name))), expected);
        }
    }

    #[test]
    fn everything_else_means_what_it_says() {
        let fingerprint = Fingerprint::parse("0123456789abcdef").unwrap();
        assert_eq!(tags(&Selector::Credential(fingerprint)), ["credential:0123456789abcdef"]);
        assert_eq!(tags(&Selector::Route(text("/api/0/{a}/"))), ["route:/api/0/{a}/"]);
        assert_eq!(tags(&Selector::Tag(text("release:acme/a b/c"))), ["release:acme/a%20b%2Fc"]);
        assert_eq!(tags(&Selector::Everything), ["everything"]);
    }

    #[test]
    fn what_cannot_be_understood_means_nothing() {
        let error = |selector: &Selector| selector.tags().unwrap_err();
        for url in ["", "acme", "sentry.io", "/a b"] {
            assert_eq!(error(&Selector::Url(text(url))), SelectorError::Url, "{url}");
        }
        for name in ["", "acme/web", " acme", "//evil/x", "ä"] {
            assert_eq!(error(&Selector::Organization(text(name))), SelectorError::Organization);
        }
        assert_eq!(error(&Selector::Tag(text("acme"))), SelectorError::Tag);
    }
}
