//! What a target asks for, read by other code than the proxy's: an oracle for keys.
//!
//! Segments and words are decoded, `+` is a space in a query, pairs are sorted by name, one empty `cursor` is none.

/// What is asked for, as far as keys are concerned: read by other code than the proxy's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Meaning {
    pub(crate) path: Vec<Vec<u8>>,
    pub(crate) query: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Meaning {
    /// Reads a target.
    pub(crate) fn of(path: &str, query: Option<&str>) -> Self {
        let word = |text: &str| decoded(&text.replace('+', " "));
        let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (word(name), word(value))
        };
        let mut query: Vec<_> = pairs.map(pair).collect();
        if query.iter().filter(|(name, _)| name == b"cursor").count() == 1 {
            query.retain(|(name, value)| name != b"cursor" || !value.is_empty());
        }
        query.sort_by(|(left, _), (right, _)| left.cmp(right));
        Self { path: segments(path), query }
    }
}

/// Returns the segments of a path, each decoded.
pub(crate) fn segments(path: &str) -> Vec<Vec<u8>> {
    path.split('/').map(decoded).collect()
}

/// Undoes the escapes of a text.
pub(crate) fn decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let (mut decoded, mut place) = (Vec::with_capacity(bytes.len()), 0);
    while place < bytes.len() {
        let digits = bytes.get(place + 1..place + 3).filter(|_| bytes[place] == b'%');
        let value = digits
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        decoded.push(value.unwrap_or(bytes[place]));
        place += if value.is_some() { 3 } else { 1 };
    }
    decoded
}
