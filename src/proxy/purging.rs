//! Purges: what operators, and Sentry's webhooks, say is no longer so.
//!
//! Invariants: whoever asks after a purge is not answered from before it, in any way; once begun, a purge runs to its end
//! although nobody waits for it any more. Not here: what is meant (`cache::invalidation::selector`), who may (`admin`).

use crate::cache::generations::{Cause, PurgeDepth};
use crate::cache::invalidation::selector::{Selector, SelectorError};
use crate::credential::{Credential, Fingerprint};
use crate::metrics::store::InvalidationCause;
use crate::proxy::Proxy;
use crate::routes::place::is_number;
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
        Ok(self.purge(selector.tags()?, depth).await)
    }

    /// Returns the fingerprint of a token, as people paste it.
    pub fn fingerprint_of_text(&self, text: &str) -> Option<Fingerprint> {
        self.0.admission.fingerprint_of(&Credential::from_text(text.as_bytes())?)
    }

    /// Purges everything that carries any of these tags. Returns how many stored responses there were.
    async fn purge(&self, tags: Vec<Tag>, depth: PurgeDepth) -> u64 {
        self.forget_refusals();
        let (proxy, tags) = (self.clone(), self.under_every_name(tags));
        let purge =
            self.errands().run(async move { proxy.store().purge(&tags, depth, proxy.clock().now()).await });
        // It is gone only if it panicked: what was purged is, but nobody has counted it.
        let purged = purge.await.unwrap_or_default();
        self.metrics().store.invalidated(InvalidationCause::Purge);
        self.metrics().store.purged(purged);
        purged
    }

    /// Marks everything that carries any of these tags stale, at once and without counting it, because a webhook says so.
    pub fn mark_stale(&self, tags: &[Tag]) {
        self.forget_refusals();
        let tags = self.under_every_name(tags.to_vec());
        self.generations().invalidate_tags(&tags, Cause::SoftPurge, self.clock().now());
        self.metrics().store.invalidated(InvalidationCause::Webhook);
    }

    /// Forgets refusals, and what could not be shared: they are few, and not worth looking through.
    fn forget_refusals(&self) {
        self.grounded().clear();
        self.rejections().clear();
    }

    /// Adds the same tags under each further name of their organizations; where none was learned, all that may be theirs: a slug
    /// may be anything's that is stored under a number, and a number anything's.
    fn under_every_name(&self, mut tags: Vec<Tag>) -> Vec<Tag> {
        let organizations = self.regions().organizations();
        let further: Vec<Tag> = tags
            .iter()
            .filter_map(|tag| Some((tag, tag.organization()?)))
            .flat_map(|(tag, name)| match organizations.names_of(name) {
                names if names.is_empty() && is_number(name) => vec![Tag::Everything],
                names if names.is_empty() => vec![Tag::Numbered],
                names => names.into_iter().map(|name| tag.under(&name)).collect(),
            })
            .collect();
        tags.extend(further);
        tags
    }
}
