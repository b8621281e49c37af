//! Reads the configuration anew for a process that serves, as strictly as `sentrybox check` does.
//!
//! Invariant: the sources are those of the start: the same file, flags and environment.
//! Not here: when (`cli::runtime`), what follows (`reload`).

use std::fs;
use std::path::Path;

use crate::assembly;
use crate::cli;
use crate::config::load::{Sources, configuration_file, files, load};
use crate::config::{Config, Problem};
use crate::reload::ReloadSource;
use crate::reload::polling::Reading;

/// Returns where a process that was started with these sources reads its configuration anew.
pub fn source(sources: &Sources) -> ReloadSource {
    let (watched, sources) = (sources.clone(), sources.clone());
    ReloadSource::new(move || read(&sources)).watching(move || look(&watched))
}

/// Looks at what the files hold. What can be read only once, such as a pipe, is left to whoever reads it in earnest.
fn look(sources: &Sources) -> Reading {
    let is_pipe = |file: &Path| fs::metadata(file).is_ok_and(|file| !file.is_file());
    if configuration_file(sources).is_some_and(is_pipe) {
        return Reading::of(&[], |file| fs::read(file));
    }
    Reading::of(&files(sources), |file| if is_pipe(file) { Ok(Vec::new()) } else { fs::read(file) })
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
    use std::io::{Write as _, pipe};
    use std::os::fd::AsRawFd as _;

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

    /// A folder of a configuration, as Kubernetes mounts it: names that lead through `..data` to the present version's folder.
    struct Mount(tempfile::TempDir);

    impl Mount {
        fn new() -> Self {
            let mount = Self(tempfile::tempdir().unwrap());
            mount.swap("one", "[log]\nlevel = \"info\"");
            std::os::unix::fs::symlink("..data/sentrybox.toml", mount.file()).unwrap();
            mount
        }

        fn file(&self) -> std::path::PathBuf {
            self.0.path().join("sentrybox.toml")
        }

        fn swap(&self, version: &str, text: &str) {
            let folder = self.0.path().join(version);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("sentrybox.toml"), text).unwrap();
            let (link, new) = (self.0.path().join("..data"), self.0.path().join("..data_tmp"));
            std::os::unix::fs::symlink(version, &new).unwrap();
            fs::rename(new, link).unwrap();
        }
    }

    #[test]
    fn a_link_that_leads_elsewhere_an_edit_and_a_rename_are_seen_alike() {
        let mount = Mount::new();
        let sources = sources(&mount.file());
        let seen = || look(&sources);
        let one = seen();
        assert!(matches!(one, Reading::Whole(_)), "{one:?}");
        mount.swap("two", "[log]\nlevel = \"info\"");
        assert_eq!(seen(), one, "the same content under another folder is the same");
        mount.swap("three", "[log]\nlevel = \"debug\"");
        let three = seen();
        assert_ne!(three, one);
        fs::write(mount.file(), "[log]\nlevel = \"warn\"").unwrap();
        let edited = seen();
        assert_ne!(edited, three);
        let new = mount.0.path().join("new");
        fs::write(&new, "[log]\nlevel = \"info\"").unwrap();
        fs::rename(new, mount.file()).unwrap();
        assert_eq!(seen(), one, "and back to what it was");
        fs::remove_file(mount.file()).unwrap();
        assert_eq!(seen(), Reading::Gone(mount.file().display().to_string()));
    }

    #[test]
    fn the_files_of_secrets_belong_to_it_wherever_they_are_named_and_however_wrong_the_rest_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let (file, shared, token) = (path("sentrybox.toml"), path("shared"), path("token"));
        for secret in [&shared, &token] {
            fs::write(secret, "one").unwrap();
        }
        fs::write(&file, format!("[access]\nshared_secret_file = {shared:?}\nnetworks = 7")).unwrap();
        let variable = ("SENTRYBOX_ADMIN__TOKEN_FILE".into(), token.clone().into());
        let sources = Sources { environment: vec![variable], ..sources(&file) };
        let mut readings = vec![look(&sources)];
        for secret in [&shared, &token] {
            fs::write(secret, "another").unwrap();
            assert!(!readings.contains(&look(&sources)), "{secret:?}");
            readings.push(look(&sources));
        }
        fs::remove_file(&shared).unwrap();
        assert_eq!(look(&sources), Reading::Gone("access.shared_secret_file".to_owned()), "by its key alone");
        fs::write(&file, "no TOML at all").unwrap();
        assert!(matches!(look(&sources), Reading::Whole(_)), "what is wrong is read, and rejected");
    }

    #[test]
    fn a_pipe_is_not_looked_at_because_it_can_be_read_only_once() {
        let with_text = |text: &str| {
            let (reader, mut writer) = pipe().unwrap();
            writer.write_all(text.as_bytes()).unwrap();
            let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
            (reader, path)
        };
        let (_secret, secret_path) = with_text("canary-canary-canary");
        let text = format!("[log]\nlevel = \"debug\"\n[access]\nshared_secret_file = {secret_path:?}");
        let (_config, path) = with_text(&text);
        let sources = sources(Path::new(&path));
        assert_eq!(look(&sources), look(&sources));
        let config = read(&sources).unwrap();
        assert_eq!(config.log.level, LogLevel::Debug);
        assert_eq!(config.access.shared_secret.expose(), "canary-canary-canary");
    }
}
