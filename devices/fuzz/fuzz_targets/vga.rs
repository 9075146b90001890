//! The software adapter under any accesses, and the picture that comes of them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| trapline_devices_fuzz::vga::run(data));
