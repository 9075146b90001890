//! Files taken for firmware.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| trapline_fuzz::image::run(data));
