//! See `sentrybox_fuzz::redaction`. Without a fuzzer it tries the files that are named.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| sentrybox_fuzz::redaction::run(input));

#[cfg(not(fuzzing))]
fn main() {
    sentrybox_fuzz::replay(sentrybox_fuzz::redaction::run);
}
