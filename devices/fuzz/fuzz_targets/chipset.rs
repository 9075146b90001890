//! The chipset's functions under any accesses, each claim such that a slot could be made of it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| trapline_devices_fuzz::chipset::run(data));
