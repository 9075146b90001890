//! A report of runs, and the page that is made of it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| trapline_fuzz::report::run(data));
