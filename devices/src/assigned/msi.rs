//! The MSI capability (PCI 3.0 section 6.8.1): its registers, and what they ask for.

use trapline_io::Width;

use super::config::Config;
use super::registers::{CLASSIC, Registers};
use crate::host::Message;
use crate::pci::{ConfigSpace, spec};

/// Message Control, from the capability's start, and its bits.
const CONTROL: u16 = 2;
const ENABLE: u16 = 1;
const WIDE: u16 = 1 << 7;
const MASKS: u16 = 1 << 8;
/// The registers behind it.
const ADDRESS: u16 = 4;
/// Two powers of messages: the most that there can be (PCI allows no more than 32).
const MOST: u16 = 5;

/// Where the registers of one function's capability are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Msi {
    at: u16,
    wide: bool,
    masks: bool,
    /// Binary logarithm of the messages on offer.
    most: u16,
}

impl Msi {
    /// Shows the device's capability at `at` with no more than `messages` messages; `None`, and
    /// nothing shown, if there are none or it does not fit.
    pub fn add(config: &mut Config, device: &Registers, at: u16, messages: u16) -> Option<Msi> {
        let control = device.word(at + CONTROL);
        let most = messages.checked_ilog2().and_then(|most| u16::try_from(most).ok());
        let most = most.map(|most| most.min(control >> 1 & 7).min(MOST));
        let msi = Msi { most: most.unwrap_or(0), ..Msi::hide(config, device, at) };
        if most.is_none() || at + msi.len() > CLASSIC {
            return None;
        }
        config.link(at, spec::CAP_MSI);
        let space = config.space_mut();
        let (wide, masks) = (msi.wide, msi.masks);
        let control = msi.most << 1 | control & (WIDE | MASKS);
        space.preset(at + CONTROL, Width::B2, control.into());
        space.allow(at + CONTROL, Width::B2, 0x71);
        space.allow(at + ADDRESS, Width::B4, 0xffff_fffc);
        if wide {
            space.allow(at + ADDRESS + 4, Width::B4, u32::MAX);
        }
        space.allow(msi.data(), Width::B2, 0xffff);
        if masks {
            space.allow(msi.mask(), Width::B4, u32::MAX >> (32 - (1 << msi.most)));
        }
        Some(msi)
    }

    /// Keeps the device's capability at `at` from the guest, which neither sees nor reaches it.
    pub fn hide(config: &mut Config, device: &Registers, at: u16) -> Msi {
        let control = device.word(at + CONTROL);
        let msi = Msi { at, wide: control & WIDE != 0, masks: control & MASKS != 0, most: 0 };
        config.keep(at, msi.len().min(CLASSIC - at));
        msi
    }

    /// Bytes of the capability.
    fn len(self) -> u16 {
        match (self.masks, self.wide) {
            (false, false) => 10,
            (false, true) => 14,
            (true, false) => 20,
            (true, true) => 24,
        }
    }

    fn data(self) -> u16 {
        self.at + ADDRESS + if self.wide { 8 } else { 4 }
    }

    fn mask(self) -> u16 {
        self.data() + 4
    }

    /// Whether a register of it lies in the dword at `at`.
    pub fn holds(self, at: u16) -> bool {
        (self.at..self.at + self.len()).contains(&(at & !3))
    }

    /// Where pending bits are read, if anywhere.
    pub fn pending(self) -> Option<u16> {
        self.masks.then(|| self.mask() + 4)
    }

    /// How many messages the guest has enabled; zero while MSI is off.
    pub fn messages(self, space: &ConfigSpace) -> u16 {
        let control = space.word(self.at + CONTROL);
        if control & ENABLE == 0 { 0 } else { 1 << (control >> 4 & 7).min(self.most) }
    }

    /// What vector `index` of `messages` is to deliver, unless the guest masks it: the low bits of the
    /// data are the number of the message.
    pub fn message(self, space: &ConfigSpace, index: u16, messages: u16) -> Option<Message> {
        let masked = self.masks && space.read(self.mask(), Width::B4) >> (index & 31) & 1 == 1;
        if masked {
            return None;
        }
        let high = if self.wide { space.read(self.at + ADDRESS + 4, Width::B4) } else { 0 };
        let address = u64::from(high) << 32 | u64::from(space.read(self.at + ADDRESS, Width::B4));
        let data = space.word(self.data()) & !(messages - 1) | index;
        Some(Message { address, data: data.into() })
    }
}
