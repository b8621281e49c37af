//! See `sentrybox_fuzz::corridor`. Without a fuzzer it tries the files that are named.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| sentrybox_fuzz::corridor::run(input));

#[cfg(not(fuzzing))]
fn main() {
    sentrybox_fuzz::replay(sentrybox_fuzz::corridor::run);
}
