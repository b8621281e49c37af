//! The short run, which needs no fuzzer: every target tries its corpus, and what is like it.
//!
//! Chance repeats itself, so that the same is tried each time. `FUZZ_ROUNDS=n` tries n times as much, and other inputs with
//! each `FUZZ_SEED`. Not here: what has new paths through the code, which only a fuzzer finds (`tests/fuzz/run SECONDS`).

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use crate::support::dice::Dice;

/// Largest input that is made.
const MOST: usize = 4096;

/// Where something of the fuzz targets is.
fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz").join(name)
}

/// Returns the corpus of a target, in a fixed order.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let files = fs::read_dir(folder("corpus").join(target)).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// Reads a dictionary: a word in quotes on each line.
fn dictionary(name: &str) -> Vec<Vec<u8>> {
    let text = fs::read_to_string(folder("dictionaries").join(name).with_extension("dict")).unwrap();
    let words = text.lines().filter_map(|line| line.strip_prefix('"')?.strip_suffix('"'));
    words.map(word).collect()
}

/// Undoes the escapes of a word: `\\`, `\"` and `\xNN`.
fn word(spelled: &str) -> Vec<u8> {
    let (mut word, mut rest) = (Vec::new(), spelled.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match (first, after.first()) {
            (b'\\', Some(b'x')) => {
                word.push(u8::from_str_radix(std::str::from_utf8(&after[1..3]).unwrap(), 16).unwrap());
                rest = &after[3..];
            }
            (b'\\', Some(escaped)) => {
                word.push(*escaped);
                rest = &after[1..];
            }
            (plain, _) => word.push(*plain),
        }
    }
    word
}

/// Returns a number from the environment, or one.
fn setting(name: &str) -> u64 {
    std::env::var(name).map_or(1, |text| text.parse().unwrap())
}

/// Tries the corpus of a target, and so many inputs that are like it.
fn try_out(target: &str, run: fn(&[u8]), words: &str, rounds: u64) {
    let (corpus, words) = (corpus(target), dictionary(words));
    for input in &corpus {
        judge(target, run, input);
    }
    for round in 0..rounds * setting("FUZZ_ROUNDS") {
        let mut dice = Dice::new(setting("FUZZ_SEED"), round);
        let mut input = pick(&mut dice, &corpus).clone();
        for _ in 0..dice.among(1, 6) {
            change(&mut input, &mut dice, (&corpus, &words));
        }
        input.truncate(MOST);
        judge(target, run, &input);
    }
}

fn judge(target: &str, run: fn(&[u8]), input: &[u8]) {
    let held = catch_unwind(AssertUnwindSafe(|| run(input))).is_ok();
    assert!(held, "{target} does not hold for {}", input.escape_ascii());
}

fn pick<'a>(dice: &mut Dice, from: &'a [Vec<u8>]) -> &'a Vec<u8> {
    &from[usize::try_from(dice.below(from.len() as u64)).unwrap()]
}

/// Changes one thing.
fn change(input: &mut Vec<u8>, dice: &mut Dice, (corpus, words): (&[Vec<u8>], &[Vec<u8>])) {
    let place = |dice: &mut Dice, length: usize| usize::try_from(dice.below(length as u64 + 1)).unwrap();
    let (one, two) = (place(dice, input.len()), place(dice, input.len()));
    let (start, end) = (one.min(two), one.max(two).min(one.min(two) + 32));
    let other = pick(dice, corpus);
    let byte = u8::try_from(dice.below(256)).unwrap();
    match dice.below(8) {
        0 if start < input.len() => input[start] = byte,
        1 if start < input.len() => input[start] ^= 1 << (byte % 8),
        2 => drop(input.drain(start..end)),
        3 => {
            let again = input[start..end].to_vec();
            input.splice(start..start, again);
        }
        4 => {
            input.truncate(start);
            input.extend_from_slice(&other[place(dice, other.len())..]);
        }
        5 => input.insert(start, byte),
        6 => drop(input.splice(start..end, pick(dice, words).iter().copied())),
        _ => drop(input.splice(start..start, pick(dice, words).iter().copied())),
    }
}

#[test]
fn admission_holds_for_its_corpus_and_what_is_like_it() {
    try_out("admission", crate::admission::run, "http", 6_000);
}

#[test]
fn budget_holds_for_its_corpus_and_what_is_like_it() {
    try_out("budget", crate::budget::run, "http", 20_000);
}

#[test]
fn conditions_hold_for_their_corpus_and_what_is_like_it() {
    try_out("conditions", crate::conditions::run, "http", 20_000);
}

#[test]
fn configuration_holds_for_its_corpus_and_what_is_like_it() {
    try_out("configuration", crate::configuration::run, "toml", 200);
}

#[test]
fn a_connection_holds_for_its_corpus_and_what_is_like_it() {
    try_out("connection", crate::connection::run, "http", 400);
}

#[test]
fn the_corridor_holds_for_its_corpus_and_what_is_like_it() {
    try_out("corridor", crate::corridor::run, "http", 400);
}

#[test]
fn directives_hold_for_their_corpus_and_what_is_like_it() {
    try_out("directives", crate::directives::run, "http", 3_000);
}

#[test]
fn links_hold_for_their_corpus_and_what_is_like_it() {
    try_out("links", crate::links::run, "http", 20_000);
}

#[test]
fn redaction_holds_for_its_corpus_and_what_is_like_it() {
    try_out("redaction", crate::redaction::run, "http", 20_000);
}

#[test]
fn region_urls_hold_for_their_corpus_and_what_is_like_it() {
    try_out("region_urls", crate::region_urls::run, "json", 20_000);
}

#[test]
fn a_stored_response_holds_for_its_corpus_and_what_is_like_it() {
    try_out("stored_response", crate::stored_response::run, "http", 3_000);
}

#[test]
fn a_webhook_holds_for_its_corpus_and_what_is_like_it() {
    try_out("webhook", crate::webhook::run, "json", 3_000);
}
