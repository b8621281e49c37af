//! Words for what is wrong with a configuration: what was expected, what was found, what was perhaps meant.
//!
//! Invariant: the value of a secret key, or a text that may carry a password, is never part of the words.
//! Not here: finding out that something is wrong (`load`, `validate`).

use figment::error::Kind;
use figment::value::{Empty, Value};

/// What every environment variable of ours begins with.
pub const ENVIRONMENT_PREFIX: &str = "SENTRYBOX_";

/// Longest part of a found value that is repeated.
const MAX_FOUND: usize = 80;

/// Returns the environment variable that sets `key`: `cache.max_bytes` is `SENTRYBOX_CACHE__MAX_BYTES`.
pub fn variable(key: &str) -> String {
    format!("{ENVIRONMENT_PREFIX}{}", key.replace('.', "__").to_uppercase())
}

/// Returns what serde wanted, in words that a reader of `default.toml` knows.
pub fn expectation(kind: &Kind) -> String {
    match kind {
        Kind::UnknownVariant(_, known) => format!("expected one of {}", listed(known)),
        Kind::UnknownField(_, known) => format!("unknown key; expected one of {}", listed(known)),
        Kind::MissingField(_) => "expected a value, and it is missing".to_owned(),
        Kind::InvalidType(_, wanted)
        | Kind::InvalidValue(_, wanted)
        | Kind::InvalidLength(_, wanted)
        | Kind::Message(wanted) => format!("expected {}", plain(wanted)),
        _ => "expected a value of another type".to_owned(),
    }
}

/// Translates the phrases of serde and of the crates that parse durations, sizes, addresses and networks.
fn plain(wanted: &str) -> &str {
    match wanted {
        "a duration" => "a duration such as \"30s\" or \"5m\"",
        "an integer or string" | "parsable string" | "integer overflow" => "a size such as \"64MiB\"",
        "a boolean" => "true or false",
        "a string" | "path string" => "a text in quotes",
        "a sequence" => "a list",
        "usize" | "u64" | "u32" => "a whole number",
        "f64" => "a number",
        _ if wanted.contains("socket address") => "an IP address and port such as \"127.0.0.1:9000\"",
        _ if wanted.contains("IP address") || wanted.contains("network") => {
            "a network such as \"10.0.0.0/8\""
        }
        _ if wanted.starts_with("struct RuleConfig") => {
            "a rule: a table with `route`, and `class` or `never`"
        }
        _ if wanted.starts_with("struct ") => "a section with keys of its own",
        _ => wanted,
    }
}

/// Returns `, found …`, or nothing where the value must not be repeated.
pub fn found(key: &str, value: &Value) -> String {
    if is_secret(key) {
        return String::new();
    }
    match value {
        Value::String(_, text) => found_text(text),
        Value::Char(_, text) => found_text(&text.to_string()),
        Value::Bool(_, value) => format!(", found {value}"),
        Value::Num(_, number) => match (number.to_i128(), number.to_u128(), number.to_f64()) {
            (Some(number), _, _) => format!(", found {number}"),
            (None, Some(number), _) => format!(", found {number}"),
            (None, None, Some(number)) => format!(", found {number}"),
            (None, None, None) => String::new(),
        },
        Value::Empty(_, Empty::None | Empty::Unit) => ", found nothing".to_owned(),
        Value::Dict(..) => ", found a section".to_owned(),
        Value::Array(..) => ", found a list".to_owned(),
    }
}

/// Returns `, found "…"`, shortened; nothing when the text may carry a password, as in `https://user:pass@host`.
pub fn found_text(text: &str) -> String {
    if text.contains('@') {
        return String::new();
    }
    let shortened: String = text.chars().take(MAX_FOUND).collect();
    let ellipsis = if shortened.len() < text.len() { "…" } else { "" };
    format!(", found {shortened:?}{ellipsis}")
}

/// Returns whether the values of `key` are secret, judged by its last segment; or may be, because somebody has written a
/// token where its fingerprint belongs.
fn is_secret(key: &str) -> bool {
    let name = key.rsplit('.').next().unwrap_or(key);
    key.starts_with("budget.aliases.")
        || key.starts_with("access.credentials")
        || key.starts_with("traces.headers")
        || ["secret", "token", "password"].iter().any(|word| name.contains(word))
}

/// Returns a list of words for people: `a`, `b`, `c`.
pub fn listed<T: AsRef<str>>(words: &[T]) -> String {
    words.iter().map(|word| format!("`{}`", word.as_ref())).collect::<Vec<_>>().join(", ")
}

/// Returns the one of `known` that `given` was perhaps meant to be; case and separators count little.
pub fn closest<'a>(given: &str, known: &'a [String]) -> Option<&'a str> {
    let given = letters(given);
    let allowed = (given.chars().count() / 4).clamp(1, 4);
    known
        .iter()
        .map(|candidate| (distance(&given, &letters(candidate)), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate.as_str())
}

fn letters(key: &str) -> String {
    key.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect()
}

/// Returns the Levenshtein distance, row by row.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.chars().count()).collect();
    for (index, from) in left.chars().enumerate() {
        let mut next = vec![index + 1];
        for (to, above) in right.chars().zip(row.windows(2)) {
            let &[diagonal, up] = above else { continue };
            let before = next.last().copied().unwrap_or_default();
            next.push((diagonal + usize::from(from != to)).min(up + 1).min(before + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_in_the_place_of_its_fingerprint_is_not_repeated() {
        for key in ["budget.aliases.alice", "budget.aliases.alice.0", "access.credentials.0"] {
            assert_eq!(found(key, &Value::from("sntryu_canary")), "");
        }
    }

    #[test]
    fn the_distance_counts_insertions_deletions_and_replacements() {
        for (left, right, expected) in
            [("", "", 0), ("abc", "", 3), ("kitten", "sitting", 3), ("flaw", "lawn", 2)]
        {
            assert_eq!(distance(left, right), expected, "{left} {right}");
        }
    }

    #[test]
    fn the_closest_key_is_named_and_a_stranger_has_none() {
        let known = ["listen.address".to_owned(), "cache.max_bytes".to_owned()];
        assert_eq!(closest("listen_address", &known), Some("listen.address"));
        assert_eq!(closest("cache.max_byte", &known), Some("cache.max_bytes"));
        assert_eq!(closest("zebra", &known), None);
    }

    #[test]
    fn what_may_be_secret_is_not_repeated() {
        assert_eq!(found("secret", &Value::from(12345_u32)), "");
        assert_eq!(found("admin.token", &Value::from("hunter2")), "");
        assert_eq!(found("upstream.url", &Value::from("https://user:hunter2@sentry.io")), "");
        assert_eq!(found("upstream.region", &Value::from("moon")), ", found \"moon\"");
        assert_eq!(found("budget.max_concurrent", &Value::from(-1_i32)), ", found -1");
    }
}
