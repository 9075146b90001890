//! A vfio-user server with a client that sends anything, with any descriptors.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| trapline_devices_fuzz::server::run(data));
