//! Which files a configuration is made of, besides its own: those that hold its secrets.
//!
//! Invariants: what is read is never repeated, nor is a path, because people put the secret itself there by mistake.
//! Not here: files that are read once and for all, such as further root certificates (`upstream`).

use std::path::{Path, PathBuf};

use crate::config::validate::Finding;
use crate::config::{Config, Secret};

/// Every secret that may stand in a file, by its key; the file's key is that with `_file`.
const SECRETS: [(&str, Select); 5] = [
    ("secret", |config| (&mut config.secret, &config.secret_file)),
    ("admin.token", |config| (&mut config.admin.token, &config.admin.token_file)),
    ("webhooks.secret", |config| (&mut config.webhooks.secret, &config.webhooks.secret_file)),
    ("traces.headers", |config| (&mut config.traces.headers, &config.traces.headers_file)),
    ("access.shared_secret", |config| (&mut config.access.shared_secret, &config.access.shared_secret_file)),
];

type Select = for<'a> fn(&'a mut Config) -> (&'a mut Secret, &'a Path);

/// A file that a configuration is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigurationFile {
    /// What it may be called: its own path, or the key that names it.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
}

/// Returns the files that hold secrets.
pub fn secret_files(config: &mut Config) -> Vec<ConfigurationFile> {
    let file = |(key, select): &(&str, Select)| {
        let path = select(config).1.to_owned();
        (!path.as_os_str().is_empty()).then(|| ConfigurationFile { name: format!("{key}_file"), path })
    };
    SECRETS.iter().filter_map(file).collect()
}

/// Reads the secrets that stand in files of their own.
pub fn read_secret_files(config: &mut Config) -> Vec<Finding> {
    let read = |(key, select): &(&str, Select)| {
        let (secret, file) = select(config);
        let expected = read_secret(secret, file).err()?;
        Some(Finding::of(&[&format!("{key}_file"), key], expected))
    };
    SECRETS.iter().filter_map(read).collect()
}

/// Reads one secret; the newline at the end of the file is not part of it.
fn read_secret(secret: &mut Secret, file: &Path) -> Result<(), String> {
    if file.as_os_str().is_empty() {
        return Ok(());
    }
    if !secret.is_empty() {
        return Err("expected either the secret itself or a file that holds it, found both".to_owned());
    }
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("expected a file that can be read as text: {error}"))?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err("expected a file that holds the secret, found an empty one".to_owned());
    }
    *secret = Secret::new(text.to_owned());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use figment::value::Value;

    use super::*;
    use crate::config::{load, shape};

    #[test]
    fn every_key_of_a_file_is_one_of_a_secret_but_for_what_is_read_once() {
        let known = Value::serialize(load::defaults()).unwrap();
        let named: BTreeSet<_> =
            shape::keys(&known).into_iter().filter(|key| key.ends_with("_file")).collect();
        let mut expected: BTreeSet<_> = SECRETS.iter().map(|(key, _)| format!("{key}_file")).collect();
        expected.insert("upstream.ca_file".to_owned());
        // Looked at by `server::tls`, together.
        expected.extend(["certificate", "key", "client_ca"].map(|name| format!("listen.tls.{name}_file")));
        assert_eq!(named, expected);
    }
}
