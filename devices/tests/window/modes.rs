//! Registers of the standard modes.

use trapline_devices::vga::Adapter;
use trapline_io::{Device, Region, Width};

/// Puts an adapter into mode 3, 80 by 25 characters, as if a BIOS had been there.
pub fn text(adapter: &mut Adapter) {
    let mut write = |port: u64, width, value| adapter.write(Region::VGA, port, width, value).unwrap();
    write(0x3c2, Width::B1, 0x67);
    for (index, value) in (0..).zip([3_u64, 0, 3, 0, 2]) {
        write(0x3c4, Width::B2, value << 8 | index);
    }
    for (index, value) in (0..).zip([0_u64, 0, 0, 0, 0, 0x10, 0x0e, 0x0f, 0xff]) {
        write(0x3ce, Width::B2, value << 8 | index);
    }
}
