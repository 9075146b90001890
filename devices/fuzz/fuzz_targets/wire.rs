//! Messages of vfio-user: what decodes encodes to the same bytes again, as far as they count.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| trapline_devices_fuzz::wire::run(data));
