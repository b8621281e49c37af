//! Reads a query string as Django does, and writes it back as Sentry's `Link` does.
//!
//! Invariant: a parameter's duplicates keep their order.
//! Not here: what a parameter means.

/// The parameters of a request, in order.
#[derive(Debug, Clone, Default)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Reads a query string.
    pub fn parse(text: &str) -> Self {
        let pairs = text
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(name, value)| (decoded(name, Plus::IsSpace), decoded(value, Plus::IsSpace)))
            .collect();
        Self { pairs }
    }

    /// Returns the last value of a parameter.
    pub fn last(&self, name: &str) -> Option<&str> {
        self.pairs.iter().rfind(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Returns every value of a parameter, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Returns the parameters as the fields of a body: the last duplicate counts.
    pub fn into_fields(self) -> serde_json::Map<String, serde_json::Value> {
        self.pairs.into_iter().map(|(name, value)| (name, serde_json::Value::String(value))).collect()
    }

    /// Returns the parameters as `Link` repeats them: all but `cursor`, grouped by name, form-encoded.
    pub fn link_form(&self) -> String {
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in &self.pairs {
            if name != "cursor" && !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        let pairs = names.iter().flat_map(|name| self.all(name).map(|value| (*name, value)));
        let encoded: Vec<_> =
            pairs.map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
        encoded.join("&")
    }
}

/// What a `+` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plus {
    /// A space, as in a form.
    IsSpace,
    /// Itself, as in a path.
    IsItself,
}

/// Returns a text with its percent-escapes resolved; broken escapes stay as they are.
pub fn decoded(text: &str, plus: Plus) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        match (first, escaped(tail)) {
            (b'%', Some((byte, after))) => {
                bytes.push(byte);
                rest = after;
            }
            (b'+', _) if plus == Plus::IsSpace => bytes.push(b' '),
            (byte, _) => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn escaped(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let (digits, after) = bytes.split_at_checked(2)?;
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let digits = std::str::from_utf8(digits).ok()?;
    u8::from_str_radix(digits, 16).ok().map(|byte| (byte, after))
}

/// Returns a text as Python's `quote_plus` writes it.
fn encoded(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => {
                result.push(char::from(byte));
            }
            b' ' => result.push('+'),
            byte => {
                result.push('%');
                for digit in [byte >> 4, byte & 15] {
                    let digit = char::from_digit(u32::from(digit), 16).unwrap_or('0');
                    result.push(digit.to_ascii_uppercase());
                }
            }
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_repeats_all_parameters_but_the_cursor_grouped_by_name() {
        let query = Query::parse("b=1&a=2&cursor=0:0:0&b=3&q=x%20y%2Fz&e=");
        assert_eq!(query.link_form(), "b=1&b=3&a=2&q=x+y%2Fz&e=");
    }

    #[test]
    fn the_last_duplicate_counts() {
        assert_eq!(Query::parse("a=1&a=2").last("a"), Some("2"));
        assert_eq!(Query::parse("").last("a"), None);
    }

    #[test]
    fn broken_escapes_stay() {
        assert_eq!(decoded("a%2xb%", Plus::IsSpace), "a%2xb%");
        assert_eq!(decoded("web%401.0+x", Plus::IsItself), "web@1.0+x");
    }
}
