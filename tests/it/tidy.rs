//! Holds `src/` to the house rules that no lint knows: who imports whom, which library lives where, how a file looks.
//!
//! Reads lines, not syntax: that suffices because imports name the owning file and tests stand last in a file.
//! Whoever adds a room gives it a row in [`ROOMS`]; whoever breaks a rule on purpose adds a row with the reason.

use std::fmt::Write;
use std::fs;
use std::path::Path;

/// Every room: its rank, its name, the rooms it may import. `..5` means every room up to that rank.
///
/// `src/routes/tags.rs` is a part of the room `routes`; under `src/cache/` each file is a room of its own.
const ROOMS: &[(u8, &str, &str)] = &[
    (0, "config", ""),
    (0, "clock", ""),
    (0, "handling", ""),
    (0, "credential", ""),
    (0, "links", ""),
    (0, "organizations", ""),
    (0, "peer", ""),
    (0, "pressure", ""),
    (0, "request_id", ""),
    (0, "cache", ""),
    (0, "cache::directives", ""),
    (0, "cache::single_flight", ""),
    (1, "headers", "handling"),
    (1, "logging", "clock config"),
    (1, "metrics", "handling"),
    (1, "routes", "config credential"),
    (2, "traces", "clock config credential handling metrics routes"),
    (2, "admission", "config credential handling headers peer request_id routes"),
    (3, "regions", "admission config credential handling links organizations routes traces"),
    (2, "cache::conditions", "headers"),
    (3, "cache::body", "links"),
    (3, "cache::key", "admission credential headers routes"),
    (3, "cache::generations", "routes"),
    (3, "cache::policy", "admission config credential pressure cache::directives"),
    (
        3,
        "cache::stored_response",
        "headers links routes cache::body cache::conditions cache::directives cache::generations",
    ),
    (
        4,
        "cache::terms",
        "admission headers routes cache::directives cache::generations cache::policy cache::stored_response",
    ),
    (
        5,
        "cache::freshness",
        "admission handling cache::directives cache::generations cache::policy cache::stored_response cache::terms",
    ),
    (4, "cache::storing", "admission headers routes cache::directives cache::policy"),
    (4, "cache::invalidation", "admission config credential routes cache::generations cache::key"),
    (
        4,
        "cache::shared_tier",
        "config credential metrics cache::key cache::stored_response cache::generations",
    ),
    (4, "budget", "clock config credential handling metrics pressure routes"),
    (4, "upstream", "config headers metrics"),
    (
        5,
        "cache::store",
        "config metrics cache::key cache::stored_response cache::generations cache::invalidation cache::shared_tier routes",
    ),
    (5, "exporter", "clock config metrics traces upstream"),
    (6, "server", "clock config metrics peer"),
    (6, "proxy", "..5"),
    (7, "admin", "proxy ..5"),
    (7, "webhooks", "..5"),
    (8, "assembly", "..8"),
    (8, "background", "..8"),
    (8, "desk", "..8"),
    (8, "reload", "..8"),
    (8, "sandbox", "..8"),
    (8, "testing", "..8"), // only compiled for unit tests, which any room may write
    (8, "cli", "..8"),
    (8, "lib", "..8"),
    (8, "main", "..8"),
];

/// Rooms that only decide: no waiting, no runtime, no clock.
const PURE: &str = "admission links headers organizations request_id routes regions cache::key cache::body cache::conditions cache::directives cache::policy \
     cache::stored_response cache::terms cache::freshness cache::storing cache::invalidation";

/// What only some rooms may name: a library that must stay a one-file change, or the clock.
const CONFINED: &[(&str, &str)] = &[
    ("moka", "cache::store"),
    ("redis", "cache::shared_tier"),
    ("hyper_util::client", "upstream cli"), // `healthcheck` asks our own admin listener
    ("hyper::client", "upstream cli"),
    ("tokio_rustls", "server"),
    ("rustls", "server upstream main"), // `main` installs the process's crypto provider
    ("opentelemetry", "traces exporter"),
    ("opentelemetry_sdk", "traces exporter"),
    ("opentelemetry_proto", "exporter"),
    ("prost", "exporter"),
    ("rustls_platform_verifier", "upstream"),
    ("webpki_roots", "upstream"),
    ("SystemTime::now", "clock"),
    ("Instant::now", "clock"),
];

/// What nobody may write, tests included. Spelled in two halves, so that this file passes itself.
const BANNED: &[&str] = &[
    concat!("thread::", "sleep"),
    concat!("to", "do!"),
    concat!("unimple", "mented!"),
    concat!("#[al", "low("),
    concat!("uns", "afe {"),
    concat!("uns", "afe fn"),
    concat!("uns", "afe impl"),
];

/// Most lines of a file before its tests.
const LONGEST: usize = 400;

/// Files that may be longer, each with the reason.
const LONG: &[(&str, &str)] = &[];

/// A source file, split where its tests begin.
struct Source {
    path: String,
    room: String,
    code: Vec<String>,
    tests: Vec<String>,
}

impl Source {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let path = path.to_str().unwrap().to_owned();
        let mut code: Vec<String> = text.lines().map(ToOwned::to_owned).collect();
        let is_tests = path.ends_with("/tests.rs") || path.contains("/tests/");
        let starts = |line: &String| line == "#[cfg(test)]";
        let begin = if is_tests { 0 } else { code.iter().position(starts).unwrap_or(code.len()) };
        let tests = code.split_off(begin);
        let module = path.trim_start_matches("src/").trim_end_matches(".rs").replace('/', "::");
        Self { room: room_of(&module), path, code, tests }
    }

    /// Returns the lines before the tests with their numbers, without comments.
    fn statements(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.code.iter().map(|line| line.split("// ").next().unwrap_or_default());
        (1..).zip(lines).filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

/// Returns every file below `folder`, relative to the package, in a fixed order.
fn sources(folder: &str) -> Vec<Source> {
    let mut found: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    let read = |path: &std::path::PathBuf| match path.extension() {
        None => sources(path.to_str().unwrap()),
        Some(extension) if extension == "rs" => vec![Source::read(path)],
        Some(_) => Vec::new(),
    };
    found.iter().flat_map(read).collect()
}

/// Returns the room that owns a module path: its first segment, under `cache` its first two.
fn room_of(module: &str) -> String {
    let is_module = |segment: &&str| segment.starts_with(|letter: char| letter.is_ascii_lowercase());
    let depth = if module.starts_with("cache::") { 2 } else { 1 };
    match module.split("::").take_while(is_module).take(depth).collect::<Vec<_>>().join("::").as_str() {
        "run" | "" => "lib".to_owned(), // `crate::run` and `crate::RunError`, at the root
        room => room.to_owned(),
    }
}

/// Returns the paths after `crate::` in a line.
fn imports(line: &str) -> impl Iterator<Item = &str> {
    let is_path = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':';
    line.split("crate::")
        .skip(1)
        .map(move |rest| rest.split(|letter| !is_path(letter)).next().unwrap_or_default())
}

/// Returns what the table says about `room`: its rank and what it may import.
fn row(room: &str) -> Option<(u8, &'static str)> {
    ROOMS.iter().find(|(_, name, _)| *name == room).map(|(rank, _, imports)| (*rank, *imports))
}

/// Returns whether `room` may import `other` by the table.
fn may_import(room: &str, other: &str) -> bool {
    let (Some((_, allowed)), Some((rank, _))) = (row(room), row(other)) else { return false };
    let up_to = |word: &str| word.strip_prefix("..").is_some_and(|top| rank <= top.parse().unwrap());
    room == other || allowed.split(' ').any(|word| word == other || up_to(word))
}

/// Returns the call of a macro that a text begins with.
fn call_at(text: &str) -> &str {
    let (mut depth, mut is_quoted, mut is_escaped) = (0, false, false);
    for (place, letter) in text.char_indices() {
        match letter {
            '"' if !is_escaped => is_quoted = !is_quoted,
            '(' if !is_quoted => depth += 1,
            ')' if !is_quoted && depth == 1 => return &text[..=place],
            ')' if !is_quoted => depth -= 1,
            _ => {}
        }
        is_escaped = letter == '\\' && !is_escaped;
    }
    text
}

/// Returns whether a list of words holds `room`.
fn lists(words: &str, room: &str) -> bool {
    words.split(' ').any(|word| word == room)
}

/// Fails with one line for each statement in `src/` that `offence` says something about.
fn check(offence: impl Fn(&Source, &str) -> Option<String>) {
    let mut report = String::new();
    for source in sources("src") {
        for (number, line) in source.statements() {
            if let Some(message) = offence(&source, line) {
                writeln!(report, "{}:{number}: {message}", source.path).unwrap();
            }
        }
    }
    assert!(report.is_empty(), "against the house rules (tests/it/tidy.rs says which):\n{report}");
}

#[test]
fn every_room_has_a_row_in_the_table() {
    let unknown = |source: &Source| row(&source.room).is_none().then(|| source.path.clone());
    let unknown: Vec<_> = sources("src").iter().filter_map(unknown).collect();
    assert!(
        unknown.is_empty(),
        "no row in ROOMS (tests/it/tidy.rs) for {unknown:?}: say whom they may import"
    );
}

#[test]
fn the_table_allows_no_circle() {
    for (index, (rank, room, allowed)) in ROOMS.iter().enumerate() {
        for other in allowed.split_ascii_whitespace().filter(|word| !word.starts_with("..")) {
            let is_above = ROOMS.iter().take(index).any(|(below, name, _)| *name == other && below <= rank);
            assert!(is_above, "ROOMS: {room} may import {other} only when that stands above it");
        }
    }
}

#[test]
fn imports_follow_the_table() {
    check(|source, line| {
        let bad = imports(line).map(room_of).find(|other| !may_import(&source.room, other))?;
        Some(format!("`{}` may not import `{bad}`: see ROOMS in tests/it/tidy.rs", source.room))
    });
}

#[test]
fn imports_name_the_owning_file() {
    check(|source, line| {
        let vague = imports(line).any(|path| matches!(path, "" | "cache" | "cache::"));
        let parent = line.contains("super::") && !line.contains("pub(super)");
        let again = line.contains("pub use crate::") || line.contains(") use crate::");
        let facade = source.room == "lib" && line.trim_start().starts_with("pub use");
        (vague || parent || again || facade)
            .then(|| format!("import the owning file by its own path: {}", line.trim()))
    });
}

#[test]
fn pure_rooms_do_not_wait_and_do_not_read_time() {
    check(|source, line| {
        let words = [".await", "async ", "tokio", "crate::clock", "Instant"];
        let word = words.iter().find(|word| lists(PURE, &source.room) && line.contains(**word))?;
        Some(format!("`{word}` in a pure room"))
    });
}

#[test]
fn a_library_stays_in_its_room() {
    check(|source, line| {
        let names = |word: &str| ["::", "("].iter().any(|next| line.contains(&format!("{word}{next}")));
        let bad = |(word, rooms): &&(&str, &str)| names(word) && !lists(rooms, &source.room);
        CONFINED.iter().find(bad).map(|(word, rooms)| format!("`{word}` belongs to {rooms} alone"))
    });
}

#[test]
fn a_log_lines_message_is_a_constant() {
    let begins = ["error!(", "warn!(", "info!(", "debug!(", "trace!("];
    for source in sources("src") {
        let code = source.statements().map(|(_, line)| line).collect::<Vec<_>>().join("\n");
        for begin in begins {
            for (place, _) in code.match_indices(begin) {
                let call = call_at(&code[place..]);
                let message = call.rsplit('"').nth(1).unwrap_or_default();
                let is_constant = !message.is_empty() && !message.contains(['{', '%', '=']);
                assert!(
                    is_constant,
                    "{}: the message is no constant, its facts no fields: {call}",
                    source.path
                );
            }
        }
    }
}

#[test]
fn a_lock_is_taken_whatever_became_of_who_held_it_last() {
    for source in sources("src").iter().filter(|source| source.room != "main") {
        let code: String = source.statements().map(|(_, line)| line.trim()).collect();
        let locked = [".lock()", ".read()", ".write()"].into_iter().flat_map(|call| {
            code.match_indices(call).map(move |(place, _)| place + call.len()).collect::<Vec<_>>()
        });
        for place in locked {
            let next = &code[place..];
            let gives_up = [".unwrap()", ".expect(", ".ok()", "?", ".is_ok", ".map"];
            let is_poisoned = gives_up.iter().any(|way| next.starts_with(way));
            assert!(!is_poisoned, "{}: a panic elsewhere would be one here: {:.60}", source.path, next);
        }
    }
}

#[test]
fn nobody_sleeps_and_nothing_is_left_undone() {
    for source in
        ["src", "tests/it", "tests/fuzz/src", "tests/fuzz/fuzz_targets"].into_iter().flat_map(sources)
    {
        for (number, line) in (1..).zip(source.code.iter().chain(&source.tests)) {
            let word = BANNED.iter().find(|word| line.contains(**word));
            assert!(word.is_none(), "{}:{number}: `{}` is not for this house", source.path, word.unwrap());
        }
    }
}

#[test]
fn a_file_is_at_most_as_long_as_one_can_read() {
    let is_long = |source: &&Source| source.code.len() > LONGEST;
    let long: Vec<_> = sources("src").iter().filter(is_long).map(|source| source.path.clone()).collect();
    let argued: Vec<_> = LONG.iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(long, argued, "files over {LONGEST} lines before their tests, and the ones argued in LONG");
}

#[test]
fn a_file_begins_with_what_it_is_about() {
    let is_bare = |source: &&Source| {
        let first = source.code.iter().chain(&source.tests).next();
        !first.is_some_and(|line| line.starts_with("//!") || line.starts_with("#![doc"))
    };
    let bare: Vec<_> = sources("src").iter().filter(is_bare).map(|source| source.path.clone()).collect();
    assert!(bare.is_empty(), "without a module doc on the first line: {bare:?}");
}

#[test]
fn tests_stand_last_in_a_file() {
    let items = [
        "pub ",
        "fn ",
        "async fn ",
        "impl",
        "struct ",
        "enum ",
        "trait ",
        "const ",
        "static ",
        "use ",
        "type ",
    ];
    for source in sources("src").iter().filter(|source| !source.code.is_empty()) {
        let item = source.tests.iter().find(|line| items.iter().any(|item| line.starts_with(item)));
        assert_eq!(item, None, "{}: after the tests began", source.path);
    }
}
