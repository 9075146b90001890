//! Back doors of adapters to configuration space.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| trapline_devices_fuzz::quirks::run(data));
