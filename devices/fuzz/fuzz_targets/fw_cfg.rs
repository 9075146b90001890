//! The firmware configuration device: selector, data, and transfers with hostile guest memory.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| trapline_devices_fuzz::fw_cfg::run(data));
