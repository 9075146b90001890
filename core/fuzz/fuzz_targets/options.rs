//! The text of each option, from the command line and from a file at once.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| trapline_fuzz::options::run(data));
