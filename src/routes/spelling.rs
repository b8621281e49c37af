//! Spells paths in one way: what stands for itself is plain, everything else escaped. Pure.
//!
//! Invariant: two paths of one normal spelling are the same to Sentry; an escaped slash never becomes one that parts.
//! Not here: which paths may be read in two ways (`admission::path`), queries (`cache::key`).

/// Bytes that stand for themselves in a path, besides letters and digits ([RFC 3986 §3.3]).
///
/// [RFC 3986 §3.3]: https://www.rfc-editor.org/rfc/rfc3986#section-3.3
const PLAIN_IN_PATH: &[u8] = b"-._~!$&'()*+,;=:@";

/// Returns the normalized spelling of a path: what stands for itself is plain, everything else escaped.
pub fn normalized_path(path: &str) -> String {
    let mut normalized = String::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match escape(first, after) {
            Some(decoded) => {
                rest = after.get(2..).unwrap_or_default();
                push(&mut normalized, decoded, PLAIN_IN_PATH);
            }
            None if first == b'/' => normalized.push('/'),
            None => push(&mut normalized, first, PLAIN_IN_PATH),
        }
    }
    normalized
}

/// Decodes `%XX`, given its first byte and what follows; `None` where it is no escape.
pub fn escape(first: u8, after: &[u8]) -> Option<u8> {
    let (b'%', [high, low, ..]) = (first, after) else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok());
    Some(digit(*high)? << 4 | digit(*low)?)
}

/// Writes a byte as it is where it stands for itself, and as an escape elsewhere.
pub fn push(text: &mut String, byte: u8, plain: &[u8]) {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    if byte.is_ascii_alphanumeric() || plain.contains(&byte) {
        text.push(char::from(byte));
    } else {
        text.push('%');
        text.extend([byte >> 4, byte & 15].iter().filter_map(|digit| DIGITS.get(usize::from(*digit))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_unify_what_stands_for_itself_and_keep_slashes_apart() {
        assert_eq!(normalized_path("/releases/web%401.0/"), normalized_path("/releases/web@1.0/"));
        assert_eq!(normalized_path("/%7Eme/%61"), "/~me/a");
        assert_eq!(normalized_path("/a%2fb/"), "/a%2Fb/");
        assert_ne!(normalized_path("/a%2Fb/"), normalized_path("/a/b/"));
        assert_ne!(normalized_path("/a%25b/"), normalized_path("/a%b/").replace("%25", "%"));
    }
}
