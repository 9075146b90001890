//! A part of a BAR that shows configuration space.
//!
//! A read reaches the device too, which may care, and gives what the guest sees in configuration space. A
//! write is one to configuration space and nothing else.

use trapline_io::{Fault, Op, Region, Width};

use super::{Beside, Lead, Overlay, Place, Quirk, Writes};

/// See the module's page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mirror {
    region: Region,
    bar: u8,
    first: u64,
    len: u64,
    /// What its first byte shows.
    shown: u16,
}

impl Mirror {
    /// The first `len` bytes of configuration space from byte `first` of a BAR on; at most 4096.
    pub const fn new(region: Region, bar: u8, first: u64, len: u64) -> Mirror {
        Mirror { region, bar, first, len, shown: 0 }
    }

    /// The same of the bytes from `shown` on.
    pub const fn of(self, shown: u16) -> Mirror {
        Mirror { shown, ..self }
    }

    /// The byte of configuration space at an offset of the BAR. All of the access lies in the mirror.
    ///
    /// # Errors
    /// Not all of it does.
    pub fn config(&self, offset: u64, width: Width) -> Result<u16, Fault> {
        let at = offset.checked_sub(self.first).ok_or(Fault::NoRegister)?;
        within(at, width, self.len)?.checked_add(self.shown).ok_or(Fault::NoRegister)
    }

    /// The offset as a place of the device.
    pub const fn place(&self, offset: u64) -> Place {
        (Region::bar(self.bar), offset)
    }
}

impl Quirk for Mirror {
    fn region(&self) -> Region {
        self.region
    }

    fn overlays(&self) -> Vec<Overlay> {
        let (on, first) = self.place(self.first);
        vec![Overlay { on, first, len: self.len, writes: Writes::Mirrored(self.shown) }]
    }

    fn lead(&self, offset: u64, width: Width, op: Op) -> Result<Lead, Fault> {
        let beside = match op {
            Op::Read => Beside::Sees(self.place(offset)),
            Op::Write(_) => Beside::Nothing,
        };
        Ok(Lead::Config(self.config(offset, width)?, beside))
    }
}

/// A byte of the first `len` of configuration space, if all of an access at it lies in them.
///
/// # Errors
/// It does not.
pub(super) fn within(at: u64, width: Width, len: u64) -> Result<u16, Fault> {
    let end = at.checked_add(width.bytes() as u64).filter(|end| *end <= len);
    end.and_then(|_| u16::try_from(at).ok()).ok_or(Fault::NoRegister)
}
