//! The shadow of a boot adapter's ROM.
//!
//! A firmware copies its boot adapter's ROM to c0000 and runs it there. Linux then gives that copy to
//! whoever reads the ROM, by sysfs and by VFIO (`ROM_SHADOW`, 128 KiB from c0000): the image has the
//! firmware's variables in it, no image behind the first, and often a cut end. Its signature and its
//! checksum are still right, so nothing in it tells; a guest's BIOS runs it and shows nothing, since the
//! image believes that the adapter is initialised. The only cure is the untouched image from a file.

use super::image::chain;

/// The size that a shadowed ROM has in sysfs and as a VFIO region, in bytes. A card's own ROM may have it
/// too: it is a shadow only if sysfs says so ([`is_resource`]).
pub const SIZE: u64 = 0x2_0000;
/// Where a shadowed ROM lies.
const START: u64 = 0xc_0000;
/// The bit of a resource's flags that Linux calls `IORESOURCE_ROM_SHADOW`.
const FLAG: u64 = 1 << 1;

/// Whether the resource of a function's ROM, the seventh line of sysfs' `resource`, is a shadow.
pub fn is_resource(start: u64, flags: u64) -> bool {
    start == START && flags & FLAG != 0
}

/// Whether `image` is what a firmware made of `pristine` by running it: the same first image, with
/// bytes in it that differ.
pub fn is_run_copy(image: &[u8], pristine: &[u8]) -> bool {
    let first = |rom| chain(rom).images.into_iter().next();
    let (Some(ours), Some(theirs)) = (first(image), first(pristine)) else { return false };
    let same = (ours.vendor, ours.device, ours.length, ours.pcir, ours.code)
        == (theirs.vendor, theirs.device, theirs.length, theirs.pcir, theirs.code);
    let end = ours.length.min(image.len()).min(pristine.len());
    same && image.get(..end) != pristine.get(..end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rom::image::tests::Build;

    #[test]
    fn the_resource_tells() {
        // A boot adapter's line of Linux 6.12, and a card's own ROM of the same size.
        assert!(is_resource(0xc_0000, 0x212));
        assert!(!is_resource(0xc_0000, 0x210));
        assert!(!is_resource(0xfe00_0000, 0x46200));
    }

    #[test]
    fn a_copy_that_ran_differs_from_the_file_in_its_variables_only() {
        let pristine = Build::bios(0x1234, 0x1111, 4).last().rom();
        let mut ran = pristine.clone();
        assert!(!is_run_copy(&ran, &pristine));
        ran[0x200] ^= 1;
        assert!(is_run_copy(&ran, &pristine));
        // Another card's image is no copy of this one.
        assert!(!is_run_copy(&Build::bios(0x1234, 0x1112, 4).last().rom(), &pristine));
        assert!(!is_run_copy(&[], &pristine));
    }
}
