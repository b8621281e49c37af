//! Lets an answer to `HEAD` speak for the stored answer to `GET` ([RFC 9111 §4.3.5]).
//!
//! "A response to the HEAD method is identical to what an equivalent request made with a GET would have been, without
//! sending the content." So it freshens what is stored if it matches it, and removes it if it contradicts it.
//!
//! Invariants: nothing becomes fresher by an answer without a validator, which could be anything's (RFC 9111 would allow
//! it), nor by one to other wishes than the stored response was fetched for. Not here: forwarding (`proxy::forward`), merging fields (`cache::stored_response`).
//!
//! [RFC 9111 §4.3.5]: https://www.rfc-editor.org/rfc/rfc9111#section-4.3.5

use std::sync::Arc;

use http::header::{self, HeaderMap};
use http::{Method, StatusCode, response};

use crate::admission::Eligibility;
use crate::budget::observation::Headroom;
use crate::cache::directives::Storing;
use crate::cache::stored_response::{Found, Provenance};
use crate::cache::storing::{self, NotStorable};
use crate::proxy::provenance::TakeOff;
use crate::proxy::sharing;
use crate::proxy::{Proxy, Target};
use crate::regions::DirectedRequest;

impl Proxy {
    /// Compares upstream's answer to `HEAD` with what is stored, and keeps, freshens or removes that.
    pub async fn learn_from_head(
        &self,
        request: &Arc<DirectedRequest>,
        head: &response::Parts,
        take_off: TakeOff,
    ) {
        let is_head_of_get =
            *request.method() == Method::HEAD && request.eligibility() == Eligibility::ReuseOnly;
        if !is_head_of_get || head.status != StatusCode::OK {
            return;
        }
        let target = Target {
            request: Arc::clone(request),
            primary: self.primary_of(request),
            headroom: Headroom::default(),
        };
        let Found::Stored(stored, _) = self.store().look_up(target.primary, request.fields()).await else {
            return;
        };
        // What was stored while the answer was on its way is newer than it.
        let is_older = take_off.stamp < stored.provenance().stamp;
        if is_older || !stored.is_same_representation_as(&head.headers) {
            return;
        }
        let provenance = Provenance {
            // Nobody has compared the content with what it is after a write: it stays as old as it is for those.
            stamp: stored.provenance().stamp,
            ..self.provenance(request, stored.status(), take_off)
        };
        let (freshened, _) = sharing::withhold(request, stored.freshened(&head.headers, provenance));
        let judged = sharing::with_cookies(freshened.fields(), &head.headers);
        let verdict = storing::check_storable(request, freshened.status(), &judged, self.policy());
        let is_contradicted = stored.status() != head.status || !stored.matches_head(&head.headers);
        if is_contradicted {
            // "… otherwise, the cache SHOULD consider the stored response to be stale": it is known to have changed.
            return self.store().remove(target.primary, request.fields()).await;
        }
        let is_storing = self.policy().directives(request).storing == Storing::Allowed;
        match verdict {
            Ok(()) if has_validator(&head.headers) => drop(self.insert(&target, freshened).await),
            // The client forbids to store, or the answer is for it alone: no word against what is stored.
            Ok(()) | Err(NotStorable::SetCookie) => {}
            Err(_) if is_storing => self.store().remove(target.primary, request.fields()).await,
            Err(_) => {}
        }
    }
}

/// Returns whether an answer says which response it speaks of.
fn has_validator(fields: &HeaderMap) -> bool {
    fields.contains_key(header::ETAG) || fields.contains_key(header::LAST_MODIFIED)
}
