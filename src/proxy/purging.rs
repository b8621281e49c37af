//! Purges: what operators, and Sentry's webhooks, say is no longer so.
//!
//! Invariants: whoever asks after a purge is not answered from before it, in any way; once begun, a purge runs to its end
//! although nobody waits for it any more. Not here: what is meant (`cache::invalidation::selector`), who may (`admin`).

use crate::cache::generations::Cause;
use crate::cache::invalidation::selector::{Selector, SelectorError};
use crate::cache::store::PurgeDepth;
use crate::credential::{Credential, Fingerprint};
use crate::metrics::store::InvalidationCause;
use crate::proxy::Proxy;
use crate::routes::tags::Tag;

impl Proxy {
    /// Purges what an operator means. Returns how many stored responses there were.
    ///
    /// # Errors
    /// What is meant cannot be told.
    pub async fn purge_selected(&self, selector: &Selector, depth: PurgeDepth) -> Result<u64, SelectorError> {
        if let Selector::Route(template) = selector
            && !self.0.admission.knows_route(template)
        {
            return Err(SelectorError::Route);
        }
        let tags = selector.tags(&[])?;
        Ok(self.purge(tags, depth, InvalidationCause::Purge).await)
    }

    /// Returns the fingerprint of a token, as people paste it.
    pub fn fingerprint_of_text(&self, text: &str) -> Option<Fingerprint> {
        self.0.admission.fingerprint_of(&Credential::from_text(text.as_bytes())?)
    }

    /// Purges everything that carries any of these tags. Returns how many stored responses there were.
    pub async fn purge(&self, tags: Vec<Tag>, depth: PurgeDepth, cause: InvalidationCause) -> u64 {
        // Refusals, and what could not be shared, are few, and not worth looking through.
        self.grounded().clear();
        self.rejections().clear();
        let proxy = self.clone();
        let purge =
            self.errands().run(async move { proxy.store().purge(&tags, depth, proxy.clock().now()).await });
        // It is gone only if it panicked: what was purged is, but nobody has counted it.
        let purged = purge.await.unwrap_or_default();
        self.metrics().store.invalidated(cause);
        self.metrics().store.purged(purged);
        purged
    }

    /// Makes everything that carries any of these tags stale, at once, and does not count it.
    pub fn mark_stale(&self, tags: &[Tag], cause: InvalidationCause) {
        self.grounded().clear();
        self.rejections().clear();
        self.generations().invalidate_tags(tags, Cause::SoftPurge, self.clock().now());
        self.metrics().store.invalidated(cause);
    }

    /// Makes everything that is stored unusable. Returns how many responses there were.
    pub async fn purge_everything(&self) -> u64 {
        self.purge(vec![Tag::Everything], PurgeDepth::Hard, InvalidationCause::Purge).await
    }
}
