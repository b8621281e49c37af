//! Knows for whom Sentry counts a credential's requests: by its kind, unless the operator says otherwise. Pure.
//!
//! Not here: counting (`budget`), which kinds there are (`credential`).

use std::collections::HashMap;

use crate::admission::Admission;
use crate::config::Config;
use crate::credential::{BudgetIdentity, Credential, CredentialKeys, CredentialPartition, Fingerprint};

/// Fingerprints of credentials that Sentry counts together, each with the position of its alias.
#[derive(Debug)]
pub struct Aliases {
    positions: HashMap<Fingerprint, usize>,
    names: Vec<String>,
}

impl Aliases {
    /// Takes the aliases from the configuration; what is no fingerprint was refused with it.
    pub fn new(config: &Config) -> Self {
        let members = config.budget.aliases.values().enumerate();
        let fingerprints = members.flat_map(|(position, fingerprints)| {
            fingerprints.iter().filter_map(move |text| Some((Fingerprint::parse(text)?, position)))
        });
        Self { positions: fingerprints.collect(), names: config.budget.aliases.keys().cloned().collect() }
    }

    /// Returns the name of the alias at a position.
    pub fn name(&self, position: usize) -> Option<&str> {
        self.names.get(position).map(String::as_str)
    }

    /// Returns for whom Sentry counts the requests of a credential.
    pub fn identity(
        &self,
        keys: &CredentialKeys,
        credential: Option<&Credential>,
        partition: CredentialPartition,
    ) -> BudgetIdentity {
        let fingerprint = if self.positions.is_empty() { None } else { keys.fingerprint(partition) };
        match fingerprint.and_then(|fingerprint| self.positions.get(&fingerprint)) {
            Some(position) => BudgetIdentity::Alias(*position),
            None => BudgetIdentity::of(credential.map(Credential::kind), partition),
        }
    }
}

impl Admission {
    /// Returns what people may see of whom Sentry counts requests for.
    pub fn name_of(&self, identity: BudgetIdentity) -> String {
        match identity {
            BudgetIdentity::Address => "this address".to_owned(),
            BudgetIdentity::Credential(partition) => {
                self.fingerprint(partition).map_or_else(|| "anonymous".to_owned(), |known| known.to_string())
            }
            BudgetIdentity::Alias(position) => self.aliases.name(position).unwrap_or("alias").to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::config::load;

    #[test]
    fn credentials_of_one_alias_are_counted_together_and_all_others_by_their_kind() {
        let keys = CredentialKeys::derive(&[7; 32]);
        let credential = |token: &str| {
            Credential::from_field(HeaderValue::from_str(&format!("Bearer sntryu_{token}")).unwrap())
        };
        let partition = |token: &str| keys.partition(credential(token).as_ref());
        let fingerprint = |token: &str| keys.fingerprint(partition(token)).unwrap().to_string();
        let mut config = load::defaults();
        config.budget.aliases.insert("alice".to_owned(), vec![fingerprint("one"), fingerprint("two")]);
        config.budget.aliases.insert("bob".to_owned(), vec![fingerprint("three")]);
        let aliases = Aliases::new(&config);
        let identity = |token: &str| aliases.identity(&keys, credential(token).as_ref(), partition(token));
        assert_eq!(identity("one"), BudgetIdentity::Alias(0));
        assert_eq!(identity("two"), BudgetIdentity::Alias(0));
        assert_eq!(identity("three"), BudgetIdentity::Alias(1));
        assert_eq!(identity("four"), BudgetIdentity::Credential(partition("four")));
        assert_eq!(aliases.identity(&keys, None, CredentialPartition::ANONYMOUS), BudgetIdentity::Address);
    }
}
