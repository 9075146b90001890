//! A snapshot of any content with video memory of any size, as another process may offer them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| trapline_devices_fuzz::snapshot::run(data));
