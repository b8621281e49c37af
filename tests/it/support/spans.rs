//! Spans as a collector reads them: decoded from the bodies that it was sent, with their place in the tree.
//!
//! Not here: receiving them (`ScriptedUpstream` in memory, a server of its own end to end).

use std::fmt::Write;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message;

/// Spans in the order in which they ended, and whose they are.
#[derive(Debug, Default)]
pub(crate) struct Spans {
    pub(crate) all: Vec<Span>,
    pub(crate) service: String,
}

impl Spans {
    /// Decodes what was sent.
    pub(crate) fn of<'a>(bodies: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut spans = Self::default();
        for body in bodies {
            for told in ExportTraceServiceRequest::decode(body).unwrap().resource_spans {
                let resource = told.resource.unwrap();
                let service = resource.attributes.iter().find(|attribute| attribute.key == "service.name");
                spans.service = text(service.unwrap().value.as_ref().unwrap().value.as_ref());
                spans.all.extend(told.scope_spans.into_iter().flat_map(|scope| scope.spans));
            }
        }
        spans
    }

    /// Returns the only span of a name.
    pub(crate) fn one(&self, name: &str) -> &Span {
        let mut named = self.named(name);
        let span = named.next().unwrap_or_else(|| panic!("no {name} in\n{}", self.tree()));
        assert!(named.next().is_none(), "more than one {name} in\n{}", self.tree());
        span
    }

    /// Returns the spans of a name.
    pub(crate) fn named<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Span> {
        self.all.iter().filter(move |span| span.name == name)
    }

    /// Returns the spans whose parents are elsewhere: those of requests.
    pub(crate) fn roots(&self) -> impl Iterator<Item = &Span> {
        self.all.iter().filter(|span| self.all.iter().all(|other| other.span_id != span.parent_span_id))
    }

    /// Draws the spans below their parents, a line each, in the order in which they ended.
    pub(crate) fn tree(&self) -> String {
        let mut tree = String::new();
        for root in self.roots() {
            self.draw(root, 0, &mut tree);
        }
        tree
    }

    fn draw(&self, span: &Span, depth: usize, tree: &mut String) {
        writeln!(tree, "{:1$}{2}", "", depth * 2, span.name).unwrap();
        for child in self.all.iter().filter(|child| child.parent_span_id == span.span_id) {
            assert_eq!(child.trace_id, span.trace_id, "a child in another trace");
            assert!(span.start_time_unix_nano <= child.start_time_unix_nano, "a child before its parent");
            self.draw(child, depth + 1, tree);
        }
    }
}

/// Returns what a span says under a key; empty when it says nothing.
pub(crate) fn said(span: &Span, key: &str) -> String {
    let attribute = span.attributes.iter().find(|attribute| attribute.key == key);
    text(attribute.and_then(|attribute| attribute.value.as_ref()).and_then(|value| value.value.as_ref()))
}

/// Returns every key that a span says something under.
pub(crate) fn keys(span: &Span) -> Vec<&str> {
    span.attributes.iter().map(|attribute| attribute.key.as_str()).collect()
}

/// Returns whether a span failed.
pub(crate) fn is_failed(span: &Span) -> bool {
    span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error)
}

/// Returns whether a span is of a kind.
pub(crate) fn is_of_kind(span: &Span, kind: SpanKind) -> bool {
    span.kind() == kind
}

/// Returns an identifier as fields spell it.
pub(crate) fn hexadecimal(identifier: &[u8]) -> String {
    identifier.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn text(value: Option<&Value>) -> String {
    match value {
        None => String::new(),
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::BoolValue(value)) => value.to_string(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(other) => panic!("an attribute of another type: {other:?}"),
    }
}
