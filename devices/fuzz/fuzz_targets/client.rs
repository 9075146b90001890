//! A vfio-user client, and the assigned function on it, with a server that answers anything.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| trapline_devices_fuzz::client::run(data));
