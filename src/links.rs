//! Points `Link` and `Location` back at this proxy: replaces the scheme and authority of Sentry's URLs, and
//! nothing else.
//!
//! Sentry builds these URLs from its own settings, not from the request, so one upstream names several hosts:
//! what counts is whether the host is known and the path is one of the API's.
//!
//! Invariants: path, query, attribute order, spacing and quotes stay byte for byte; rewriting twice is rewriting
//! once; no value makes this panic or take more than linear time; unknown hosts are left alone.
//! Not here: which base a client gets (`regions`, `proxy`), bodies ([`region_urls`]).

use std::iter;
use std::ops::Range;

use http::HeaderValue;

pub mod region_urls;

/// Host that is known together with all of its subdomains.
const SENTRY: &str = "sentry.io";

/// What the path of a URL in `Link` starts with, if it is one of ours to serve.
const LINK_PATHS: &[&[u8]] = &[b"/api/0/"];

/// The same for `Location`, where logging in redirects, too.
const LOCATION_PATHS: &[&[u8]] = &[b"/api/0/", b"/oauth/"];

/// The hosts whose URLs lead back through this proxy: `sentry.io`, all below it, and what was configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownHosts {
    configured: Vec<Authority>,
}

/// A host with its port, comparable: in lower case, a default port left out.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Authority {
    host: String,
    port: String,
}

impl KnownHosts {
    /// Returns the known hosts for configured authorities: of the upstreams, and the further link hosts.
    ///
    /// An authority is `host` or `host:port`; an empty one names nothing.
    pub fn new(authorities: impl Iterator<Item = String>) -> Self {
        let configured = authorities
            .filter(|authority| !authority.is_empty())
            .map(|authority| {
                let (host, port) = split_port(&authority);
                Authority { host: host.to_ascii_lowercase(), port: port.to_owned() }
            })
            .collect();
        Self { configured }
    }

    /// Returns whether an authority is known: host without regard to case, and the same port.
    ///
    /// Port 80 and 443 are as good as none, whatever the scheme. Anything with userinfo is unknown, because it
    /// is made to be mistaken for another host.
    pub fn is_known(&self, authority: &str) -> bool {
        let (host, port) = split_port(authority);
        let is_configured = |known: &Authority| known.host.eq_ignore_ascii_case(host) && known.port == port;
        !authority.contains('@')
            && ((port.is_empty() && is_sentry(host)) || self.configured.iter().any(is_configured))
    }
}

/// Splits an authority into host and port; a default port and an empty one are none.
fn split_port(authority: &str) -> (&str, &str) {
    match authority.rsplit_once(':') {
        Some((host, "" | "80" | "443")) => (host, ""),
        // The last colon of an IPv6 address without a port stands before a bracket: `[::1]`.
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, port),
        Some(_) | None => (authority, ""),
    }
}

/// Returns whether a host is `sentry.io` or a name below it.
fn is_sentry(host: &str) -> bool {
    let Some((below, domain)) = host.len().checked_sub(SENTRY.len()).and_then(|at| host.split_at_checked(at))
    else {
        return false;
    };
    domain.eq_ignore_ascii_case(SENTRY)
        && (below.is_empty()
            || below.strip_suffix('.').is_some_and(|names| names.split('.').all(is_host_label)))
}

fn is_host_label(label: &str) -> bool {
    !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// Returns a `Link` value whose known API URLs start with `base` (`scheme://authority`); none if nothing changes.
///
/// A value that stops making sense is left alone from there on.
pub fn rewrite_link(value: &HeaderValue, base: &str, known: &KnownHosts) -> Option<HeaderValue> {
    let bytes = value.as_bytes();
    let origins = targets(bytes).into_iter().filter_map(|target| {
        let length = known_origin(bytes.get(target.clone())?, known, LINK_PATHS)?;
        Some(target.start..target.start + length)
    });
    replace(bytes, origins, base)
}

/// Returns a `Location` value that starts with `base` (`scheme://authority`); none if it is not ours to change.
pub fn rewrite_location(value: &HeaderValue, base: &str, known: &KnownHosts) -> Option<HeaderValue> {
    let length = known_origin(value.as_bytes(), known, LOCATION_PATHS)?;
    replace(value.as_bytes(), iter::once(0..length), base)
}

/// Returns the length of a URL's scheme and authority, if these are to be replaced.
fn known_origin(url: &[u8], known: &KnownHosts, paths: &[&[u8]]) -> Option<usize> {
    let (authority, path) = split_origin(url)?;
    let is_ours = paths.iter().any(|start| path.starts_with(start))
        && str::from_utf8(authority).is_ok_and(|authority| known.is_known(authority));
    is_ours.then_some(url.len() - path.len())
}

/// Splits an absolute http or https URL into its authority and all that follows it.
fn split_origin(url: &[u8]) -> Option<(&[u8], &[u8])> {
    // "An implementation should accept uppercase letters as equivalent to lowercase in scheme names"
    // (RFC 3986 §3.1).
    let after_scheme = ["https://", "http://"].iter().find_map(|scheme| {
        let (start, rest) = url.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme.as_bytes()).then_some(rest)
    })?;
    // "The authority component [..] is terminated by the next slash ("/"), question mark ("?"), or number sign
    // ("#") character, or by the end of the URI" (RFC 3986 §3.2).
    let end = after_scheme.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#'));
    after_scheme.split_at_checked(end.unwrap_or(after_scheme.len()))
}

/// Puts `base` in the place of every range; none if that changes nothing.
fn replace(bytes: &[u8], ranges: impl Iterator<Item = Range<usize>>, base: &str) -> Option<HeaderValue> {
    let mut rewritten = Vec::with_capacity(bytes.len() + base.len());
    let mut copied = 0;
    for range in ranges {
        rewritten.extend_from_slice(bytes.get(copied..range.start)?);
        rewritten.extend_from_slice(base.as_bytes());
        copied = range.end;
    }
    rewritten.extend_from_slice(bytes.get(copied..)?);
    if rewritten == bytes { None } else { HeaderValue::from_maybe_shared(bytes::Bytes::from(rewritten)).ok() }
}

/// Returns where the targets of a `Link` value stand, without their angle brackets, as far as it makes sense.
fn targets(value: &[u8]) -> Vec<Range<usize>> {
    // "Link = #link-value" (RFC 8288 §3).
    let mut targets = Vec::new();
    let mut rest = value;
    while let Some((target, after)) = split_target(rest) {
        let end = value.len() - after.len() - b">".len();
        targets.push(end - target.len()..end);
        let Some(next) = after_parameters(after) else { break };
        rest = next;
    }
    targets
}

/// Splits the first target of a list from all that follows its closing bracket.
fn split_target(list: &[u8]) -> Option<(&[u8], &[u8])> {
    // "A recipient MUST parse and ignore a reasonable number of empty list elements" (RFC 9110 §5.6.1.2).
    let start = list.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b','))?;
    // "link-value = "<" URI-Reference ">" *( OWS ";" OWS [ link-param ] )" (RFC 8288 §3).
    let target = list.get(start..)?.strip_prefix(b"<")?;
    let end = closing_bracket(target)?;
    Some((target.get(..end)?, target.get(end + 1..)?))
}

/// Returns where the bracket is that closes a target: the first one with the end, `;` or `,` behind it.
///
/// A URI has no `>`, but Sentry does not escape cursors, and a string cursor may hold anything.
fn closing_bracket(target: &[u8]) -> Option<usize> {
    target.iter().enumerate().filter(|(_, byte)| **byte == b'>').map(|(position, _)| position).find(
        |position| {
            let after = target.get(position + 1..).unwrap_or_default().trim_ascii_start();
            matches!(after.first(), None | Some(b';' | b','))
        },
    )
}

/// Returns what follows the parameters of a target: the end, or a comma and the next one; none if they are broken.
fn after_parameters(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        rest = rest.trim_ascii_start();
        match rest.split_first() {
            None | Some((b',', _)) => return Some(rest),
            Some((b';', parameter)) => rest = after_parameter(parameter.trim_ascii_start())?,
            Some(_) => return None,
        }
    }
}

/// Returns what follows one parameter, which may be empty.
fn after_parameter(parameter: &[u8]) -> Option<&[u8]> {
    // "link-param = token BWS [ "=" BWS ( token / quoted-string ) ]" (RFC 8288 §3).
    let after_name = after_text(parameter, b"=");
    let Some(value) = after_name.trim_ascii_start().strip_prefix(b"=") else { return Some(after_name) };
    if after_name.len() == parameter.len() {
        return None;
    }
    let value = value.trim_ascii_start();
    match value.strip_prefix(b"\"") {
        Some(quoted) => after_quoted(quoted),
        None => Some(after_text(value, b"")),
    }
}

/// Returns what follows a run of bytes without delimiters; `also` holds further ones.
fn after_text<'a>(text: &'a [u8], also: &[u8]) -> &'a [u8] {
    let is_delimiter =
        |byte: &u8| matches!(byte, b' ' | b'\t' | b',' | b';' | b'"' | b'<' | b'>') || also.contains(byte);
    let end = text.iter().position(is_delimiter).unwrap_or(text.len());
    text.get(end..).unwrap_or_default()
}

/// Returns what follows the quote that ends a quoted string; none if nothing ends it.
fn after_quoted(mut quoted: &[u8]) -> Option<&[u8]> {
    loop {
        let (byte, rest) = quoted.split_first()?;
        match byte {
            b'"' => return Some(rest),
            // "quoted-pair = "\" ( HTAB / SP / VCHAR / obs-text )" (RFC 9110 §5.6.4).
            b'\\' => quoted = rest.split_first()?.1,
            _ => quoted = rest,
        }
    }
}

#[cfg(test)]
mod tests {
    use nom_rfc8288::complete::link_strict;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const BASE: &str = "http://127.0.0.1:9000";

    fn known() -> KnownHosts {
        let configured = ["sentry.example:8443", "Self-Hosted.example", "[::1]:9000", "plain.example:80", ""];
        KnownHosts::new(configured.into_iter().map(str::to_owned))
    }

    fn link(value: &[u8], base: &str) -> Option<Vec<u8>> {
        let value = HeaderValue::from_bytes(value).unwrap();
        rewrite_link(&value, base, &known()).map(|rewritten| rewritten.as_bytes().to_vec())
    }

    #[track_caller]
    fn check_link(value: &str, expected: &str) {
        let rewritten = link(value.as_bytes(), BASE).unwrap_or_else(|| value.as_bytes().to_vec());
        assert_eq!(String::from_utf8_lossy(&rewritten), expected);
    }

    #[track_caller]
    fn check_left_alone(value: &str) {
        assert_eq!(link(value.as_bytes(), BASE), None, "{value}");
    }

    #[track_caller]
    fn check_location(value: &str, expected: Option<&str>) {
        let rewritten = rewrite_location(&HeaderValue::from_str(value).unwrap(), BASE, &known());
        assert_eq!(rewritten.as_ref().map(|value| value.to_str().unwrap()), expected, "{value}");
    }

    #[test]
    fn sentry_and_what_is_below_it_is_known() {
        for authority in
            ["sentry.io", "us.sentry.io", "SENTRY.io", "a.b.Sentry.IO", "sentry.io:443", "de.sentry.io:"]
        {
            assert!(known().is_known(authority), "{authority}");
        }
    }

    #[test]
    fn configured_authorities_are_known_with_their_port() {
        for authority in [
            "sentry.example:8443",
            "self-hosted.example",
            "self-hosted.example:80",
            "PLAIN.example",
            "plain.example:443",
            "[::1]:9000",
        ] {
            assert!(known().is_known(authority), "{authority}");
        }
    }

    #[test]
    fn what_only_looks_alike_is_unknown() {
        for authority in [
            "",
            "evilsentry.io",
            ".sentry.io",
            "a..sentry.io",
            "sentry.io.evil.example",
            "sentry.io.",
            "sentry.io:8080",
            "us.sentry.io:8443",
            "user@sentry.io",
            "sentry.io@evil.example",
            "evil.example\\.sentry.io",
            "evil.example%2f.sentry.io",
            "éa.sentry.io",
            "é",
            "sentry.example",
            "sentry.example:443",
            "self-hosted.example:8080",
            "[::1]",
            "[::1]:9001",
            "io",
        ] {
            assert!(!known().is_known(authority), "{authority}");
        }
    }

    #[test]
    fn only_scheme_and_authority_change() {
        check_link(
            "<https://sentry.io/api/0/organizations/?&cursor=1673071200000:0:1>; rel=\"previous\"; results=\"false\"; cursor=\"1673071200000:0:1\", <https://sentry.io/api/0/organizations/?&cursor=1672711200000:0:0>; rel=\"next\"; results=\"true\"; cursor=\"1672711200000:0:0\"",
            "<http://127.0.0.1:9000/api/0/organizations/?&cursor=1673071200000:0:1>; rel=\"previous\"; results=\"false\"; cursor=\"1673071200000:0:1\", <http://127.0.0.1:9000/api/0/organizations/?&cursor=1672711200000:0:0>; rel=\"next\"; results=\"true\"; cursor=\"1672711200000:0:0\"",
        );
        check_link(
            "  ,<HTTP://US.Sentry.IO/api/0/x/?q=a+b&q=a%20b#f> ;rel=next;;  title*=UTF-8''x ,,<https://self-hosted.example/api/0/y/>",
            "  ,<http://127.0.0.1:9000/api/0/x/?q=a+b&q=a%20b#f> ;rel=next;;  title*=UTF-8''x ,,<http://127.0.0.1:9000/api/0/y/>",
        );
    }

    #[test]
    fn a_quoted_parameter_may_hold_anything() {
        check_link(
            r#"<https://sentry.io/api/0/a/>; cursor="x,<https://sentry.io/api/0/b/>; \"y\\:0:0", <https://sentry.io/api/0/c/>"#,
            r#"<http://127.0.0.1:9000/api/0/a/>; cursor="x,<https://sentry.io/api/0/b/>; \"y\\:0:0", <http://127.0.0.1:9000/api/0/c/>"#,
        );
    }

    #[test]
    fn a_string_cursor_may_hold_anything() {
        check_link(
            r#"<https://sentry.io/api/0/a/?&cursor=x,y;z>w<v:0:1>; rel="previous"; cursor="x,y;z>w<v:0:1", <https://de.sentry.io/api/0/a/?&cursor=b c:0:0>; rel="next""#,
            r#"<http://127.0.0.1:9000/api/0/a/?&cursor=x,y;z>w<v:0:1>; rel="previous"; cursor="x,y;z>w<v:0:1", <http://127.0.0.1:9000/api/0/a/?&cursor=b c:0:0>; rel="next""#,
        );
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        check_left_alone("");
        check_left_alone("<https://evil.example/api/0/organizations/>; rel=\"next\"");
        check_left_alone("<https://user:pass@sentry.io/api/0/organizations/>; rel=\"next\"");
        check_left_alone("<https://sentry.io/organizations/acme/>; rel=\"next\"");
        check_left_alone(
            "<https://sentry.io/api/1/>, <https://sentry.io?/api/0/>, <https://sentry.io#/api/0/>",
        );
        check_left_alone("</api/0/organizations/?cursor=1>; rel=\"next\"");
        check_left_alone("<//sentry.io/api/0/>; rel=\"next\"");
        check_left_alone("<ftp://sentry.io/api/0/>; rel=\"next\"");
        check_left_alone("<https://sentry.io/oauth/token/>; rel=\"next\"");
        check_left_alone("< https://sentry.io/api/0/>; rel=\"next\"");
    }

    #[test]
    fn a_foreign_member_does_not_hide_the_others() {
        check_link(
            "<https://evil.example/api/0/>; rel=a, <https://sentry.io/api/0/>; rel=b",
            "<https://evil.example/api/0/>; rel=a, <http://127.0.0.1:9000/api/0/>; rel=b",
        );
    }

    #[test]
    fn a_broken_value_is_left_alone_from_where_it_breaks() {
        check_left_alone("https://sentry.io/api/0/, <https://sentry.io/api/0/>");
        check_left_alone("<https://sentry.io/api/0/");
        check_left_alone("<https://sentry.io/api/0/>; rel=\"next\"".strip_prefix('<').unwrap());
        for tail in [
            "; rel=\"next, <https://sentry.io/api/0/>",
            "; rel=\"next\\",
            "; =x, <https://sentry.io/api/0/>",
            "; rel=\"a\"b, <https://sentry.io/api/0/>",
            "; a b, <https://sentry.io/api/0/>",
            "; <, <https://sentry.io/api/0/>",
            ", x, <https://sentry.io/api/0/>",
        ] {
            check_link(&format!("<https://sentry.io/api/0/>{tail}"), &format!("<{BASE}/api/0/>{tail}"));
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_kept() {
        let value = b"<https://sentry.io/api/0/\xff>; title=\"\xe9\"; rel=\xfe";
        let expected = b"<http://127.0.0.1:9000/api/0/\xff>; title=\"\xe9\"; rel=\xfe";
        assert_eq!(link(value, BASE).as_deref(), Some(&expected[..]));
        assert_eq!(link(b"<https://sentry.io\xff/api/0/>", BASE), None);
    }

    #[test]
    fn a_value_that_has_the_base_already_does_not_change() {
        assert_eq!(link(b"<https://sentry.io/api/0/>; rel=\"next\"", "https://sentry.io"), None);
    }

    #[test]
    fn a_base_that_is_no_field_value_changes_nothing() {
        assert_eq!(link(b"<https://sentry.io/api/0/>", "http://a\r\nb"), None);
    }

    #[test]
    fn a_megabyte_of_anything_is_scanned_in_one_go() {
        for piece in
            ["<", ">", "> ", "<>", ",", ";", "\"", "\\", "<https://sentry.io/api/0/>,", "<>;a=\"", "; ", " "]
        {
            for start in ["", "<", "<>", "<>;a=\""] {
                let value = format!("{start}{}", piece.repeat((1 << 20) / piece.len()));
                let _ = link(value.as_bytes(), BASE);
            }
        }
    }

    #[test]
    fn a_location_at_a_known_host_is_rewritten() {
        check_location(
            "https://sentry.io/api/0/projects/a/b/?x#y",
            Some("http://127.0.0.1:9000/api/0/projects/a/b/?x#y"),
        );
        check_location("http://de.sentry.io/oauth/token/", Some("http://127.0.0.1:9000/oauth/token/"));
        check_location("https://sentry.io/auth/login/", None);
        check_location("https://evil.example/api/0/", None);
        check_location("/api/0/projects/a/b/", None);
        check_location("https://storage.example/?next=https://sentry.io/api/0/", None);
        check_location("", None);
    }

    fn authority() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("sentry.io".to_owned()),
            Just("us.sentry.io".to_owned()),
            Just("sentry.example:8443".to_owned()),
            Just("evil.example".to_owned()),
            "[a-z]{1,5}(:[0-9]{1,4})?",
        ]
    }

    /// A link-value as RFC 8288 has it, with parameters as Sentry sends them and worse.
    fn link_value() -> impl Strategy<Value = String> {
        let target = ("https?", authority(), "(/api/0)?/[a-z0-9%./?&=:,;@!-]{0,20}");
        let parameter = prop_oneof![
            "[a-z]{1,6}=[a-z0-9:.]{1,6}".prop_filter("a token has no colon", |text| !text.contains(':')),
            r#"[a-z]{1,6}="([ !#-\[\]-~]|\\["\\,;<>a]){0,12}""#,
            "[a-z]{1,6}",
        ];
        (target, vec(("( ?; ?)", parameter), 0..4)).prop_map(|((scheme, authority, path), parameters)| {
            let parameters: String =
                parameters.into_iter().map(|(gap, parameter)| gap + &parameter).collect();
            format!("<{scheme}://{authority}{path}>{parameters}")
        })
    }

    fn base() -> impl Strategy<Value = String> {
        ("https?", authority()).prop_map(|(scheme, authority)| format!("{scheme}://{authority}"))
    }

    fn rewritten(value: &[u8], base: &str) -> Vec<u8> {
        link(value, base).unwrap_or_else(|| value.to_vec())
    }

    fn path_of(url: &str) -> &str {
        let authority = url.split_once("://").unwrap().1;
        &authority[authority.find(['/', '?']).unwrap_or(authority.len())..]
    }

    proptest! {
        #[test]
        fn a_well_formed_value_changes_in_its_origins_alone(values in vec(link_value(), 1..4), base in base()) {
            let value = values.join(", ");
            let after = String::from_utf8(rewritten(value.as_bytes(), &base)).unwrap();
            let (before, after) = (link_strict(&value).unwrap(), link_strict(&after).unwrap());
            prop_assert_eq!(before.len(), after.len());
            for (before, after) in before.into_iter().flatten().zip(after.into_iter().flatten()) {
                prop_assert_eq!(&before.params, &after.params);
                prop_assert_eq!(path_of(before.url), path_of(after.url));
                let (authority, path) = split_origin(before.url.as_bytes()).unwrap();
                let is_ours = known().is_known(str::from_utf8(authority).unwrap()) && path.starts_with(b"/api/0/");
                prop_assert_eq!(is_ours || before.url.starts_with(&base), after.url.starts_with(&base));
                prop_assert!(is_ours || before.url == after.url);
            }
        }

        #[test]
        fn rewriting_twice_is_rewriting_once(values in vec(link_value(), 1..4), base in base(), tail in "[<>;,=\"\\\\ a]{0,6}") {
            let once = rewritten((values.join(",") + &tail).as_bytes(), &base);
            prop_assert_eq!(rewritten(&once, &base), once);
        }

        #[test]
        fn any_bytes_survive_but_for_known_origins(value in vec(prop_oneof![32_u8..127, 128_u8..=255], 0..80), base in base()) {
            prop_assume!(HeaderValue::from_bytes(&value).is_ok());
            let once = rewritten(&value, &base);
            prop_assert_eq!(rewritten(&once, &base), once);
        }

        #[test]
        fn pieces_in_any_order_never_panic(pieces in vec(prop_oneof![
            Just("<"), Just(">"), Just("https://sentry.io/api/0/"), Just(";"), Just(","), Just("a"), Just("="), Just("\""), Just("\\"), Just(" "),
        ], 0..40)) {
            let value = pieces.concat();
            let after = String::from_utf8(rewritten(value.as_bytes(), BASE)).unwrap();
            prop_assert_eq!(after.replace(BASE, "https://sentry.io"), value);
        }
    }
}
