//! Says which keys differ between two configurations.
//!
//! Invariants: names keys, and never a value; a secret that differs is found although it is never printed.
//! Not here: what follows from a difference (`reload`).

use toml::Value;

use crate::config::{Config, Secret};

/// Every secret, and its key. They look all alike once they are serialized.
const SECRETS: [(&str, Select); 5] = [
    ("secret", |config| &config.secret),
    ("admin.token", |config| &config.admin.token),
    ("webhooks.secret", |config| &config.webhooks.secret),
    ("traces.headers", |config| &config.traces.headers),
    ("access.shared_secret", |config| &config.access.shared_secret),
];

type Select = fn(&Config) -> &Secret;

/// Returns the dotted keys whose values differ, in alphabetical order. A list differs as a whole.
pub fn changed_keys(before: &Config, after: &Config) -> Vec<String> {
    let mut keys = Vec::new();
    compare(Some(&tree(before)), Some(&tree(after)), "", &mut keys);
    let secrets = SECRETS.iter().filter(|(_, secret)| secret(before).expose() != secret(after).expose());
    keys.extend(secrets.map(|(key, _)| (*key).to_owned()));
    keys.sort();
    keys.dedup();
    keys
}

fn tree(config: &Config) -> Value {
    Value::try_from(config).expect("the configuration has the types of the configuration language")
}

/// Collects the keys below `key` whose values differ. What is missing on one side differs from what is there.
fn compare(before: Option<&Value>, after: Option<&Value>, key: &str, keys: &mut Vec<String>) {
    if before == after {
        return;
    }
    let names = |value: Option<&Value>| -> Vec<String> {
        value.and_then(Value::as_table).map(|section| section.keys().cloned().collect()).unwrap_or_default()
    };
    let names = [names(before), names(after)].concat();
    if names.is_empty() {
        keys.push(key.to_owned());
    }
    for name in names {
        let inner = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
        let (before, after) = (before.and_then(|it| it.get(&name)), after.and_then(|it| it.get(&name)));
        compare(before, after, &inner, keys);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use figment::Figment;
    use figment::value::Value as Known;

    use super::*;
    use crate::config::cache::RuleConfig;
    use crate::config::layer::Layer;
    use crate::config::{layer, load, shape};

    fn changed(change: impl FnOnce(&mut Config)) -> Vec<String> {
        let mut config = load::defaults();
        change(&mut config);
        changed_keys(&load::defaults(), &config)
    }

    #[test]
    fn nothing_differs_from_itself() {
        assert_eq!(changed(|_| {}), [""; 0]);
    }

    #[test]
    fn the_keys_that_differ_are_named_once_each() {
        let keys = changed(|config| {
            config.shutdown.grace = Duration::from_secs(7);
            config.upstream.regions.remove("de");
            config.upstream.regions.insert("moon".to_owned(), "https://moon.example".to_owned());
            config.cache.rules.push(RuleConfig {
                route: "/api/0/a/".to_owned(),
                class: None,
                never: true,
                overrides: false,
            });
        });
        assert_eq!(keys, ["cache.rules", "shutdown.grace", "upstream.regions.de", "upstream.regions.moon"]);
    }

    #[test]
    fn another_secret_is_another_configuration() {
        let secret = |text: &str| Secret::new(text.to_owned());
        let (mut one, mut other) = (load::defaults(), load::defaults());
        (one.secret, one.admin.token, one.webhooks.secret) = (secret("a"), secret("b"), secret("c"));
        (other.secret, other.admin.token, other.webhooks.secret) = (secret("d"), secret("e"), secret("f"));
        assert_eq!(changed_keys(&one, &other), ["admin.token", "secret", "webhooks.secret"]);
        assert_eq!(changed_keys(&one, &load::defaults()), ["admin.token", "secret", "webhooks.secret"]);
    }

    #[test]
    fn every_secret_is_compared() {
        let known = Known::serialize(load::defaults()).unwrap();
        let is_secret = |key: &String| {
            let figment = Figment::from(Layer::defaults()).merge((key, "https://canary.example"));
            let Ok(config) = figment.extract::<Config>() else { return false };
            let path: Vec<_> = key.split('.').collect();
            let printed = Known::serialize(config).unwrap();
            layer::lookup(&printed, &path).unwrap().as_str() == Some("[redacted]")
        };
        let secrets: BTreeSet<_> = SECRETS.iter().map(|(key, _)| (*key).to_owned()).collect();
        assert_eq!(shape::keys(&known).into_iter().filter(is_secret).collect::<BTreeSet<_>>(), secrets);
    }
}
