//! Whether a layer has the shape of the defaults: the same sections, and values where they have values.
//!
//! Invariant: after [`prune`], a layer can be merged over the defaults without hiding any of them.
//! Not here: the types of the values (serde), and whether they make sense (`validate`).

use figment::value::Value;

use crate::config::Problem;
use crate::config::describe::{self, ENVIRONMENT_PREFIX};
use crate::config::layer::{Layer, lookup};

/// Returns what is wrong with the shape of a layer, and takes it out: unknown keys, values where a section belongs,
/// sections where a value belongs. `known` is the tree of the defaults.
pub fn prune(layer: &mut Layer, known: &Value) -> Vec<Problem> {
    let mut misfits = Vec::new();
    compare(layer.values(), known, &mut Vec::new(), &mut misfits);
    let problem = |(path, misfit): (Vec<String>, Misfit)| {
        let expected = misfit.words(&path, &layer.source, known);
        layer.replace(&path, None);
        Problem { source: layer.source.clone(), key: path.join("."), expected }
    };
    misfits.into_iter().map(problem).collect()
}

/// How a value can be in the wrong place.
enum Misfit {
    Unknown,
    NotASection,
    NotAValue,
}

impl Misfit {
    fn words(&self, path: &[String], source: &str, known: &Value) -> String {
        match self {
            Self::Unknown => unknown(path, source, known),
            Self::NotASection => {
                let names = section_names(known, path);
                if names.is_empty() {
                    return "expected a section of names, each with its value".to_owned();
                }
                format!("expected a section with the keys {}", describe::listed(&names))
            }
            Self::NotAValue => "expected a value, found a section".to_owned(),
        }
    }
}

/// Names the key that was perhaps meant, in the way the source would spell it.
fn unknown(path: &[String], source: &str, known: &Value) -> String {
    let spell = |key: &str| {
        if source.starts_with(ENVIRONMENT_PREFIX) { describe::variable(key) } else { key.to_owned() }
    };
    let all = keys(known);
    if let Some(key) = describe::closest(&path.join("."), &all) {
        return format!("unknown key; did you mean {}?", spell(key));
    }
    let parent = path.split_last().map_or(path, |(_, parent)| parent);
    let names = section_names(known, parent);
    format!("unknown key; expected one of {}", describe::listed(&names))
}

fn section_names(known: &Value, path: &[String]) -> Vec<String> {
    let section = lookup(known, path).and_then(Value::as_dict);
    section.map(|section| section.keys().cloned().collect()).unwrap_or_default()
}

fn compare(given: &Value, known: &Value, path: &mut Vec<String>, misfits: &mut Vec<(Vec<String>, Misfit)>) {
    match (given, known) {
        (Value::Dict(_, given), Value::Dict(_, known)) => {
            for (name, value) in given {
                path.push(name.clone());
                match known.get(name) {
                    Some(known) => compare(value, known, path, misfits),
                    None if is_open(path) => {}
                    None => misfits.push((path.clone(), Misfit::Unknown)),
                }
                path.pop();
            }
        }
        (Value::Dict(..), _) => misfits.push((path.clone(), Misfit::NotAValue)),
        (_, Value::Dict(..)) => misfits.push((path.clone(), Misfit::NotASection)),
        (_, _) => {}
    }
}

/// Returns whether the section that holds the last name of `path` takes any name: regions, classes and aliases.
fn is_open(path: &[String]) -> bool {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    matches!(path.as_slice(), ["upstream", "regions", _] | ["cache", "classes", _] | ["budget", "aliases", _])
}

/// Returns every dotted key of a tree: sections, values, and the members of lists.
pub fn keys(value: &Value) -> Vec<String> {
    let mut keys = Vec::new();
    collect_keys(value, "", &mut keys);
    keys
}

fn collect_keys(value: &Value, prefix: &str, keys: &mut Vec<String>) {
    let mut visit = |name: &str, value: &Value| {
        let key = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
        keys.push(key.clone());
        collect_keys(value, &key, keys);
    };
    match value {
        Value::Dict(_, section) => section.iter().for_each(|(name, value)| visit(name, value)),
        Value::Array(_, items) => {
            items.iter().enumerate().for_each(|(index, value)| visit(&index.to_string(), value));
        }
        _ => {}
    }
}
