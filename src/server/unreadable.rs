//! Says why to a client whose request could not be read: hyper's own answer to it has no body.
//!
//! What hyper writes then is known by its shape: a status, the fields of every message, nothing else. An answer of ours, or
//! of upstream's, always has more fields than that.
//!
//! Invariants: pure; what has another shape is left alone; status and `Connection: close` stay what they are.
//! Not here: HTTP/2, where hyper answers for its library, which resets the stream.

use bytes::Bytes;

/// The fields that hyper puts into its own answers.
const OWN_FIELDS: [&str; 3] = ["connection", "content-length", "date"];

/// Returns the answer that says why in place of hyper's own; `None` for whatever else is written.
pub fn explained(written: &[u8]) -> Option<Bytes> {
    // Most of what is written is none, and this tells.
    let rest = written.strip_prefix(b"HTTP/1.1 4")?;
    let rest = std::str::from_utf8(rest.strip_suffix(b"\r\n\r\n")?).ok()?;
    let (status, fields) = rest.split_once("\r\n")?;
    let mut is_empty = false;
    for field in fields.split("\r\n") {
        let (name, value) = field.split_once(": ")?;
        if !OWN_FIELDS.contains(&name) {
            return None;
        }
        is_empty |= name == "content-length" && value == "0";
    }
    let detail = match status.get(..2) {
        Some("00") if is_empty => "The request could not be read: it breaks the rules of RFC 9112.",
        Some("14") if is_empty => "The request target is too long.",
        Some("31") if is_empty => "The request's head is too large, or has too many fields.",
        Some(_) | None => return None,
    };
    let body = format!("{{\"detail\":\"{detail}\"}}");
    let length = format!("content-length: {}", body.len());
    let fields = fields.replace("content-length: 0", &length);
    Some(Bytes::from(format!(
        "HTTP/1.1 4{status}\r\ncontent-type: application/json\r\n{fields}\r\n\r\n{body}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BAD: &str = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: Sat, 28 Nov 2026 14:00:00 GMT\r\n\r\n";

    #[test]
    fn hypers_own_refusals_say_why() {
        for status in ["400 Bad Request", "414 URI Too Long", "431 Request Header Fields Too Large"] {
            let answer = explained(BAD.replace("400 Bad Request", status).as_bytes()).unwrap();
            let (head, body) = std::str::from_utf8(&answer).unwrap().split_once("\r\n\r\n").unwrap();
            assert!(
                head.starts_with(&format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\n")),
                "{head}"
            );
            assert!(head.contains("connection: close\r\n") && head.contains("date: Sat"), "{head}");
            assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
            serde_json::from_str::<serde_json::Value>(body).unwrap();
        }
    }

    #[test]
    fn whatever_else_is_written_is_left_alone() {
        for other in [
            BAD.replace("400 Bad Request", "200 OK"),
            BAD.replace("400 Bad Request", "404 Not Found"),
            BAD.replace("date: ", "cache-status: sentrybox; date: "),
            BAD.replace("content-length: 0", "content-length: 2") + "{}",
            BAD.replace("content-length: 0\r\n", ""),
            BAD.trim_end().to_owned(),
            String::new(),
        ] {
            assert_eq!(explained(other.as_bytes()), None, "{other}");
        }
    }
}
