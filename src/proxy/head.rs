//! Lets an answer to `HEAD` speak for the stored answer to `GET` ([RFC 9111 §4.3.5]).
//!
//! "A response to the HEAD method is identical to what an equivalent request made with a GET would have been, without
//! sending the content." So it freshens what is stored if it matches it, and removes it if it contradicts it.
//!
//! Invariant: nothing becomes fresher by an answer that has neither a validator nor a field about its lifetime: it could be
//! anything's. Not here: forwarding (`proxy::forward`), merging fields (`cache::stored_response`).
//!
//! [RFC 9111 §4.3.5]: https://www.rfc-editor.org/rfc/rfc9111#section-4.3.5

use std::sync::Arc;

use http::header::{self, HeaderMap};
use http::{Method, StatusCode, response};

use crate::admission::{AdmittedRequest, Eligibility};
use crate::cache::stored_response::Found;
use crate::cache::storing;
use crate::headers;
use crate::proxy::flight::{self, TakeOff};
use crate::proxy::{Proxy, Target};

impl Proxy {
    /// Compares upstream's answer to `HEAD` with what is stored, and keeps, freshens or removes that.
    pub async fn learn_from_head(
        &self,
        request: &Arc<AdmittedRequest>,
        head: &response::Parts,
        take_off: TakeOff,
    ) {
        let is_head_of_get =
            *request.method() == Method::HEAD && request.eligibility() == Eligibility::ReuseOnly;
        if !is_head_of_get || head.status != StatusCode::OK {
            return;
        }
        let target = Target { request: Arc::clone(request), primary: self.primary_of(request) };
        let Found::Stored(stored, _) = self.store().look_up(target.primary, request.fields()).await else {
            return;
        };
        // In another coding it is another representation, whose validators and length say nothing of this one.
        if headers::content_coding(&head.headers) != headers::content_coding(stored.fields()) {
            return;
        }
        if !stored.matches_head(&head.headers) {
            // "… otherwise, the cache SHOULD consider the stored response to be stale": it is known to have changed.
            return self.store().remove(target.primary, request.fields()).await;
        }
        let provenance = self.provenance(request, take_off);
        let (freshened, _) = flight::withhold(request, stored.freshened(&head.headers, provenance));
        let verdict = storing::check_storable(request, freshened.status(), freshened.fields(), self.policy());
        if proves_something(&head.headers) && verdict.is_ok() {
            self.insert(&target, freshened).await;
        }
    }
}

/// Returns whether an answer that contradicts nothing says which response it speaks of, or for how long it holds.
fn proves_something(fields: &HeaderMap) -> bool {
    [header::ETAG, header::LAST_MODIFIED, header::CACHE_CONTROL, header::EXPIRES]
        .iter()
        .any(|name| fields.contains_key(name))
}
