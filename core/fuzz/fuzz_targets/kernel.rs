//! A bzImage with a setup header of any content: it is taken, or refused with a reason.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| trapline_fuzz::kernel::run(data));
