//! Every way in which the sandbox says no, with Sentry's status and Sentry's words.
//!
//! Invariant: one failure, one body; callers name the failure and never write a body.
//! Not here: the 429 of a limit and the fields around a body (`sandbox::answer`).

use http::StatusCode;
use http::header::WWW_AUTHENTICATE;

use crate::sandbox::answer::Answer;
use crate::sandbox::json::{Object, quoted};
use crate::sandbox::limits::Quota;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// No valid token.
    Unauthenticated(Denial),
    /// A valid token that may not do this: scope, membership or method.
    Forbidden,
    /// No such thing.
    NotFound,
    /// The method exists, but not here.
    MethodNotAllowed(String),
    /// No acceptable type of content.
    NotAcceptable,
    /// A parameter or a body that makes no sense, and why.
    Invalid(String),
    /// A field of the body that may not have this value.
    InvalidField {
        /// Which field.
        name: &'static str,
        /// Why not.
        message: String,
    },
    /// Something of that name exists, and the words for it.
    Conflict(String),
    /// A credential sent by a web page of this origin.
    InvalidOrigin(String),
}

/// Why nobody is authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// There is no credential of a known scheme.
    Missing,
    /// The token is none.
    Unknown,
    /// The organization token is none.
    UnknownOrganizationToken,
    /// The token was one.
    Expired,
}

/// The language of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// English.
    English,
    /// German.
    German,
}

impl Language {
    /// Returns the value of `Content-Language`.
    pub const fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::German => "de",
        }
    }
}

impl Denial {
    const fn detail(self) -> &'static str {
        match self {
            Self::Missing => "Authentication credentials were not provided.",
            Self::Unknown => "Invalid token",
            Self::UnknownOrganizationToken => "Invalid org token",
            Self::Expired => "Token expired",
        }
    }
}

impl Failure {
    /// Returns the answer that says so.
    pub fn answer(&self, language: Language) -> Answer {
        match self {
            Self::Unauthenticated(denial) => detail(StatusCode::UNAUTHORIZED, denial.detail())
                .with(WWW_AUTHENTICATE, "xBasic realm=\"api\""),
            Self::Forbidden => detail(StatusCode::FORBIDDEN, forbidden(language)),
            Self::NotFound => detail(StatusCode::NOT_FOUND, "The requested resource does not exist"),
            Self::MethodNotAllowed(method) => {
                detail(StatusCode::METHOD_NOT_ALLOWED, &format!("Method \"{method}\" not allowed."))
            }
            Self::NotAcceptable => {
                detail(StatusCode::NOT_ACCEPTABLE, "Could not satisfy the request Accept header.")
            }
            Self::Invalid(reason) => detail(StatusCode::BAD_REQUEST, reason),
            Self::InvalidField { name, message } => {
                let body = Object::start().texts(name, &[message]).finish();
                Answer::json(StatusCode::BAD_REQUEST, body)
            }
            Self::Conflict(reason) => detail(StatusCode::CONFLICT, reason),
            Self::InvalidOrigin(origin) => {
                Answer::json(StatusCode::BAD_REQUEST, quoted(&format!("Invalid origin: {origin}")))
            }
        }
    }
}

const fn forbidden(language: Language) -> &'static str {
    match language {
        Language::English => "You do not have permission to perform this action.",
        Language::German => "Sie sind nicht berechtigt diese Aktion durchzuführen.",
    }
}

/// Returns an answer of the shape `{"detail":"…"}`.
pub fn detail(status: StatusCode, text: &str) -> Answer {
    Answer::json(status, Object::start().text("detail", text).finish())
}

/// Returns an answer of a status that was asked for, with the body Sentry has for it.
pub fn broken(status: StatusCode, quota: Option<Quota>) -> Answer {
    match status {
        StatusCode::TOO_MANY_REQUESTS => {
            let none_left =
                Quota { remaining: 0, limit: 40, reset: 0, concurrent_remaining: None, concurrent_limit: 25 };
            Answer::too_many_requests(quota.unwrap_or(none_left))
        }
        StatusCode::INTERNAL_SERVER_ERROR => {
            let body = Object::start().text("detail", "Internal Error").raw("errorId", "null").finish();
            Answer::json(status, body)
        }
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            Answer::html(status, format!("<html><body>{status}</body></html>"))
        }
        _ => detail(status, status.canonical_reason().unwrap_or("Error")),
    }
}
