//! A built table answers like a search through the claims in their order, for any claims and accesses.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| trapline_io_fuzz::space::run(data));
