//! The path guard: refuses what two servers could read in two ways.
//!
//! Invariant: nothing is ever fixed; what passes is sent as it was spelled. Not here: which paths are served.

use crate::handling::{Refusal, RefusalReason};
use crate::routes::template::decoded;

/// Most segments of a path, the empty ones at both ends included. Sentry's deepest have a dozen; each is looked at with all
/// before it.
const MOST_SEGMENTS: usize = 48;

/// Refuses a path that two servers could read in two ways. Nothing is ever fixed: what passes is sent as it is.
pub fn check(path: &str) -> Result<(), Refusal> {
    const UNSAFE: Refusal = Refusal::new(
        RefusalReason::UnsafePath,
        "The path holds dot segments, doubled slashes, control characters or broken escapes.",
    );
    if path.contains("//") || !path.starts_with('/') {
        return Err(UNSAFE);
    }
    if path.split('/').nth(MOST_SEGMENTS).is_some() {
        return Err(Refusal::new(
            RefusalReason::UnsafePath,
            "The path has more segments than any of Sentry's.",
        ));
    }
    path.split('/').try_for_each(|segment| check_segment(segment).ok_or(UNSAFE))?;
    // A slug never holds a slash. Upstream's server decodes `%2F` before it routes, so that here one would hide which
    // organization, project or team the path is about.
    if (path.contains('%') || !path.is_ascii()) && owners(path).any(hides_an_owner) {
        return Err(UNSAFE);
    }
    Ok(())
}

/// Returns whether a name may be read as another one: it holds an escaped slash, or what is no ASCII, of which Sentry takes
/// some for digits.
fn hides_an_owner(segment: &str) -> bool {
    decoded(segment).any(|byte| byte == b'/' || !byte.is_ascii())
}

/// Returns the segments that name an organization, and a project or team of it, however the path spells what they are.
fn owners(path: &str) -> impl Iterator<Item = &str> {
    let mut segments = path.split('/').skip(1);
    let mut plain = || decoded(segments.next().unwrap_or_default()).collect::<Vec<u8>>();
    let count = match (plain().as_slice(), plain().as_slice(), plain().as_slice()) {
        (b"api", b"0", b"organizations") => 1,
        (b"api", b"0", b"projects" | b"teams") => 2,
        _ => 0,
    };
    segments.take(count)
}

/// Returns `None` for a segment that is unsafe as it stands or once it is decoded.
fn check_segment(segment: &str) -> Option<()> {
    // A segment that decodes to several (`a%2F..`) is checked part by part: upstream's server decodes before it
    // routes. `%2F` itself is fine: release names hold it.
    let mut part = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        let decoded = match byte {
            b'%' => hexadecimal(bytes.next()?)? << 4 | hexadecimal(bytes.next()?)?,
            other => other,
        };
        if decoded.is_ascii_control() || decoded == b'\\' {
            return None;
        }
        if decoded == b'/' {
            is_plain(&part).then_some(())?;
            part.clear();
        } else {
            part.push(decoded);
        }
    }
    is_plain(&part).then_some(())
}

fn is_plain(part: &[u8]) -> bool {
    !matches!(part, b"." | b"..")
}

fn hexadecimal(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_could_be_read_in_two_ways_is_refused() {
        for path in [
            "/api/0/../x/",
            "/api/0/./x/",
            "/api/0/x/..",
            "/api/0/%2e%2e/x/",
            "/api/0/.%2E/x/",
            "/api/0/a%2F../x/",
            "/api/0/a%2f%2e%2e%2Fx/",
            "/api/0/..%2f/",
            "/api/0//x/",
            "/api/0/organizations/acme%2Fmembers%2F5/",
            "/api/0/projects/acme/web%2fkeys/",
            "/api/0/teams/a%2Fb/",
            "/api/0/%6frganizations/acme%2Fmembers%2F5/",
            "/%61pi/%30/projects/acme/web%2fkeys/",
            "/api/0/organizations/%D9%A4%D9%A2/",
            "/api/0/projects/acme/%C3%A9/",
            "/api/0/organizations/٤٢/",
            "/api/0/projects/acme/é/",
            "/api/0/%00/",
            "/api/0/a%0ab/",
            "/api/0/a%7F/",
            "/api/0/a%5cb/",
            "/api/0/a\\b/",
            "/api/0/%/",
            "/api/0/%2/",
            "/api/0/%zz/",
            "api/0/",
        ] {
            assert!(check(path).is_err(), "{path}");
        }
    }

    #[test]
    fn a_path_is_no_deeper_than_any_of_sentrys() {
        let deep = |segments: usize| format!("/api/0/organizations/acme/{}", "a/".repeat(segments));
        assert!(check(&deep(40)).is_ok());
        assert!(check(&deep(MOST_SEGMENTS)).is_err());
    }

    #[test]
    fn a_path_with_one_reading_passes_as_it_is() {
        for path in [
            "/api/0/organizations/",
            "/api/0/organizations/acme/releases/web%2F1.0+2@x/",
            "/api/0/organizations/acme/releases/...%252e/",
            "/api/0/organizations/acme/scim/v2/Users",
            "/api/0/organizations/a.b/.../..x/",
            "/api/0/organizations/acme/releases/%E2%82%AC/",
        ] {
            assert!(check(path).is_ok(), "{path}");
        }
    }
}
