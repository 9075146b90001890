//! Configuration space beside two plain models: bytes with masks, and base address registers as the specification
//! has them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| trapline_devices_fuzz::config::run(data));
