//! Text that goes into HTML.
//!
//! Invariant: what was escaped is text wherever it stands, between tags and in a quoted attribute.
//! Not here: tags (`admin::dashboard::panels`, `admin::dashboard::chart`).

use std::borrow::Cow;

/// Escapes what would be read as markup.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(['&', '<', '>', '"', '\'']) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    Cow::Owned(escaped)
}

/// Escapes a path, which may go on in another line after each of its slashes.
pub fn breakable(path: &str) -> String {
    escaped(path).replace('/', "/<wbr>")
}

/// Writes bytes for people.
pub fn bytes(count: u64) -> String {
    bytesize::ByteSize::b(count).display().iec().to_string()
}

/// Writes a count with its thousands apart.
pub fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() * 2);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_becomes_text() {
        assert_eq!(escaped("a<b> & \"c\"='d'"), "a&lt;b&gt; &amp; &quot;c&quot;=&#39;d&#39;");
        assert_eq!(escaped("plain"), "plain");
    }

    #[test]
    fn a_path_breaks_after_its_slashes() {
        assert_eq!(breakable("/api/0/<b>"), "/<wbr>api/<wbr>0/<wbr>&lt;b&gt;");
    }

    #[test]
    fn thousands_stand_apart() {
        assert_eq!(count(7), "7");
        assert_eq!(count(1_234_567), "1\u{202f}234\u{202f}567");
    }
}
