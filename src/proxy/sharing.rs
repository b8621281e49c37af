//! Who may have what a flight brings: everybody aboard, those of one variant, or only the passenger for whom it took off.
//!
//! Invariant: what upstream keeps from caches, or gives to one client, goes to nobody else: not a whole answer, not a field
//! of one. Not here: what may be stored (`cache::storing`), handing it out (`proxy::boarding`).

use std::sync::Arc;

use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName};

use crate::admission::{AdmittedRequest, CookieCarriage};
use crate::cache::directives::{ResponseDirectives, ResponseFlags};
use crate::cache::policy::CacheKind;
use crate::cache::stored_response::{StoredResponse, nominated};
use crate::cache::storing;
use crate::headers;
use crate::proxy::flight::Itinerary;
use crate::proxy::landing::Audience;
use crate::proxy::{Proxy, Target};

impl Proxy {
    /// Returns whether everybody who waited may have the answer: the same key is the same credential, so only what
    /// upstream keeps from caches or gives to one client is not. A cookie that no client gets is no obstacle where
    /// upstream itself says how long the answer may be kept.
    pub fn is_shareable(&self, request: &AdmittedRequest, status: StatusCode, fields: &HeaderMap) -> bool {
        let directives = ResponseDirectives::read(fields);
        let is_storable = storing::check_storable(request, status, fields, self.policy()).is_ok();
        let is_own_cookie = fields.contains_key(header::SET_COOKIE)
            && (request.cookies() == CookieCarriage::Carried || !is_storable);
        let varies_anyhow = headers::members(fields, &header::VARY).any(|member| member == "*");
        // `must-understand` makes a `no-store` one that may be stored after all.
        let is_withheld = (directives.has(ResponseFlags::NO_STORE) && !is_storable)
            || (CacheKind::of(request.partition()) == CacheKind::Shared
                && directives.has(ResponseFlags::PRIVATE));
        !is_own_cookie && !varies_anyhow && !is_withheld
    }

    /// Returns who may have an answer with these fields, which is shareable: all of its variant, unless it still has fields
    /// that only one client may have.
    pub fn audience_of(&self, itinerary: &Itinerary, fields: &HeaderMap) -> Audience {
        if !CacheKind::of(itinerary.target.request.partition()).withheld(fields).is_empty() {
            return Audience::Owner;
        }
        let nominated: Arc<[HeaderName]> = nominated(fields).into();
        let Target { request, primary, .. } = &itinerary.target;
        let key = self.store().variant_by(*primary, &nominated, request.fields());
        Audience::Variant { nominated, key }
    }
}

/// Returns the fields by which a stored response is judged that an answer freshens: its own, and the cookies of that answer,
/// which it never keeps.
pub fn with_cookies(stored: &HeaderMap, answer: &HeaderMap) -> HeaderMap {
    let mut judged = stored.clone();
    let cookies = answer.get_all(header::SET_COOKIE);
    judged.extend(cookies.iter().map(|cookie| (header::SET_COOKIE, cookie.clone())));
    judged
}

/// Takes out of a response what is only for the client who had it fetched.
pub fn withhold(
    request: &AdmittedRequest,
    response: StoredResponse,
) -> (Arc<StoredResponse>, Arc<HeaderMap>) {
    let names = CacheKind::of(request.partition()).withheld(response.fields());
    if names.is_empty() {
        return (Arc::new(response), Arc::default());
    }
    let mut withheld = HeaderMap::new();
    for name in &names {
        withheld.extend(response.fields().get_all(name).iter().map(|value| (name.clone(), value.clone())));
    }
    (Arc::new(response.without(&names)), Arc::new(withheld))
}
