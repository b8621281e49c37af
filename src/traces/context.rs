//! Reads and writes the contexts in which requests are traced: W3C's ([Trace Context §3]) and Sentry's. Pure.
//!
//! A client says in `traceparent` which span of its own it asks in, or in `sentry-trace`; Sentry is told the span of ours
//! that asks it, in `traceparent` and, where the client sent it, in `sentry-trace`. `baggage` passes as it is.
//!
//! Invariants: a `traceparent` or `sentry-trace` that is malformed or comes twice counts as not there, and does not travel on;
//! nor does any of the fields that is longer than 8 KiB; nothing of a value but two identifiers and a flag gets into a span. Not here: deciding what is traced (`traces`).
//!
//! [Trace Context §3]: https://www.w3.org/TR/trace-context/#trace-context-http-headers-format

use http::header::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::{SpanContext, SpanId, TraceId};

/// W3C's field for the span that asks.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// W3C's field for what the systems on the way have to say; means nothing without the other.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// Sentry's field for the span that asks: `trace-span` or `trace-span-sampled`.
pub const SENTRY_TRACE: HeaderName = HeaderName::from_static("sentry-trace");
/// What the systems on the way hand on, such as Sentry's sampling context.
pub const BAGGAGE: HeaderName = HeaderName::from_static("baggage");

/// Most bytes of one of these fields, its lines together: what W3C wants of `baggage`.
const LONGEST: usize = 8 * 1024;

/// The version of `traceparent` that is written.
const VERSION: &str = "00";

/// The span that a request says it was made in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incoming {
    /// Its trace.
    pub trace: TraceId,
    /// Itself.
    pub span: SpanId,
    /// Whether it is recorded.
    pub sampling: Sampling,
}

/// Whether whoever asks records its span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampling {
    /// It does.
    Recorded,
    /// It does not.
    NotRecorded,
    /// It leaves that to others: Sentry's field knows that, W3C's does not.
    Deferred,
}

impl Incoming {
    /// Reads what a request says, W3C's field first.
    pub fn read(fields: &HeaderMap) -> Option<Self> {
        Self::of_w3c(fields).or_else(|| Self::of_sentry(fields))
    }

    fn of_w3c(fields: &HeaderMap) -> Option<Self> {
        only(fields, &TRACEPARENT).and_then(parse_traceparent)
    }

    fn of_sentry(fields: &HeaderMap) -> Option<Self> {
        only(fields, &SENTRY_TRACE).and_then(parse_sentry_trace)
    }
}

/// Says in the fields of a request on its way upstream that it is made in `span`.
pub fn sign(fields: &mut HeaderMap, span: &SpanContext) {
    // "If the vendor failed to parse traceparent, it MUST NOT attempt to parse tracestate" (Trace Context §3.3).
    if Incoming::of_w3c(fields).is_none() || is_too_long(fields, &TRACESTATE) {
        fields.remove(&TRACESTATE);
    }
    if is_too_long(fields, &BAGGAGE) {
        fields.remove(&BAGGAGE);
    }
    match Incoming::of_sentry(fields) {
        // In a trace of its own, our span has no place.
        Some(incoming) if incoming.trace != span.trace_id() => {}
        Some(incoming) => insert(fields, SENTRY_TRACE, &sentry_trace(span, incoming.sampling)),
        None => drop(fields.remove(&SENTRY_TRACE)),
    }
    let flags = span.trace_flags();
    let (trace, span) = (span.trace_id(), span.span_id());
    insert(fields, TRACEPARENT, &format!("{VERSION}-{trace}-{span}-{flags:02x}"));
}

fn sentry_trace(span: &SpanContext, sampling: Sampling) -> String {
    let decision = match sampling {
        Sampling::Recorded => "-1",
        Sampling::NotRecorded => "-0",
        Sampling::Deferred => "",
    };
    format!("{}-{}{decision}", span.trace_id(), span.span_id())
}

fn insert(fields: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        fields.insert(name, value);
    }
}

/// Returns the value of a field that comes once.
fn only<'a>(fields: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = fields.get_all(name).iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    value.to_str().ok().filter(|value| value.len() <= LONGEST).map(str::trim)
}

fn is_too_long(fields: &HeaderMap, name: &HeaderName) -> bool {
    LONGEST < fields.get_all(name).iter().map(HeaderValue::len).sum()
}

/// Reads `version-trace-span-flags` ([Trace Context §3.2.2]).
///
/// [Trace Context §3.2.2]: https://www.w3.org/TR/trace-context/#traceparent-header-field-values
fn parse_traceparent(value: &str) -> Option<Incoming> {
    let mut parts = value.split('-');
    let version = hexadecimal(parts.next()?, 2)?;
    let (trace, span) = identifiers(parts.next()?, parts.next()?)?;
    let flags = u8::from_str_radix(hexadecimal(parts.next()?, 2)?, 16).ok()?;
    // "Version 255 is invalid." Of a higher version than ours more may follow, and is not understood.
    if version == "ff" || (version == VERSION && parts.next().is_some()) {
        return None;
    }
    let sampling = if flags & 1 == 1 { Sampling::Recorded } else { Sampling::NotRecorded };
    Some(Incoming { trace, span, sampling })
}

fn parse_sentry_trace(value: &str) -> Option<Incoming> {
    let mut parts = value.split('-');
    let (trace, span) = identifiers(parts.next()?, parts.next()?)?;
    let sampling = match (parts.next(), parts.next()) {
        (None, _) => Sampling::Deferred,
        (Some("1"), None) => Sampling::Recorded,
        (Some("0"), None) => Sampling::NotRecorded,
        (Some(_), _) => return None,
    };
    Some(Incoming { trace, span, sampling })
}

/// Reads the identifiers of a trace and a span; all zeros is none.
fn identifiers(trace: &str, span: &str) -> Option<(TraceId, SpanId)> {
    let trace = TraceId::from_hex(hexadecimal(trace, 32)?).ok().filter(|trace| *trace != TraceId::INVALID)?;
    let span = SpanId::from_hex(hexadecimal(span, 16)?).ok().filter(|span| *span != SpanId::INVALID)?;
    Some((trace, span))
}

/// Returns a text if it is so many digits, those above nine in lower case.
fn hexadecimal(text: &str, length: usize) -> Option<&str> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (text.len() == length && text.bytes().all(is_digit)).then_some(text)
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{TraceFlags, TraceState};

    use super::*;
    use crate::testing::fields;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";
    const OTHER: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[track_caller]
    fn check(pairs: &[(&str, &str)], expected: Option<(&str, Sampling)>) {
        let read = Incoming::read(&fields(pairs));
        let expected = expected.map(|(trace, sampling)| Incoming {
            trace: TraceId::from_hex(trace).unwrap(),
            span: SpanId::from_hex(SPAN).unwrap(),
            sampling,
        });
        assert_eq!(read, expected, "{pairs:?}");
    }

    fn w3c(value: &str, sampling: Option<Sampling>) {
        check(&[("traceparent", value)], sampling.map(|sampling| (TRACE, sampling)));
    }

    fn sentry(value: &str, sampling: Option<Sampling>) {
        check(&[("sentry-trace", value)], sampling.map(|sampling| (TRACE, sampling)));
    }

    #[test]
    fn a_traceparent_names_trace_span_and_whether_it_is_recorded() {
        for (flags, sampling) in [
            ("01", Sampling::Recorded),
            ("00", Sampling::NotRecorded),
            ("03", Sampling::Recorded),
            ("fe", Sampling::NotRecorded),
        ] {
            w3c(&format!("00-{TRACE}-{SPAN}-{flags}"), Some(sampling));
        }
        w3c(&format!(" 00-{TRACE}-{SPAN}-01\t"), Some(Sampling::Recorded));
    }

    #[test]
    fn a_traceparent_of_a_later_version_is_read_as_far_as_it_is_known() {
        w3c(&format!("cc-{TRACE}-{SPAN}-01"), Some(Sampling::Recorded));
        w3c(&format!("cc-{TRACE}-{SPAN}-01-what-the-future-holds"), Some(Sampling::Recorded));
        w3c(&format!("00-{TRACE}-{SPAN}-01-what-the-future-holds"), None);
        w3c(&format!("ff-{TRACE}-{SPAN}-01"), None);
    }

    #[test]
    fn a_malformed_traceparent_is_none() {
        for value in [
            "",
            "-",
            "00",
            &format!("00-{TRACE}-{SPAN}"),
            &format!("00-{TRACE}-{SPAN}-1"),
            &format!("00-{TRACE}-{SPAN}-0x"),
            &format!("00-{TRACE}-{SPAN}-01-"),
            &format!("0-{TRACE}-{SPAN}-01"),
            &format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            &format!("00-{TRACE}0-{SPAN}-01"),
            &format!("00-{TRACE}-{SPAN}1-01"),
            &format!("00-+{}-{SPAN}-01", &TRACE[1..]),
            &format!("00-{}-{SPAN}-01", "0".repeat(32)),
            &format!("00-{TRACE}-{}-01", "0".repeat(16)),
            &format!("00-{TRACE}-{SPAN}-01, 00-{TRACE}-{SPAN}-01"),
        ] {
            w3c(value, None);
        }
        let twice = ("traceparent", &*format!("00-{TRACE}-{SPAN}-01"));
        check(&[twice, twice], None);
    }

    #[test]
    fn a_sentry_trace_may_leave_the_decision_to_others() {
        sentry(&format!("{TRACE}-{SPAN}-1"), Some(Sampling::Recorded));
        sentry(&format!("{TRACE}-{SPAN}-0"), Some(Sampling::NotRecorded));
        sentry(&format!("{TRACE}-{SPAN}"), Some(Sampling::Deferred));
        for value in [
            "",
            TRACE,
            &format!("{TRACE}-{SPAN}-2"),
            &format!("{TRACE}-{SPAN}-1-1"),
            &format!("{SPAN}-{TRACE}-1"),
        ] {
            sentry(value, None);
        }
    }

    #[test]
    fn sentrys_field_counts_where_there_is_no_sound_one_of_w3c() {
        let sentry = ("sentry-trace", &*format!("{OTHER}-{SPAN}-0"));
        let w3c = ("traceparent", &*format!("00-{TRACE}-{SPAN}-01"));
        check(&[sentry, w3c], Some((TRACE, Sampling::Recorded)));
        check(&[sentry, ("traceparent", "nonsense")], Some((OTHER, Sampling::NotRecorded)));
    }

    /// Returns what travels on in the trace [`TRACE`], in a span of ours.
    fn signed(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut fields = fields(pairs);
        let (trace, span) = (TraceId::from_hex(TRACE).unwrap(), SpanId::from(1));
        sign(&mut fields, &SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::NONE));
        fields
    }

    const SIGNED: (&str, &str) = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-0000000000000001-01");

    #[test]
    fn what_travels_on_names_our_span_in_the_clients_trace() {
        let came = [
            ("traceparent", &*format!("00-{TRACE}-{SPAN}-01")),
            ("tracestate", "vendor=1,other=2"),
            ("tracestate", "third=3"),
            ("sentry-trace", &*format!("{TRACE}-{SPAN}-1")),
            ("baggage", "sentry-environment=production, mine=1"),
            ("x-else", "1"),
        ];
        let mut expected = came;
        expected[0] = SIGNED;
        expected[3] = ("sentry-trace", "0af7651916cd43dd8448eb211c80319c-0000000000000001-1");
        assert_eq!(signed(&came), fields(&expected));
    }

    #[test]
    fn a_clients_decision_goes_on_in_sentrys_field_as_it_came() {
        for decision in ["-1", "-0", ""] {
            let travels = signed(&[("sentry-trace", &format!("{TRACE}-{SPAN}{decision}"))]);
            assert_eq!(travels["sentry-trace"], format!("{TRACE}-0000000000000001{decision}").as_str());
            assert_eq!(travels["traceparent"], SIGNED.1);
        }
    }

    #[test]
    fn a_sentry_trace_of_another_trace_goes_on_as_it_came() {
        let other = ("sentry-trace", &*format!("{OTHER}-{SPAN}-1"));
        assert_eq!(signed(&[other]), fields(&[other, SIGNED]));
    }

    #[test]
    fn what_is_malformed_or_too_long_does_not_travel_on() {
        let long = "a=".to_owned() + &"b".repeat(LONGEST);
        assert_eq!(signed(&[("traceparent", "x"), ("tracestate", "vendor=1")]), fields(&[SIGNED]));
        assert_eq!(signed(&[("tracestate", "vendor=1"), ("sentry-trace", "x")]), fields(&[SIGNED]));
        assert_eq!(signed(&[("baggage", &long)]), fields(&[SIGNED]));
        let sound = ("traceparent", &*format!("00-{TRACE}-{SPAN}-01"));
        assert_eq!(signed(&[sound, ("tracestate", &long)]), fields(&[SIGNED]));
        let half = ("baggage", &long[..LONGEST / 2]);
        assert_eq!(signed(&[half, half]), fields(&[half, half, SIGNED]));
    }
}
