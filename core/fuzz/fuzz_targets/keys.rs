//! The language of `--keys`: never more steps than characters, no wait without an end.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| trapline_fuzz::keys::run(data));
