//! A configuration file: an error is one line for a person, a configuration is within its bounds.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| trapline_fuzz::toml::run(data));
