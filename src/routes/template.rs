//! Reads route templates, and tells whether a segment fits one.
//!
//! A template is a path in which `{name}` stands for one segment or a part of one (`{project}:{event}`), and
//! `{*rest}`, at the end only, for whatever follows the slash before it, nothing included. All else is literal.
//!
//! Invariant: a [`Template`] has no two names side by side and no literal that an admitted path cannot hold.
//! Not here: choosing between templates (`tree`).

use std::iter;

use thiserror::Error;

/// A route template, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    segments: Vec<Segment>,
}

/// What stands between two slashes of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Text that a segment must spell.
    Literal(String),
    /// Text and names that a segment must fit.
    Pattern(Vec<Part>),
    /// `{*rest}`.
    Rest,
}

/// A piece of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Text.
    Literal(String),
    /// `{name}`: one character or more.
    Name,
}

/// Why a text is no template, in the words of what was expected instead.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// The text does not start with a slash.
    #[error("a path from the root, such as /api/0/organizations/{{organization}}/projects/")]
    Relative,
    /// A segment is empty, `.` or `..`.
    #[error("a path without empty and dot segments, which no request has")]
    UnknownSegment,
    /// A character that a path does not hold, or only escaped.
    #[error("a path without query, spaces and escapes, and so without {0:?}")]
    Character(char),
    /// A brace without its partner.
    #[error("every {{ closed by a }} in the same segment")]
    Brace,
    /// A name that is none.
    #[error("a name of letters, digits and _ in every pair of braces")]
    Name,
    /// A name that stands twice.
    #[error("every name once, but {{{0}}} stands twice")]
    DuplicateName(String),
    /// Two names without text between them.
    #[error("text between two names in one segment")]
    AdjacentNames,
    /// `{*rest}` anywhere but at the end.
    #[error("{{*rest}} only as the whole last segment")]
    RestNotLast,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong with it.
    pub fn parse(route: &str) -> Result<Self, TemplateError> {
        let path = route.strip_prefix('/').ok_or(TemplateError::Relative)?;
        if let Some(wrong) = route.chars().find(|character| is_foreign(*character)) {
            return Err(TemplateError::Character(wrong));
        }
        let texts: Vec<_> = path.split('/').collect();
        let last = texts.len().saturating_sub(1);
        let mut names = Vec::new();
        let mut segments = Vec::with_capacity(texts.len());
        for (position, text) in texts.into_iter().enumerate() {
            let segment = parse_segment(text, &mut names)?;
            if position < last && segment == Segment::Rest {
                return Err(TemplateError::RestNotLast);
            }
            if matches!(text, "." | "..") || (position < last && text.is_empty()) {
                return Err(TemplateError::UnknownSegment);
            }
            segments.push(segment);
        }
        Ok(Self { segments })
    }

    /// Returns the segments in order; a trailing slash leaves an empty literal at the end.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }
}

/// Returns whether a character has no place in a template.
fn is_foreign(character: char) -> bool {
    matches!(character, '%' | '?' | '#' | '\\') || character.is_whitespace() || character.is_control()
}

fn parse_segment<'a>(text: &'a str, names: &mut Vec<&'a str>) -> Result<Segment, TemplateError> {
    if let Some(name) = text.strip_prefix("{*").and_then(|rest| rest.strip_suffix('}')) {
        return add_name(name, names).map(|()| Segment::Rest);
    }
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((literal, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').ok_or(TemplateError::Brace)?;
        add_literal(literal, &mut parts)?;
        if parts.last() == Some(&Part::Name) {
            return Err(TemplateError::AdjacentNames);
        }
        add_name(name, names)?;
        parts.push(Part::Name);
        rest = after;
    }
    if parts.is_empty() && !rest.contains('}') {
        return Ok(Segment::Literal(rest.to_owned()));
    }
    add_literal(rest, &mut parts)?;
    Ok(Segment::Pattern(parts))
}

fn add_literal(literal: &str, parts: &mut Vec<Part>) -> Result<(), TemplateError> {
    if literal.contains('}') {
        return Err(TemplateError::Brace);
    }
    if !literal.is_empty() {
        parts.push(Part::Literal(literal.to_owned()));
    }
    Ok(())
}

fn add_name<'a>(name: &'a str, names: &mut Vec<&'a str>) -> Result<(), TemplateError> {
    if name.starts_with('*') {
        return Err(TemplateError::RestNotLast);
    }
    if name.contains('{') {
        return Err(TemplateError::Brace);
    }
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Err(TemplateError::Name);
    }
    if names.contains(&name) {
        return Err(TemplateError::DuplicateName(name.to_owned()));
    }
    names.push(name);
    Ok(())
}

/// Returns whether a segment, as spelled in a path, fits the parts of a pattern.
///
/// Text between two names is taken where it stands first, which finds a fit if there is one.
pub fn fits(parts: &[Part], segment: &str) -> bool {
    fits_bytes(parts, segment.as_bytes())
}

fn fits_bytes(parts: &[Part], spelled: &[u8]) -> bool {
    match parts {
        [] => spelled.is_empty(),
        [Part::Name] => !spelled.is_empty(),
        [Part::Literal(literal), rest @ ..] => {
            after_literal(literal, spelled).is_some_and(|tail| fits_bytes(rest, tail))
        }
        [Part::Name, Part::Literal(literal)] => {
            tails(spelled).any(|tail| after_literal(literal, tail).is_some_and(<[u8]>::is_empty))
        }
        [Part::Name, Part::Literal(literal), rest @ ..] => tails(spelled)
            .find_map(|tail| after_literal(literal, tail))
            .is_some_and(|tail| fits_bytes(rest, tail)),
        [Part::Name, Part::Name, ..] => false,
    }
}

/// Returns what is left of a text after its first character, after its second, and so on.
fn tails(spelled: &[u8]) -> impl Iterator<Item = &[u8]> {
    let after_first = |spelled| split_first(spelled).map(|(_, tail)| tail);
    iter::successors(after_first(spelled), move |tail| after_first(tail))
}

/// Returns what follows a literal at the start of a text.
fn after_literal<'a>(literal: &str, spelled: &'a [u8]) -> Option<&'a [u8]> {
    literal.bytes().try_fold(spelled, |rest, expected| match split_first(rest) {
        Some((byte, tail)) if byte == expected => Some(tail),
        Some(_) | None => None,
    })
}

/// Returns the bytes that a text stands for: its escapes resolved, a broken escape left as it is.
pub fn decoded(spelled: &str) -> impl Iterator<Item = u8> {
    let mut rest = spelled.as_bytes();
    iter::from_fn(move || {
        let (byte, tail) = split_first(rest)?;
        rest = tail;
        Some(byte)
    })
}

/// Splits off the first byte that a text stands for.
fn split_first(spelled: &[u8]) -> Option<(u8, &[u8])> {
    // "A percent-encoded octet is encoded as a character triplet, consisting of the percent character "%"
    // followed by the two hexadecimal digits representing that octet's numeric value" (RFC 3986 §2.1).
    if let [b'%', high, low, tail @ ..] = spelled
        && let (Some(high), Some(low)) = (hexadecimal(*high), hexadecimal(*low))
    {
        return Some((high << 4 | low, tail));
    }
    spelled.split_first().map(|(byte, tail)| (*byte, tail))
}

fn hexadecimal(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check_error(route: &str, expected: &TemplateError) {
        assert_eq!(Template::parse(route).as_ref(), Err(expected), "{route}");
    }

    fn is_fit(pattern: &str, segment: &str) -> bool {
        let template = Template::parse(&format!("/{pattern}")).unwrap();
        let [Segment::Pattern(parts)] = template.segments() else { panic!("{pattern} is one pattern") };
        fits(parts, segment)
    }

    #[track_caller]
    fn check_fit(pattern: &str, segment: &str) {
        assert!(is_fit(pattern, segment), "{segment} fits {pattern}");
    }

    #[track_caller]
    fn check_misfit(pattern: &str, segment: &str) {
        assert!(!is_fit(pattern, segment), "{segment} does not fit {pattern}");
    }

    #[test]
    fn a_template_is_read_segment_by_segment() {
        let template = Template::parse("/api/{a}/x-{b}:{c}/{*rest}").unwrap();
        let expected = [
            Segment::Literal("api".to_owned()),
            Segment::Pattern(vec![Part::Name]),
            Segment::Pattern(vec![
                Part::Literal("x-".to_owned()),
                Part::Name,
                Part::Literal(":".to_owned()),
                Part::Name,
            ]),
            Segment::Rest,
        ];
        assert_eq!(template.segments(), expected);
    }

    #[test]
    fn a_trailing_slash_is_an_empty_segment() {
        let slash = Segment::Literal(String::new());
        assert_eq!(Template::parse("/").unwrap().segments(), std::slice::from_ref(&slash));
        assert_eq!(Template::parse("/a/").unwrap().segments().last(), Some(&slash));
    }

    #[test]
    fn what_is_no_template_is_refused() {
        check_error("", &TemplateError::Relative);
        check_error("api/0/", &TemplateError::Relative);
        check_error("https://sentry.io/api/0/", &TemplateError::Relative);
        check_error("//", &TemplateError::UnknownSegment);
        check_error("/a//b/", &TemplateError::UnknownSegment);
        check_error("/a/../b/", &TemplateError::UnknownSegment);
        check_error("/a/.", &TemplateError::UnknownSegment);
        check_error("/a/?b", &TemplateError::Character('?'));
        check_error("/a%2Fb/", &TemplateError::Character('%'));
        check_error("/a b/", &TemplateError::Character(' '));
        check_error("/{a", &TemplateError::Brace);
        check_error("/{a/b}/", &TemplateError::Brace);
        check_error("/a}/", &TemplateError::Brace);
        check_error("/a}{b}/", &TemplateError::Brace);
        check_error("/{a}}/", &TemplateError::Brace);
        check_error("/{{a}}/", &TemplateError::Brace);
        check_error("/{}/", &TemplateError::Name);
        check_error("/{a-b}/", &TemplateError::Name);
        check_error("/{*}", &TemplateError::Name);
        check_error("/{a}{b}/", &TemplateError::AdjacentNames);
        check_error("/{a}/{b}/{a}/", &TemplateError::DuplicateName("a".to_owned()));
        check_error("/{a}/{*a}", &TemplateError::DuplicateName("a".to_owned()));
        check_error("/{*rest}/", &TemplateError::RestNotLast);
        check_error("/a-{*rest}", &TemplateError::RestNotLast);
    }

    #[test]
    fn an_error_says_what_was_expected() {
        let message = |route| Template::parse(route).unwrap_err().to_string();
        assert_eq!(
            message("x"),
            "a path from the root, such as /api/0/organizations/{organization}/projects/"
        );
        assert_eq!(message("/{a}/{a}"), "every name once, but {a} stands twice");
        assert_eq!(message("/{a"), "every { closed by a } in the same segment");
    }

    #[test]
    fn a_name_stands_for_one_character_or_more() {
        check_fit("{a}", "x");
        check_fit("{a}", "%2F");
        check_misfit("{a}", "");
        check_fit("{a}:{b}", "web:1");
        check_fit("{a}:{b}", "a:b:c");
        check_misfit("{a}:{b}", ":1");
        check_misfit("{a}:{b}", "web:");
        check_misfit("{a}:{b}", "web");
        check_misfit("explorer-{a}", "explorer-");
        check_fit("explorer-{a}", "%65xplorer-chat");
    }

    #[test]
    fn text_at_the_end_is_looked_for_at_the_end() {
        check_fit("{a}.json", "x.json");
        check_fit("{a}.json", "x.json.json");
        check_misfit("{a}.json", "x.jsonl");
        check_fit("{a}.{b}.json", "x.json.y%2Ejson");
        check_misfit("{a}.{b}.json", "x.json");
    }

    proptest! {
        #[test]
        fn a_segment_fits_as_regular_expressions_have_it(segment in "[ab:]{0,8}") {
            // `.+a.+` fits where an `a` has something on both sides.
            let inner = segment.get(1..segment.len().max(2) - 1).unwrap_or_default();
            prop_assert_eq!(is_fit("{x}a{y}", &segment), inner.contains('a'));
            prop_assert_eq!(is_fit("{x}a", &segment), segment.len() > 1 && segment.ends_with('a'));
        }

        #[test]
        fn parsing_never_panics(route in "/?[a{}*/.%]{0,12}") {
            let _ = Template::parse(&route);
        }
    }
}
