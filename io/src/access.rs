//! What the guest did ([`Trap`]) and what a device sees of it ([`Access`]): small, `Copy`, no byte
//! slices and no number that could be any kind of address.

use crate::{Gpa, Port};

/// How many bytes an access moves: the bus knows these four and no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Width {
    /// One byte.
    B1,
    /// Two bytes.
    B2,
    /// Four bytes.
    B4,
    /// Eight bytes; memory only.
    B8,
}

impl Width {
    /// The width of that many bytes, if it is one.
    pub const fn of(bytes: usize) -> Option<Width> {
        match bytes {
            1 => Some(Width::B1),
            2 => Some(Width::B2),
            4 => Some(Width::B4),
            8 => Some(Width::B8),
            _ => None,
        }
    }

    /// The number of bytes: 1, 2, 4 or 8.
    pub const fn bytes(self) -> usize {
        match self {
            Width::B1 => 1,
            Width::B2 => 2,
            Width::B4 => 4,
            Width::B8 => 8,
        }
    }

    /// A value with every bit of this width set: what a read answers where nothing answers.
    pub const fn all_ones(self) -> u64 {
        u64::MAX >> (64 - 8 * self.bytes())
    }

    /// The width half as wide, and none below a byte.
    pub const fn half(self) -> Option<Width> {
        Width::of(self.bytes() / 2)
    }
}

/// The direction of an access, with what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Bytes go from the device to the guest.
    Read,
    /// This value (little-endian, bits beyond the width clear) goes from the guest to the device.
    Write(u64),
}

/// Where a trap happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// `in`/`out` on a port.
    Port(Port),
    /// A load or store on guest physical memory.
    Gpa(Gpa),
}

/// One access as the guest did it. String I/O is cut into elements before it gets here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Trap {
    /// The address of the first byte.
    pub at: Address,
    /// How wide.
    pub width: Width,
    /// Read, or write with value.
    pub op: Op,
}

/// One region of a function. PCI functions number them as VFIO does (`linux/vfio.h`,
/// `VFIO_PCI_*_REGION_INDEX`); platform devices number theirs as they like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Region(pub u8);

impl Region {
    /// The base address registers, 0 to 5.
    pub const fn bar(index: u8) -> Region {
        Region(index)
    }
    /// The expansion ROM.
    pub const ROM: Region = Region(6);
    /// Configuration space, 4 KiB.
    pub const CONFIG: Region = Region(7);
    /// Legacy VGA; offsets are the addresses themselves: 0x3b0-0x3df and 0xa0000-0xbffff.
    pub const VGA: Region = Region(8);
}

/// One access as a device sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Access {
    /// Which of the function's regions.
    pub region: Region,
    /// How wide; the access lies wholly inside the region.
    pub width: Width,
    /// Byte offset from the region's start.
    pub offset: u64,
    /// Read, or write with value.
    pub op: Op,
}

impl Access {
    /// A read of `width` bytes at `offset`.
    pub const fn read(region: Region, offset: u64, width: Width) -> Access {
        Access { region, width, offset, op: Op::Read }
    }

    /// A write of `value`, cut to `width`, at `offset`.
    pub const fn write(region: Region, offset: u64, width: Width, value: u64) -> Access {
        Access { region, width, offset, op: Op::Write(value & width.all_ones()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_know_their_ones() {
        assert_eq!(Width::B1.all_ones(), 0xff);
        assert_eq!(Width::B8.all_ones(), u64::MAX);
        assert_eq!(Width::of(3), None);
        assert_eq!(Width::B1.half(), None);
        assert_eq!(Width::B4.half(), Some(Width::B2));
    }

    #[test]
    fn an_access_fits_half_a_cache_line() {
        assert!(size_of::<Access>() <= 32);
    }
}
