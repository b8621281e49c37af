//! Reads the configuration: embedded defaults < file < environment < flags.
//!
//! serde stops at the first problem. [`load`] takes the offending value out of its layer, so that what lies beneath
//! shows, and tries again, until all problems are known; each is reported with source, key and what was expected.
//!
//! Invariants: a [`Config`] is returned only when there was no problem at all; the environment is an argument.
//! Not here: what the values must satisfy (`validate`), and the words for it (`describe`).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::error::Kind;
use figment::value::{Dict, Value};

use crate::config::files::{ConfigurationFile, read_secret_files, secret_files};
use crate::config::layer::{self, Layer};
use crate::config::validate::{self, Finding};
use crate::config::{Config, Problem, describe, shape};

/// Most problems that are looked for.
const MAX_PROBLEMS: usize = 200;

/// Where settings come from besides the embedded defaults.
#[derive(Clone, Default)]
pub struct Sources {
    /// The file that `--config` names; without one, `SENTRYBOX_CONFIG` is asked.
    pub file: Option<PathBuf>,
    /// The environment; variables that do not begin with `SENTRYBOX_` are ignored.
    pub environment: Vec<(OsString, OsString)>,
    /// Values of flags.
    pub flags: Vec<Flag>,
}

/// A flag of the command line that sets a text.
#[derive(Debug, Clone)]
pub struct Flag {
    /// Its name, as in `--listen`.
    pub name: &'static str,
    /// The key that it sets.
    pub key: &'static str,
    /// The text.
    pub value: String,
}

impl fmt::Debug for Sources {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The environment may hold anything.
        formatter.debug_struct("Sources").field("file", &self.file).finish_non_exhaustive()
    }
}

/// A valid configuration, and where its values came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    origins: Origins,
}

impl Loaded {
    /// Fills in where the values came from that somebody else found a problem with.
    pub fn locate(&self, problems: Vec<Problem>) -> Vec<Problem> {
        problems.into_iter().map(|problem| self.origins.locate(problem)).collect()
    }
}

/// Returns the embedded defaults: what runs when nothing is configured.
#[expect(clippy::missing_panics_doc, reason = "a test reads the embedded file")]
pub fn defaults() -> Config {
    Figment::from(Layer::defaults())
        .extract()
        .expect("the embedded defaults have the types of the configuration")
}

/// Reads and validates the configuration.
///
/// # Errors
/// Everything that is wrong with it, in the order of the sources.
pub fn load(sources: &Sources) -> Result<Loaded, Vec<Problem>> {
    let known = known_tree();
    let mut problems = Vec::new();
    let mut layers = gather(sources, &known, &mut problems);
    // A file that could not be read may hold what the other layers need to make sense.
    let is_complete = problems.is_empty();
    for layer in layers.iter_mut().skip(1) {
        problems.extend(shape::prune(layer, &known));
    }
    let origins = Origins::of(&layers);
    let Some(mut config) = extract(&mut layers, &mut problems) else { return Err(problems) };
    if is_complete {
        let mut findings = read_secret_files(&mut config);
        findings.extend(validate::findings(&config));
        report(findings, &origins, &mut problems);
    }
    normalize(&mut config);
    if problems.is_empty() { Ok(Loaded { config, origins }) } else { Err(problems) }
}

/// Returns every file that the configuration is made of, as far as what can be read of it tells.
pub fn files(sources: &Sources) -> Vec<ConfigurationFile> {
    let (known, mut ignored) = (known_tree(), Vec::new());
    let mut layers = gather(sources, &known, &mut ignored);
    for layer in layers.iter_mut().skip(1) {
        shape::prune(layer, &known);
    }
    let named = extract(&mut layers, &mut ignored).map(|mut config| secret_files(&mut config));
    let own = configuration_file(sources)
        .map(|path| ConfigurationFile { name: path.display().to_string(), path: path.to_owned() });
    own.into_iter().chain(named.unwrap_or_default()).collect()
}

/// Returns every key that there is, with a value of the type it takes.
fn known_tree() -> Value {
    Value::serialize(defaults()).expect("the configuration has the types of the configuration language")
}

/// Returns the layers, the weakest first; the first one is the defaults.
fn gather(sources: &Sources, known: &Value, problems: &mut Vec<Problem>) -> Vec<Layer> {
    let file = configuration_file(sources).map(Layer::file);
    let mut environment: Vec<_> = sources.environment.iter().collect();
    environment.sort();
    let variables = environment.into_iter().filter_map(|pair| Layer::variable(pair, known));
    let flags = sources.flags.iter().map(|flag| Ok(Layer::flag(flag.name, flag.key, &flag.value)));
    let mut layers = vec![Layer::defaults()];
    for layer in file.into_iter().chain(variables).chain(flags) {
        match layer {
            Ok(layer) => layers.push(layer),
            Err(problem) => problems.push(problem),
        }
    }
    layers
}

/// Returns the file that `--config` or the environment names.
pub fn configuration_file(sources: &Sources) -> Option<&Path> {
    let configured = || layer::configured_file(&sources.environment).map(Path::new);
    sources.file.as_deref().or_else(configured)
}

/// Merges the layers into a configuration; what has the wrong type is reported and taken out.
fn extract(layers: &mut [Layer], problems: &mut Vec<Problem>) -> Option<Config> {
    for _ in 0..MAX_PROBLEMS {
        let merged = layers.iter().fold(Figment::new(), |merged, layer| merged.merge(layer));
        match merged.extract() {
            Ok(config) => return Some(config),
            Err(error) => problems.push(repair(layers, &error)?),
        }
    }
    None
}

/// Describes the error and takes its cause out of the layer that brought it in.
fn repair(layers: &mut [Layer], error: &figment::Error) -> Option<Problem> {
    let mut path = error.path.clone();
    let layer = layers.iter_mut().rev().find(|layer| layer.value(&path).is_some())?;
    let mut expected = describe::expectation(&error.kind);
    match &error.kind {
        Kind::MissingField(name) => path.push(name.clone().into_owned()),
        Kind::UnknownField(..) => {}
        _ => {
            let value = layer.value(&path)?;
            expected.push_str(&describe::found(&path.join("."), value));
        }
    }
    let replacement = harmless(&path, &error.kind);
    layer.replace(&path, replacement);
    Some(Problem { source: layer.source.clone(), key: path.join("."), expected })
}

/// Returns what may stand at `path` instead, where taking the value out would move or break its neighbours.
fn harmless(path: &[String], kind: &Kind) -> Option<Value> {
    const ROUTE: &str = "/api/0/";
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    match (path.as_slice(), kind) {
        (_, Kind::UnknownField(..)) => None,
        (["cache", "rules", _], _) => {
            let rule = [("route".to_owned(), Value::from(ROUTE)), ("never".to_owned(), Value::from(true))];
            Some(Value::from(Dict::from(rule)))
        }
        (["cache", "rules", _, "route"], _) => Some(Value::from(ROUTE)),
        (["listen", "trusted_proxies", _] | ["access", "networks", _], _) => {
            Some(Value::from("127.0.0.1/32"))
        }
        (["access", "credentials", _], _) => Some(Value::from("0000000000000000")),
        (["listen", "also", _], _) => Some(Value::from("unix:/nonexistent")),
        (["upstream", "link_hosts", _], _) => Some(Value::from("sentry.io")),
        (_, _) => None,
    }
}

/// Adds the findings, but none about a value that was already reported: its default has taken its place.
fn report(findings: Vec<Finding>, origins: &Origins, problems: &mut Vec<Problem>) {
    for finding in findings {
        let is_follow_on = problems.iter().any(|problem| finding.is_about(&problem.key));
        if !is_follow_on {
            let key = origins.most_specific(&finding.keys).to_owned();
            problems.push(origins.locate(Problem { source: String::new(), key, expected: finding.expected }));
        }
    }
}

/// Gives URLs their one spelling: without a slash at the end.
fn normalize(config: &mut Config) {
    let regions = config.upstream.regions.values_mut();
    let others = [&mut config.public_url, &mut config.upstream.url, &mut config.upstream.control];
    for url in regions.chain(others) {
        url.truncate(url.trim_end_matches('/').len());
    }
}

/// Which source each configured key came from.
#[derive(Debug, Clone)]
struct Origins(BTreeMap<String, String>);

impl Origins {
    fn of(layers: &[Layer]) -> Self {
        let keys = |layer: &Layer| {
            let source = layer.source.clone();
            shape::keys(layer.values()).into_iter().map(move |key| (key, source.clone()))
        };
        // Later layers win, as their values do.
        Self(layers.iter().skip(1).flat_map(keys).collect())
    }

    /// Fills in the source of the problem's key, or of the section that holds it.
    fn locate(&self, mut problem: Problem) -> Problem {
        if problem.source.is_empty() {
            let mut key = problem.key.as_str();
            loop {
                if let Some(source) = self.0.get(key) {
                    problem.source.clone_from(source);
                    break;
                }
                let Some((parent, _)) = key.rsplit_once('.') else { break };
                key = parent;
            }
        }
        problem
    }

    /// Returns the first of `keys` that was configured, or the first one.
    fn most_specific<'a>(&self, keys: &'a [String]) -> &'a str {
        let configured = keys.iter().find(|key| self.0.contains_key(*key));
        configured.or(keys.first()).map_or("", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::SocketAddr;
    use std::time::Duration;

    use bytesize::ByteSize;
    use tempfile::TempDir;

    use super::*;
    use crate::config::listen::ListenAddress;

    const SECRET: &str = "a secret of at least thirty-two characters";

    /// A file, an environment and flags to load from.
    struct Case {
        directory: TempDir,
        sources: Sources,
    }

    impl Case {
        fn new() -> Self {
            Self { directory: TempDir::new().unwrap(), sources: Sources::default() }
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.directory.path().join(name);
            fs::write(&path, text).unwrap();
            path
        }

        fn file(mut self, text: &str) -> Self {
            self.sources.file = Some(self.write("sentrybox.toml", text));
            self
        }

        fn variable(mut self, name: &str, value: &str) -> Self {
            self.sources.environment.push((name.into(), value.into()));
            self
        }

        fn flag(mut self, name: &'static str, key: &'static str, value: &str) -> Self {
            self.sources.flags.push(Flag { name, key, value: value.to_owned() });
            self
        }

        fn config(&self) -> Config {
            load(&self.sources).unwrap().config
        }

        fn problems(&self) -> Vec<Problem> {
            load(&self.sources).unwrap_err()
        }

        /// Loads, and expects problems with exactly these keys.
        fn fails_with(&self, keys: &[&str]) -> Vec<Problem> {
            let problems = self.problems();
            let found: Vec<_> = problems.iter().map(|problem| problem.key.as_str()).collect();
            assert_eq!(found, keys, "{problems:#?}");
            problems
        }
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn without_anything_the_defaults_hold() {
        let config = Case::new().config();
        assert_eq!(config.listen.address, ListenAddress::Plain(address("127.0.0.1:9000")));
        assert_eq!(config.cache.max_bytes, ByteSize::mib(256));
        assert_eq!(config.cache.classes["static"].fresh_for, Some(Duration::from_mins(5)));
        assert!(config.cache.rules.is_empty());
    }

    #[test]
    fn flags_win_over_variables_and_variables_over_the_file() {
        let case = Case::new()
            .file("[listen]\naddress = \"127.0.0.1:1\"\n[admin]\naddress = \"127.0.0.1:2\"\n[budget]\nmax_wait = \"1s\"")
            .variable("SENTRYBOX_LISTEN__ADDRESS", "127.0.0.1:3")
            .variable("SENTRYBOX_ADMIN__ADDRESS", "127.0.0.1:4")
            .flag("--listen", "listen.address", "127.0.0.1:5");
        let config = case.config();
        assert_eq!(config.listen.address, ListenAddress::Plain(address("127.0.0.1:5")));
        assert_eq!(config.admin.address, address("127.0.0.1:4"));
        assert_eq!(config.budget.max_wait, Duration::from_secs(1));
    }

    #[test]
    fn the_environment_names_the_file_and_the_flag_wins_over_it() {
        let mut case = Case::new();
        let named = case.write("named.toml", "[upstream]\nregion = \"us\"");
        case = case.variable("SENTRYBOX_CONFIG", named.to_str().unwrap());
        assert_eq!(case.config().upstream.region, "us");
        assert_eq!(case.file("[upstream]\nregion = \"de\"").config().upstream.region, "de");
    }

    #[test]
    fn aliases_are_read_from_a_file_and_from_the_environment() {
        let config = Case::new()
            .file("[budget.aliases]\nalice = [\"0123456789abcdef\"]")
            .variable("SENTRYBOX_SECRET", SECRET)
            .variable("SENTRYBOX_BUDGET__ALIASES__BOB", "fedcba9876543210, 0000000000000000")
            .config();
        assert_eq!(config.budget.aliases["alice"], ["0123456789abcdef"]);
        assert_eq!(config.budget.aliases["bob"], ["fedcba9876543210", "0000000000000000"]);
    }

    #[test]
    fn a_routing_that_is_none_and_one_without_a_control_host_are_reported_by_their_keys() {
        let problems =
            Case::new().variable("SENTRYBOX_UPSTREAM__ROUTING", "sideways").fails_with(&["upstream.routing"]);
        assert!(problems[0].expected.contains("by-organization"), "{problems:?}");
        let case =
            Case::new().file("[upstream]\nurl = \"http://127.0.0.1:8000\"\nrouting = \"by-organization\"");
        let problems = case.fails_with(&["upstream.routing"]);
        assert!(problems[0].expected.contains("control host"), "{problems:?}");
        let config = case.variable("SENTRYBOX_UPSTREAM__CONTROL", "http://127.0.0.1:8001/").config();
        assert_eq!(config.upstream.control, "http://127.0.0.1:8001");
    }

    #[test]
    fn regions_classes_and_rules_can_be_added_from_the_environment() {
        let config = Case::new()
            .variable("SENTRYBOX_UPSTREAM__REGIONS__HERE", "http://127.0.0.1:8000/")
            .variable("SENTRYBOX_UPSTREAM__REGION", "here")
            .variable("SENTRYBOX_CACHE__CLASSES__MINE__FRESH_FOR", "7s")
            .variable("SENTRYBOX_CACHE__RULES", "[{route = \"/api/0/{*rest}\", class = \"mine\"}]")
            .variable("SENTRYBOX_LISTEN__TRUSTED_PROXIES", "10.0.0.0/8, ::1/128")
            .config();
        assert_eq!(config.upstream.regions["here"], "http://127.0.0.1:8000");
        assert_eq!(config.upstream.regions.len(), 4);
        assert_eq!(config.cache.classes["mine"].fresh_for, Some(Duration::from_secs(7)));
        assert_eq!(config.cache.rules[0].class.as_deref(), Some("mine"));
        assert_eq!(config.listen.trusted_proxies.len(), 2);
    }

    #[test]
    fn a_secret_of_digits_stays_text() {
        let digits = "1".repeat(40);
        let config = Case::new().variable("SENTRYBOX_SECRET", &digits).config();
        assert_eq!(config.secret.expose(), digits);
    }

    #[test]
    fn all_problems_are_reported_at_once_each_with_its_source() {
        let case = Case::new()
            .file("colour = 1\n[cache]\nmax_bytes = \"lots\"\nsettle = 10\neviction = \"random\"")
            .variable("SENTRYBOX_BUDGET__ENABLED", "perhaps")
            .variable("SENTRYBOX_LISTEN_ADDRESS", "127.0.0.1:1")
            .flag("--admin", "admin.address", "nowhere");
        let problems = case.fails_with(&[
            "colour",
            "listen_address",
            "admin.address",
            "budget.enabled",
            "cache.eviction",
            "cache.max_bytes",
            "cache.settle",
        ]);
        let of = |key: &str| problems.iter().find(|problem| problem.key == key).unwrap();
        assert!(of("cache.max_bytes").source.ends_with("sentrybox.toml"));
        assert_eq!(of("budget.enabled").source, "SENTRYBOX_BUDGET__ENABLED");
        assert_eq!(of("admin.address").source, "--admin");
        for (key, expected) in [
            ("cache.max_bytes", "expected a size such as \"64MiB\", found \"lots\""),
            ("cache.settle", "expected a duration such as \"30s\" or \"5m\", found 10"),
            ("cache.eviction", "expected one of `lru`, `tiny-lfu`, found \"random\""),
            ("budget.enabled", "expected true or false, found \"perhaps\""),
            (
                "admin.address",
                "expected an IP address and port such as \"127.0.0.1:9000\", found \"nowhere\"",
            ),
            ("listen_address", "unknown key; did you mean SENTRYBOX_LISTEN__ADDRESS?"),
        ] {
            assert_eq!(of(key).expected, expected, "{key}");
        }
    }

    #[test]
    fn members_of_lists_are_reported_under_their_own_number() {
        let case = Case::new().file(concat!(
            "[listen]\ntrusted_proxies = [\"x\", \"10.0.0.0/8\", 3]\n",
            "[[cache.rules]]\nroute = 1\nclass = \"slow\"\n",
            "[[cache.rules]]\nclass = \"slow\"\n",
            "[[cache.rules]]\nroute = \"/api/0/\"\nclas = \"slow\"\nnever = true\n",
        ));
        case.fails_with(&[
            "cache.rules.0.route",
            "cache.rules.1.route",
            "cache.rules.2.clas",
            "listen.trusted_proxies.0",
            "listen.trusted_proxies.2",
        ]);
    }

    #[test]
    fn a_value_is_no_section_and_a_section_no_value() {
        let case = Case::new()
            .file("listen = 1\n[public_url]\nx = 1")
            .variable("SENTRYBOX_CACHE", "x")
            .variable("SENTRYBOX_CACHE__SETTLE", "1s");
        case.fails_with(&["listen", "public_url", "cache"]);
    }

    #[test]
    fn a_secret_is_never_part_of_a_problem() {
        let broken = Case::new().file("secret = hunter2");
        let typed = Case::new().file("secret = 20017\n[admin]\ntoken = [\"hunter2\"]\ntokens = \"hunter2\"");
        let short = Case::new()
            .variable("SENTRYBOX_SECRET", "hunter2")
            .variable("SENTRYBOX_ADMIN__TOKEN", "hunter2")
            .variable("SENTRYBOX_WEBHOOKS__SECRET", "hunter2")
            .variable("SENTRYBOX_SECRETS", "hunter2")
            .variable("SENTRYBOX_UPSTREAM__URL", "https://me:hunter2@sentry.io");
        let wrong_key = Case::new().variable("SENTRYBOX_SECRET_FILE", "hunter2");
        for case in [broken, typed, short, wrong_key] {
            let problems = case.problems();
            let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
            let printed = format!("{lines:#?} {problems:?}");
            assert!(!printed.contains("hunter2") && !printed.contains("20017"), "{printed}");
        }
    }

    #[test]
    fn a_file_that_is_not_toml_is_reported_with_line_and_column() {
        let problems = Case::new().file("[listen]\naddress = \n").problems();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].source.ends_with("sentrybox.toml:2:11"), "{}", problems[0]);
        assert!(problems[0].expected.starts_with("not valid TOML: "), "{}", problems[0]);
    }

    #[test]
    fn a_missing_file_is_a_problem_and_hides_no_other_one() {
        let mut case = Case::new().variable("SENTRYBOX_CACHE__SETTLE", "soon");
        case.sources.file = Some(case.directory.path().join("missing.toml"));
        let problems = case.fails_with(&["", "cache.settle"]);
        assert!(problems[0].to_string().contains("missing.toml: could not read the configuration file"));
    }

    #[test]
    fn a_secret_may_stand_in_a_file_without_its_newline() {
        let case = Case::new();
        let path = case.write("secret", &format!("{SECRET}\n"));
        let case = case.variable("SENTRYBOX_SECRET_FILE", path.to_str().unwrap());
        assert_eq!(case.config().secret.expose(), SECRET);
        case.variable("SENTRYBOX_SECRET", SECRET).fails_with(&["secret_file"]);
    }

    #[test]
    fn a_secret_file_that_is_missing_or_empty_is_a_problem() {
        let case = Case::new();
        let empty = case.write("empty", "\n");
        let missing = case.directory.path().join("missing");
        case.variable("SENTRYBOX_SECRET_FILE", empty.to_str().unwrap())
            .variable("SENTRYBOX_ADMIN__TOKEN_FILE", missing.to_str().unwrap())
            .variable("SENTRYBOX_WEBHOOKS__SECRET_FILE", missing.to_str().unwrap())
            .fails_with(&["secret_file", "admin.token_file", "webhooks.secret_file"]);
    }

    #[test]
    fn webhooks_are_configured_by_a_secret_or_its_file_and_perhaps_an_address() {
        let case = Case::new();
        assert!(case.config().webhooks.secret.is_empty());
        assert_eq!(case.config().webhooks.address, None);
        let path = case.write("webhooks", "a client secret of Sentry's\n");
        let case = case
            .variable("SENTRYBOX_WEBHOOKS__SECRET_FILE", path.to_str().unwrap())
            .variable("SENTRYBOX_WEBHOOKS__ADDRESS", "127.0.0.1:9002");
        let config = case.config();
        assert_eq!(config.webhooks.secret.expose(), "a client secret of Sentry's");
        assert_eq!(config.webhooks.address, Some(address("127.0.0.1:9002")));
        case.variable("SENTRYBOX_WEBHOOKS__SECRET", "another client secret")
            .fails_with(&["webhooks.secret_file"]);
        let problems =
            Case::new().file("[webhooks]\naddress = \"nowhere\"").fails_with(&["webhooks.address"]);
        let expected = "expected an IP address and port such as \"127.0.0.1:9000\", found \"nowhere\"";
        assert_eq!(problems[0].expected, expected);
    }

    #[test]
    fn traces_are_configured_by_a_url_and_perhaps_a_share_and_a_file_of_fields() {
        let mut case = Case::new()
            .file("[traces]\nendpoint = \"http://127.0.0.1:4318/v1/traces\"\nsample_ratio = 1")
            .variable("SENTRYBOX_TRACES__SAMPLE_RATIO", "0.25");
        let fields = case.write("fields", "x-key: hunter2\nx-tenant: acme\n");
        case = case.variable("SENTRYBOX_TRACES__HEADERS_FILE", fields.to_str().unwrap());
        let traces = case.config().traces;
        assert_eq!((traces.sample_ratio.to_string().as_str(), traces.fields().unwrap().len()), ("0.25", 2));
        assert!(!toml::to_string(&case.config()).unwrap().contains("hunter2"));
        let case = Case::new()
            .variable("SENTRYBOX_TRACES__ENDPOINT", "127.0.0.1:4318")
            .variable("SENTRYBOX_TRACES__HEADERS", "hunter2");
        let problems = case.fails_with(&["traces.endpoint", "traces.headers"]);
        assert!(!format!("{problems:?}").contains("hunter2"), "{problems:?}");
        let problems = Case::new()
            .variable("SENTRYBOX_TRACES__SAMPLE_RATIO", "half")
            .fails_with(&["traces.sample_ratio"]);
        assert_eq!(problems[0].expected, "expected a number, found \"half\"");
    }

    #[test]
    fn what_follows_from_a_reported_problem_is_not_reported() {
        // Without its file, the secret is empty; with its default, `max_bytes` is larger than this.
        Case::new()
            .file("[cache]\nmax_bytes = \"2TB!\"\nmax_response_bytes = \"1GiB\"")
            .fails_with(&["cache.max_bytes"]);
    }

    #[test]
    fn a_finding_of_validation_names_the_source_of_its_value() {
        let problems =
            Case::new().flag("--region", "upstream.region", "moon").fails_with(&["upstream.region"]);
        assert_eq!(problems[0].source, "--region");
        let loaded = load(&Sources::default()).unwrap();
        let problem =
            Problem { source: String::new(), key: "cache.rules.0".to_owned(), expected: "x".to_owned() };
        assert_eq!(loaded.locate(vec![problem])[0].source, "");
    }

    #[test]
    fn the_effective_configuration_reads_back_as_itself() {
        let config = Case::new()
            .file("[cache]\nmax_bytes = 10000001\n[[cache.rules]]\nroute = \"/api/0/{*rest}\"\nnever = true")
            .config();
        let printed = toml::to_string(&config).unwrap();
        let again = Case::new().file(&printed).config();
        assert_eq!(again.cache.max_bytes, ByteSize::b(10_000_001));
        assert_eq!(toml::to_string(&again).unwrap(), printed);
    }

    #[test]
    fn every_option_is_documented_with_its_environment_variable() {
        let text = include_str!("../../config/default.toml");
        let known = known_tree();
        for key in shape::keys(&known) {
            let path: Vec<_> = key.split('.').collect();
            if layer::lookup(&known, &path).unwrap().as_dict().is_some() {
                continue;
            }
            let documented = match path.as_slice() {
                ["upstream", "regions", _] => "upstream.regions.<name>".to_owned(),
                ["cache", "classes", _, name] => format!("cache.classes.<name>.{name}"),
                _ => key.clone(),
            };
            let variable = describe::variable(&documented);
            let line =
                |line: &str| line.starts_with('#') && line.split_whitespace().any(|word| word == variable);
            assert!(text.lines().any(line), "{key}: no comment names {variable}");
            assert!(Layer::defaults().value(&path).is_some() || key == "cache.rules", "{key} has no default");
        }
    }

    #[test]
    fn every_key_of_the_defaults_has_a_comment_of_its_own() {
        let text = include_str!("../../config/default.toml");
        let mut section = "";
        let mut above = "";
        for line in text.lines() {
            if line.starts_with('[') {
                section = line;
            } else if line.contains(" = ") && !line.starts_with('#') {
                let is_open = section.starts_with("[cache.classes") || section == "[upstream.regions]";
                assert!(is_open || above.starts_with('#'), "{section} {line}");
            }
            above = line;
        }
    }

    #[test]
    fn the_examples_load() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
        for name in ["default.toml", "sidecar.toml", "shared.toml"] {
            let mut case = Case::new()
                .variable("SENTRYBOX_SECRET", SECRET)
                .variable("SENTRYBOX_ADMIN__TOKEN", "a-token-for-operators");
            case.sources.file = Some(directory.join(name));
            case.config();
        }
    }
}
