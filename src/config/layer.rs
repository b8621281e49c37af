//! One source of settings: the embedded defaults, a file, an environment variable or a flag.
//!
//! Invariants: a text stays a text although it looks like a number, because the type of the default at that key
//! decides how an environment variable is read; nothing here prints a value.
//! Not here: which layer wins, and whether the values make sense (`load`, `validate`).

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::Path;

use figment::value::{Dict, Map, Num, Value};
use figment::{Metadata, Profile, Provider};

use crate::config::Problem;
use crate::config::describe::ENVIRONMENT_PREFIX;

/// The environment variable that names the configuration file.
pub const CONFIG_VARIABLE: &str = "SENTRYBOX_CONFIG";

/// The file that documents every option and gives it its default.
const DEFAULTS: &str = include_str!("../../config/default.toml");

/// Settings from one source, as a tree of sections.
#[derive(Clone)]
pub struct Layer {
    /// A file's path, the name of a variable or of a flag.
    pub source: String,
    values: Value,
}

impl Layer {
    /// Returns the embedded defaults.
    #[expect(clippy::missing_panics_doc, reason = "a test reads the embedded file")]
    pub fn defaults() -> Self {
        let values: Dict = toml::from_str(DEFAULTS).expect("the embedded defaults are valid TOML");
        Self { source: "built-in defaults".to_owned(), values: Value::from(values) }
    }

    /// Reads a TOML file.
    ///
    /// # Errors
    /// The file cannot be read, or is not TOML. The line itself is not repeated: it may hold a secret.
    pub fn file(path: &Path) -> Result<Self, Problem> {
        let source = path.display().to_string();
        let problem = |source, expected| Problem { source, key: String::new(), expected };
        let text = std::fs::read_to_string(path).map_err(|error| {
            problem(source.clone(), format!("could not read the configuration file: {error}"))
        })?;
        match toml::from_str::<Dict>(&text) {
            Ok(values) => Ok(Self { source, values: Value::from(values) }),
            Err(error) => {
                let (line, column) = position(&text, error.span().map_or(0, |span| span.start));
                let expected = format!("not valid TOML: {}", error.message().replace('\n', ", "));
                Err(problem(format!("{source}:{line}:{column}"), expected))
            }
        }
    }

    /// Takes one environment variable; `None` when it is none of ours. `known` is the tree of the defaults.
    ///
    /// # Errors
    /// The value is not UTF-8.
    pub fn variable(pair: &(OsString, OsString), known: &Value) -> Option<Result<Self, Problem>> {
        let name = pair.0.to_str()?;
        let rest = name.strip_prefix(ENVIRONMENT_PREFIX)?;
        if name == CONFIG_VARIABLE || is_service_link(rest) {
            return None;
        }
        let key = rest.to_lowercase().replace("__", ".");
        let path: Vec<&str> = key.split('.').collect();
        let Some(text) = pair.1.to_str() else {
            let expected = "expected text in UTF-8".to_owned();
            return Some(Err(Problem { source: name.to_owned(), key, expected }));
        };
        let value = match path.as_slice() {
            // What has no default has a type all the same.
            ["budget", "aliases", _] => list(text),
            _ => typed(text, lookup(known, &path)),
        };
        Some(Ok(Self::single(name, &path, value)))
    }

    /// Takes the value of a flag that sets the text at `key`.
    pub fn flag(name: &str, key: &str, value: &str) -> Self {
        Self::single(name, &key.split('.').collect::<Vec<_>>(), Value::from(value))
    }

    fn single(source: &str, path: &[&str], value: Value) -> Self {
        let nest = |inner: Value, name: &&str| Value::from(Dict::from([((*name).to_owned(), inner)]));
        Self { source: source.to_owned(), values: path.iter().rev().fold(value, nest) }
    }

    /// Returns the whole tree.
    pub fn values(&self) -> &Value {
        &self.values
    }

    /// Returns the value at `path`; a number in it counts into a list.
    pub fn value<S: AsRef<str>>(&self, path: &[S]) -> Option<&Value> {
        lookup(&self.values, path)
    }

    /// Puts `replacement` at `path`, or removes what is there.
    pub fn replace(&mut self, path: &[String], replacement: Option<Value>) {
        let Some((last, parents)) = path.split_last() else { return };
        let Some(parent) = parents.iter().try_fold(&mut self.values, |value, name| child(value, name)) else {
            return;
        };
        match (parent, replacement) {
            (Value::Dict(_, section), Some(value)) => drop(section.insert(last.clone(), value)),
            (Value::Dict(_, section), None) => drop(section.remove(last)),
            (items @ Value::Array(..), Some(value)) => {
                if let Some(item) = child(items, last) {
                    *item = value;
                }
            }
            (_, _) => {}
        }
    }
}

impl fmt::Debug for Layer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Layer").field("source", &self.source).finish_non_exhaustive()
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.source.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.values.clone().into_dict().unwrap_or_default()))
    }
}

/// Returns the value at `path` below `value`.
pub fn lookup<'a, S: AsRef<str>>(value: &'a Value, path: &[S]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, name| match value {
        Value::Dict(_, section) => section.get(name.as_ref()),
        Value::Array(_, items) => items.get(name.as_ref().parse::<usize>().ok()?),
        _ => None,
    })
}

fn child<'a>(value: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    match value {
        Value::Dict(_, section) => section.get_mut(name),
        Value::Array(_, items) => items.get_mut(name.parse::<usize>().ok()?),
        _ => None,
    }
}

/// Reads the text of a variable as the type of the default at its key; what does not fit stays a text, and is
/// then found to be of the wrong type.
fn typed(text: &str, default: Option<&Value>) -> Value {
    match default {
        Some(Value::Bool(..)) => text.parse::<bool>().map_or_else(|_| Value::from(text), Value::from),
        Some(Value::Num(_, Num::F64(_))) => {
            text.parse::<f64>().map_or_else(|_| Value::from(text), Value::from)
        }
        Some(Value::Num(..)) => text.parse::<u64>().map_or_else(|_| Value::from(text), Value::from),
        Some(Value::Array(..)) => list(text),
        _ => Value::from(text),
    }
}

/// Reads a list: a TOML array, or words with commas between them.
fn list(text: &str) -> Value {
    if text.trim_start().starts_with('[') {
        let parsed = toml::from_str::<Dict>(&format!("list = {text}"));
        return parsed.ok().and_then(|mut parsed| parsed.remove("list")).unwrap_or_else(|| Value::from(text));
    }
    let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
    Value::from(words.map(Value::from).collect::<Vec<_>>())
}

/// Returns whether a variable, without our prefix, is one that Kubernetes sets in every container beside a service
/// called `sentrybox` or `sentrybox-…`: `SENTRYBOX_SERVICE_HOST`, `SENTRYBOX_PORT_9000_TCP_ADDR`, and so on.
fn is_service_link(rest: &str) -> bool {
    let is_port = |rest: &str| {
        let mut words = rest.split('_').skip_while(|word| *word != "PORT").skip(1);
        match (words.next(), words.next()) {
            (None, None) => rest == "PORT" || rest.ends_with("_PORT"),
            (Some(port), Some("TCP" | "UDP" | "SCTP")) => port.parse::<u16>().is_ok(),
            (Some(_) | None, _) => false,
        }
    };
    let marked = format!("_{rest}");
    !rest.contains("__")
        && (marked.ends_with("_SERVICE_HOST") || marked.contains("_SERVICE_PORT") || is_port(rest))
}

/// Returns the line and column of a byte offset, both from 1.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    (line, before.rsplit('\n').next().unwrap_or_default().chars().count() + 1)
}

/// Returns the path of the configuration file that the environment names; empty means none.
pub fn configured_file(environment: &[(OsString, OsString)]) -> Option<&OsStr> {
    let (_, value) = environment.iter().find(|(name, _)| name == CONFIG_VARIABLE)?;
    (!value.is_empty()).then_some(value.as_os_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Value {
        let section = Dict::from([
            ("text".to_owned(), Value::from("")),
            ("flag".to_owned(), Value::from(true)),
            ("number".to_owned(), Value::from(1_u8)),
            ("ratio".to_owned(), Value::from(1.0)),
            ("list".to_owned(), Value::from(Vec::<Value>::new())),
        ]);
        Value::from(Dict::from([("a".to_owned(), Value::from(section))]))
    }

    fn read(name: &str, text: &str) -> Value {
        let layer = Layer::variable(&(name.into(), text.into()), &known()).unwrap().unwrap();
        layer.value(&["a", &name.rsplit('_').next().unwrap().to_lowercase()]).unwrap().clone()
    }

    #[test]
    fn the_type_of_the_default_decides_how_a_variable_is_read() {
        assert_eq!(read("SENTRYBOX_A__TEXT", "12345").as_str(), Some("12345"));
        assert_eq!(read("SENTRYBOX_A__TEXT", "true").as_str(), Some("true"));
        assert_eq!(read("SENTRYBOX_A__FLAG", "false").to_bool(), Some(false));
        assert_eq!(read("SENTRYBOX_A__FLAG", "yes").as_str(), Some("yes"));
        assert_eq!(read("SENTRYBOX_A__NUMBER", "12").to_u128(), Some(12));
        let ratio = |text| read("SENTRYBOX_A__RATIO", text).to_num().and_then(|number| number.to_f64());
        assert_eq!((ratio("0.25"), ratio("1")), (Some(0.25), Some(1.0)));
        assert_eq!(read("SENTRYBOX_A__RATIO", "half").as_str(), Some("half"));
        assert_eq!(read("SENTRYBOX_A__LIST", "x, y").as_array().map(<[Value]>::len), Some(2));
        assert_eq!(read("SENTRYBOX_A__LIST", "[\"x\"]").as_array().map(<[Value]>::len), Some(1));
        assert_eq!(read("SENTRYBOX_A__LIST", "").as_array().map(<[Value]>::len), Some(0));
    }

    #[test]
    fn variables_that_kubernetes_sets_for_a_service_of_our_name_are_not_ours() {
        for name in [
            "SERVICE_HOST",
            "SERVICE_PORT",
            "SERVICE_PORT_HTTP",
            "PORT",
            "PORT_9000_TCP",
            "PORT_9000_TCP_ADDR",
            "SHARED_SERVICE_HOST",
            "SHARED_PORT",
            "SHARED_PORT_9001_TCP_PROTO",
        ] {
            assert!(is_service_link(name), "{name}");
        }
        for name in ["LISTEN__ADDRESS", "SECRET", "PUBLIC_URL", "PORTS", "PORT_X_TCP", "CACHE__PORT"] {
            assert!(!is_service_link(name), "{name}");
        }
    }

    #[test]
    fn a_member_of_a_list_is_replaced_in_its_place() {
        let mut layer = Layer::single("x", &["list"], list("a, b"));
        layer.replace(&["list".to_owned(), "1".to_owned()], Some(Value::from("c")));
        assert_eq!(layer.value(&["list", "0"]).and_then(Value::as_str), Some("a"));
        assert_eq!(layer.value(&["list", "1"]).and_then(Value::as_str), Some("c"));
    }

    #[test]
    fn a_position_is_counted_from_one() {
        assert_eq!(position("ab\ncd", 0), (1, 1));
        assert_eq!(position("ab\ncd", 4), (2, 2));
        assert_eq!(position("ab\n", 99), (2, 1));
    }
}
