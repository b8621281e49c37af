//! Reads which request an operator wants explained: the JSON of `POST /explain`.
//!
//! A question describes a request that is not sent: `{"path": "/api/0/organizations/?per_page=5", "token": "…"}`. It comes by
//! `POST`, because a token has no place in a URL.
//!
//! Invariants: what cannot be understood is refused with what was expected; neither a token nor a field's value is told back.
//! Not here: explaining (handed in), what there is to say (`proxy::explaining`).

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Request, Uri};
use serde::Deserialize;

use crate::admission::BodyFraming;
use crate::config::Secret;
use crate::credential::Credential;
use crate::proxy::explaining::explanation::Explanation;

/// What a question may say, as told to whoever asked another one.
const EXPECTED: &str = "expected a JSON object with path, and perhaps token, method, host, from (an IP address), and fields, an \
    object of names and values";

/// Under which name a request is taken to come in that says none.
const HOST: HeaderValue = HeaderValue::from_static("localhost");

/// A request that is to be explained.
#[derive(Debug)]
pub struct Question {
    /// Its head.
    pub head: Parts,
    /// How its body would be framed, as its fields say.
    pub body: BodyFraming,
    /// The address of the client that would send it.
    pub from: IpAddr,
}

/// Why nothing was explained.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuestionRefusal {
    /// The body is no question.
    #[error("{EXPECTED}: line {line}, column {column}")]
    Malformed {
        /// Where it is wrong: the line.
        line: usize,
        /// And the column.
        column: usize,
    },
    /// The path is none.
    #[error(
        "`path` wants a URL or a path that begins with a slash, with its query, escaped as it would be sent, as in \
         /api/0/organizations/acme/projects/?per_page=5"
    )]
    Path,
    /// The token could be no credential.
    #[error("`token` wants a token, or the value of an Authorization field")]
    Token,
    /// The method is none.
    #[error("`method` wants a method in capitals, as in GET")]
    Method,
    /// The host is none.
    #[error("`host` wants the value of a Host field, as in localhost:9000")]
    Host,
    /// A field could not be sent.
    #[error("`fields` wants names and values of fields that a request can have")]
    Fields,
    /// A field has a key of its own.
    #[error("`fields` is not for Authorization and Host: the one goes into `token`, the other into `host`")]
    OwnKey,
}

/// Explains; handed in by whoever owns the proxy.
#[derive(Clone)]
pub struct Explain(Arc<dyn Fn(Question) -> ExplainFuture + Send + Sync>);

type ExplainFuture = Pin<Box<dyn Future<Output = Explanation> + Send>>;

impl Explain {
    /// Wraps the function that explains.
    pub fn new<F>(explain: impl Fn(Question) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Explanation> + Send + 'static,
    {
        Self(Arc::new(move |question| Box::pin(explain(question))))
    }

    /// Explains the request that the body of another one describes.
    ///
    /// # Errors
    /// What is asked cannot be understood.
    pub async fn answer(&self, body: &[u8]) -> Result<Explanation, QuestionRefusal> {
        Ok((self.0)(Question::read(body)?).await)
    }
}

impl fmt::Debug for Explain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Explain").finish_non_exhaustive()
    }
}

/// The body of a request, as it is spelled.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    path: String,
    token: Option<Secret>,
    method: Option<String>,
    host: Option<String>,
    from: Option<IpAddr>,
    #[serde(default)]
    fields: BTreeMap<String, String>,
}

impl Question {
    fn read(body: &[u8]) -> Result<Self, QuestionRefusal> {
        let body: Body = serde_json::from_slice(body).map_err(|error| {
            // Where it is wrong, and never what stands there.
            QuestionRefusal::Malformed { line: error.line(), column: error.column() }
        })?;
        let mut head = Request::new(()).into_parts().0;
        head.uri = target(&body.path).ok_or(QuestionRefusal::Path)?;
        if let Some(method) = &body.method {
            head.method = Method::from_bytes(method.as_bytes()).map_err(|_| QuestionRefusal::Method)?;
        }
        head.headers = fields(&body.fields)?;
        let host = body.host.as_deref().map(HeaderValue::from_str).transpose();
        head.headers.insert(header::HOST, host.map_err(|_| QuestionRefusal::Host)?.unwrap_or(HOST));
        if let Some(token) = &body.token {
            let credential = Credential::from_text(token.expose().as_bytes());
            let credential = credential.ok_or(QuestionRefusal::Token)?;
            head.headers.insert(header::AUTHORIZATION, credential.field_value().clone());
        }
        let framing = framing(&head.headers).ok_or(QuestionRefusal::Fields)?;
        Ok(Self { head, body: framing, from: body.from.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)) })
    }
}

/// Returns path and query of a URL, or the path itself with its query; an authority says nothing.
fn target(path: &str) -> Option<Uri> {
    let uri: Uri = path.parse().ok()?;
    let has_path = path.starts_with('/') || uri.scheme().is_some();
    let target: &PathAndQuery = uri.path_and_query().filter(|_| has_path)?;
    Some(Uri::from(target.clone()))
}

fn fields(named: &BTreeMap<String, String>) -> Result<HeaderMap, QuestionRefusal> {
    let mut fields = HeaderMap::new();
    for (name, value) in named {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| QuestionRefusal::Fields)?;
        if matches!(name, header::AUTHORIZATION | header::HOST) {
            return Err(QuestionRefusal::OwnKey);
        }
        fields.append(name, HeaderValue::from_str(value).map_err(|_| QuestionRefusal::Fields)?);
    }
    Ok(fields)
}

/// Returns how a body is framed that comes with these fields ([RFC 9112 §6]); `None` where they are wrong.
///
/// [RFC 9112 §6]: https://www.rfc-editor.org/rfc/rfc9112#section-6
fn framing(fields: &HeaderMap) -> Option<BodyFraming> {
    if fields.contains_key(header::TRANSFER_ENCODING) {
        return Some(BodyFraming::Unknown);
    }
    let Some(length) = fields.get(header::CONTENT_LENGTH) else { return Some(BodyFraming::Absent) };
    Some(match length.to_str().ok()?.trim().parse().ok()? {
        0 => BodyFraming::Absent,
        length => BodyFraming::Known(length),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Question, QuestionRefusal> {
        Question::read(body.as_bytes())
    }

    /// Says what a body asks for.
    #[track_caller]
    fn check(body: &str, expected: &str) {
        let Question { head, body: framing, from: _ } = read(body).unwrap();
        let credential = head.headers.get(header::AUTHORIZATION).map_or(0, HeaderValue::len);
        let host = head.headers[header::HOST].to_str().unwrap();
        assert_eq!(format!("{} {} {host} {credential} {framing:?}", head.method, head.uri), expected);
    }

    #[test]
    fn a_question_describes_a_request() {
        check(r#"{"path":"/api/0/?a=1"}"#, "GET /api/0/?a=1 localhost 0 Absent");
        check(r#"{"path":"http://127.0.0.1:9000/api/0/?a"}"#, "GET /api/0/?a localhost 0 Absent");
        check(r#"{"path":"/a","token":"abc"}"#, "GET /a localhost 10 Absent");
        check(r#"{"path":"/a","token":"Basic abc=","method":"PUT"}"#, "PUT /a localhost 10 Absent");
        check(r#"{"path":"/a","host":"box.example:1"}"#, "GET /a box.example:1 0 Absent");
        check(r#"{"path":"/a","fields":{"Content-Length":"3"}}"#, "GET /a localhost 0 Known(3)");
        check(r#"{"path":"/a","fields":{"content-length":"0"}}"#, "GET /a localhost 0 Absent");
        check(r#"{"path":"/a","fields":{"transfer-encoding":"chunked"}}"#, "GET /a localhost 0 Unknown");
        assert_eq!(read(r#"{"path":"/a","from":"fd00::1"}"#).unwrap().from.to_string(), "fd00::1");
        assert_eq!(read(r#"{"path":"/a"}"#).unwrap().from.to_string(), "127.0.0.1");
        let asked = read(r#"{"path":"/a","fields":{"Accept":"text/csv","x-a":"1, 2"}}"#).unwrap();
        assert_eq!(
            (&asked.head.headers["accept"], &asked.head.headers["x-a"]),
            (&"text/csv".parse().unwrap(), &"1, 2".parse().unwrap())
        );
    }

    #[test]
    fn what_is_no_question_is_refused_with_where_and_what_was_expected() {
        for (body, part) in [
            ("", "expected a JSON object with path"),
            ("{}", "line 1, column 2"),
            (r#"{"path":"/","from":"nowhere"}"#, "from (an IP address)"),
            (r#"{"path":"/","tokens":"x"}"#, "perhaps token, method, host"),
            (r#"{"path":"/","fields":{"a":1}}"#, "line 1, column"),
            (r#"{"path":"acme"}"#, "a path that begins with a slash"),
            (r#"{"path":"/a b"}"#, "escaped as it would be sent"),
            (r#"{"path":"/","token":" "}"#, "`token` wants"),
            (r#"{"path":"/","method":"G T"}"#, "`method` wants"),
            (r#"{"path":"/","host":"a\nb"}"#, "`host` wants"),
            (r#"{"path":"/","fields":{"a b":"1"}}"#, "`fields` wants"),
            (r#"{"path":"/","fields":{"a":"1\n"}}"#, "`fields` wants"),
            (r#"{"path":"/","fields":{"content-length":"many"}}"#, "`fields` wants"),
            (r#"{"path":"/","fields":{"Authorization":"Bearer x"}}"#, "goes into `token`"),
            (r#"{"path":"/","fields":{"host":"x"}}"#, "the other into `host`"),
        ] {
            let refusal = read(body).unwrap_err().to_string();
            assert!(refusal.contains(part), "{body}: {refusal}");
        }
    }

    #[test]
    fn neither_an_answer_nor_a_question_repeats_a_token() {
        for body in [
            r#"{"token":"sntryu_canary"}"#,
            r#"{"path":"/","token":"sntryu_canary}"#,
            r#"{"sntryu_canary":1}"#,
            r#"{"path":"sntryu_canary"}"#,
            r#"{"path":"/","token":"sntryu_canary\u0001"}"#,
            r#"{"path":"/","fields":{"authorization":"Bearer sntryu_canary"}}"#,
            r#"{"path":"/","fields":{"x":"sntryu_canary\u0001"}}"#,
        ] {
            let refusal = read(body).unwrap_err();
            assert!(!format!("{refusal} {refusal:?}").contains("canary"), "{refusal}");
        }
        let asked = read(r#"{"path":"/","token":"sntryu_canary"}"#);
        assert!(!format!("{asked:?}").contains("canary"), "{asked:?}");
    }
}
