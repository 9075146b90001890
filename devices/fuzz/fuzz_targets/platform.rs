//! RTC, keyboard controller, serial port and debug console, fed from both sides.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| trapline_devices_fuzz::platform::run(data));
