//! Whatever a guest writes, whether the kernel collects it, or it is posted, merged or strict, and whoever
//! drains when: the device sees it once, in the guest's order; ports alone and as wide as they were.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| trapline_io_fuzz::collected::run(data));
