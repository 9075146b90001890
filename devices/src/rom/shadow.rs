//! The shadow of a boot adapter's ROM.
//!
//! A firmware copies its boot adapter's ROM to c0000 and runs it there. Linux then gives that copy to
//! whoever reads the ROM, by sysfs and by VFIO (`ROM_SHADOW`, 128 KiB from c0000): the image has the
//! firmware's variables in it, no image behind the first, and often a cut end. Its signature and its
//! checksum are still right, so nothing in it tells; a guest's BIOS runs it and shows nothing, since the
//! image believes that the adapter is initialised. The only cure is the untouched image from a file.

/// Where a shadowed ROM lies.
const START: u64 = 0xc_0000;
/// How long it is, in bytes: the kernel gives all of c0000 to dffff.
pub const SIZE: usize = 0x2_0000;
/// The bit of a resource's flags that Linux calls `IORESOURCE_ROM_SHADOW`.
const FLAG: u64 = 1 << 1;

/// Whether the resource of a function's ROM, the seventh line of sysfs' `resource`, is a shadow.
pub fn is_resource(start: u64, flags: u64) -> bool {
    start == START && flags & FLAG != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resource_tells() {
        // A boot adapter's line of Linux 6.12, and a card's own ROM of the same size.
        assert!(is_resource(0xc_0000, 0x212));
        assert!(!is_resource(0xc_0000, 0x210));
        assert!(!is_resource(0xfe00_0000, 0x46200));
    }
}
