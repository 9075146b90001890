//! Expansion ROMs: see [`trapline_devices_fuzz::rom`].
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| trapline_devices_fuzz::rom::run(input));
