//! Reads dates as HTTP writes them ([RFC 9110 §5.6.7]), robustly.
//!
//! "Recipients of timestamp values are encouraged to be robust in parsing timestamps": names in another case, and a
//! weekday that is not the date's, change nothing about the moment that is meant. Anything else that is wrong makes it
//! no date. Pure. Invariant: a text that could mean two moments is no date. Not here: what follows from a date that is none (`cache::terms`).
//!
//! [RFC 9110 §5.6.7]: https://www.rfc-editor.org/rfc/rfc9110#section-5.6.7

use std::time::SystemTime;

use http::header::{HeaderMap, HeaderName};

/// The weekdays, as `IMF-fixdate` and `asctime-date` abbreviate them and as `rfc850-date` spells them.
const WEEKDAYS: [(&str, &str); 7] = [
    ("Mon", "Monday"),
    ("Tue", "Tuesday"),
    ("Wed", "Wednesday"),
    ("Thu", "Thursday"),
    ("Fri", "Friday"),
    ("Sat", "Saturday"),
    ("Sun", "Sunday"),
];

/// Reads the first value of a date field.
pub fn field(fields: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    parse(fields.get(name)?.to_str().ok()?)
}

/// Reads a date in any of the three formats.
pub fn parse(text: &str) -> Option<SystemTime> {
    let text = text.trim();
    httpdate::parse_http_date(text).ok().or_else(|| parse_robustly(text))
}

/// Reads a date whose names are in another case, or whose weekday is another one.
fn parse_robustly(text: &str) -> Option<SystemTime> {
    let text = recapitalize(text);
    let end = text.find(|letter: char| !letter.is_ascii_alphabetic())?;
    let (weekday, rest) = text.split_at(end);
    let is_one = WEEKDAYS.iter().any(|(short, long)| weekday == *short || weekday == *long);
    let moment = |day: &str| httpdate::parse_http_date(&format!("{day}{rest}")).ok();
    let right = |(short, long): &(&str, &str)| {
        if weekday.len() == short.len() { moment(short) } else { moment(long) }
    };
    if is_one { WEEKDAYS.iter().find_map(right) } else { None }
}

/// Writes every word with a capital and small letters, and the time zone in capitals.
fn recapitalize(text: &str) -> String {
    let mut starts_word = true;
    let spell = |letter: char| {
        let spelled = if starts_word { letter.to_ascii_uppercase() } else { letter.to_ascii_lowercase() };
        starts_word = !letter.is_ascii_alphabetic();
        spelled
    };
    let spelled: String = text.chars().map(spell).collect();
    match spelled.strip_suffix(" Gmt") {
        Some(date) => format!("{date} GMT"),
        None => spelled,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    /// `Sun, 06 Nov 1994 08:49:37 GMT`.
    fn moment() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(784_111_777)
    }

    #[test]
    fn rfc9110_5_6_7_a_date_is_read_in_each_of_its_formats() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            " Sun, 06 Nov 1994 08:49:37 GMT ",
        ] {
            assert_eq!(parse(text), Some(moment()), "{text}");
        }
    }

    #[test]
    fn rfc9110_5_6_7_case_and_a_wrong_weekday_are_forgiven() {
        for text in [
            "SUN, 06 Nov 1994 08:49:37 GMT",
            "sun, 06 nov 1994 08:49:37 gmt",
            "Sun, 06 NOV 1994 08:49:37 gMT",
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "Friday, 06-Nov-94 08:49:37 GMT",
            "Thu Nov  6 08:49:37 1994",
        ] {
            assert_eq!(parse(text), Some(moment()), "{text}");
        }
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "",
            "0",
            "-1",
            "yesterday",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49 GMT",
            "Foo, 06 Nov 1994 08:49:37 GMT",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Sun 06 Nov 1994 08:49:37 GMT",
            "Sun, 6 Nov 1994 8:49:37 GMT",
            "Sun, 06-Nov-1994 08:49:37 GMT",
            "1994-11-06T08:49:37Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_field_is_read_by_its_first_value() {
        let fields = crate::testing::fields(&[
            ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("date", "Mon, 07 Nov 1994 08:49:37 GMT"),
        ]);
        assert_eq!(field(&fields, &http::header::DATE), Some(moment()));
        assert_eq!(field(&fields, &http::header::EXPIRES), None);
    }
}
