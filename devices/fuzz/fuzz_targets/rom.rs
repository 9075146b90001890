//! Expansion ROMs: see [`trapline_devices_fuzz::rom`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| trapline_devices_fuzz::rom::run(data));
