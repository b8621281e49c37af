//! Reads the configuration anew for a process that serves, as strictly as `sentrybox check` does.
//!
//! Invariant: the sources are those of the start: the same file, flags and environment.
//! Not here: when (`cli::runtime`), what follows (`reload`).

use crate::assembly;
use crate::cli;
use crate::config::load::{Sources, load};
use crate::config::{Config, Problem};
use crate::reload::ReloadSource;

/// Returns where a process that was started with these sources reads its configuration anew.
pub fn source(sources: &Sources) -> ReloadSource {
    let sources = sources.clone();
    ReloadSource::new(move || read(&sources))
}

fn read(sources: &Sources) -> Result<Config, Vec<Problem>> {
    let loaded = load(sources)?;
    let mut problems = cli::deeper_problems(&loaded);
    if problems.is_empty() {
        let egress = cli::egress(&sources.environment);
        let assembled = assembly::proxy(&loaded.config, &egress)
            .and_then(|proxy| assembly::exporter(&loaded.config, &egress, &proxy))
            .and_then(|_| assembly::certificates(&loaded.config.listen));
        problems = assembled.err().map(|error| error.problems()).unwrap_or_default();
    }
    if problems.is_empty() { Ok(loaded.config) } else { Err(loaded.locate(problems)) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::config::log::LogLevel;

    fn sources(file: &Path) -> Sources {
        Sources { file: Some(file.to_owned()), ..Sources::default() }
    }

    #[test]
    fn what_check_would_find_is_found_wherever_it_shows() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("sentrybox.toml");
        let check = |text: &str, key: &str| {
            fs::write(&file, text).unwrap();
            let problems = read(&sources(&file)).unwrap_err();
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].key.starts_with(key), "{problems:?}");
            assert!(problems[0].source.contains("sentrybox.toml"), "{problems:?}");
        };
        check("[log]\nlevel = \"loud\"", "log.level");
        check("[log]\nhit_sample_rate = 2", "log.hit_sample_rate");
        check("[shutdown]\ngrace = \"1000000h\"", "shutdown.grace");
        check("[[cache.rules]]\nroute = \"/api/0/{a}{b}/\"\nnever = true", "cache.rules");
        check("[upstream]\nca_file = \"/nowhere/at/all.pem\"", "upstream");
        check("[log", "");
    }

    #[test]
    fn what_has_changed_since_the_start_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("sentrybox.toml");
        for (text, level) in [("", LogLevel::Info), ("[log]\nlevel = \"debug\"", LogLevel::Debug)] {
            fs::write(&file, text).unwrap();
            assert_eq!(read(&sources(&file)).unwrap().log.level, level);
        }
        fs::remove_file(&file).unwrap();
        assert_eq!(read(&sources(&file)).unwrap_err().len(), 1);
    }
}
