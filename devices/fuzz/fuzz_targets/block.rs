//! virtio-blk: registers and rings of any content; after it all a reset makes the disk work again.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| trapline_devices_fuzz::block::run(data));
