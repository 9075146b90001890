//! The owner of legacy VGA under any guest, and any turns of the machine, beside the same adapter that is
//! used strictly: reads, registers and memory are the same.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| trapline_devices_fuzz::window::run(data));
