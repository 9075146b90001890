//! An assigned function over a device with any configuration space, regions and answers.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| trapline_devices_fuzz::function::run(data));
