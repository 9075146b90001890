//! A function whose registers hold addresses before any firmware runs, and who may change them.
//!
//! SeaBIOS knows of no address that is taken: it sizes every base address register, places all of them in an
//! order of its own, and writes what it likes into the windows of bridges. What it cannot size it does not
//! place. So from a reset until a function is first told to decode, which firmware does last of all, its
//! registers are the machine's: writes to them change nothing, they read as what the machine has put there,
//! and after a write of all ones as registers that are not there. From then on they are ordinary registers,
//! which an operating system finds placed, sizes and moves. One that moved a register and then resets the bus puts
//! its address back before it enables decode, and sizes nothing: a register that nobody has sized since the reset takes
//! another address.
//!
//! All but those *kept* where the host has them ([`Home::kept`]). What becomes of a guest that moves one is
//! [`Moves`]. Sizing goes on working, and is no move even while the function decodes: a half of the register
//! that is written all ones, the bits that tell the kind included, reads as the mask of its size.
//!
//! | [`Moves`] | another address is written | the function decodes |
//! |---|---|---|
//! | refuse | the register stays; told once a register | always at home |
//! | follow | the register takes it; told once a register, when it decodes | where the guest says |
//! | stop | the register takes it | at home; when it would decode elsewhere the machine ends |
//!
//! A reset of the function alone (PCI Express base specification 5.0 section 6.6.2) loses the addresses in
//! the device; here kept registers are home again at once, so that none of the host's addresses is lost. So they are
//! after a write that moved one by a way of the device's own ([`Device::changes_map`]), whatever [`Moves`] says.

use std::sync::Arc;

use trapline_io::device::Claims;
use trapline_io::file::FileRegion;
use trapline_io::window::Window;
use trapline_io::{Access, Device, Fault, Region, Width};

use super::bar::{Bar, BarKind};
use super::spec::{self, Command};
use super::windows::Windows;
use crate::host::{self, Event};

/// What becomes of a guest that moves a register which is kept where the host has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Moves {
    /// The register stays where it is.
    #[default]
    Refuse,
    /// The register follows, with a warning.
    Follow,
    /// The machine ends.
    Stop,
}

/// Where a base address register is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home {
    /// 0 to 5, or 6 for the ROM.
    pub index: u8,
    /// What it is.
    pub bar: Bar,
    /// The address: of guest physical memory, or of ports.
    pub address: u64,
    /// Whether it is to stay there.
    pub kept: bool,
}

/// The addresses of one function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// Of base address registers.
    pub bars: Vec<Home>,
    /// Of a bridge's windows; every bridge has some, if closed ones.
    pub windows: Option<Windows>,
    /// What becomes of a guest that moves what is kept.
    pub moves: Moves,
}

/// See the module's page.
pub struct Preplaced {
    device: Box<dyn Device>,
    /// What messages call it.
    name: String,
    dwords: Vec<Dword>,
    kept: Vec<Kept>,
    moves: Moves,
    events: Arc<dyn host::Events>,
    /// It was told to decode since the last reset.
    settled: bool,
}

/// A register that the machine gives its value.
#[derive(Clone, Copy, Debug)]
struct Dword {
    at: u16,
    home: u32,
    /// The bits that are an address; none in a window's.
    address: u32,
    /// It was last written all ones, before the function was settled.
    probed: bool,
    /// It was so at least once.
    sized: bool,
    /// It was given another address without that.
    put_back: bool,
}

/// A base address register that is kept.
#[derive(Clone, Copy, Debug)]
struct Kept {
    home: Home,
    at: u16,
    /// What the guest reads, without the bits that tell the kind.
    register: u64,
    /// Which halves are being sized, the low one first.
    sized: [bool; 2],
    told: bool,
}

impl std::fmt::Debug for Preplaced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Preplaced")
            .field("name", &self.name)
            .field("dwords", &self.dwords)
            .finish_non_exhaustive()
    }
}

impl Preplaced {
    /// `device` with its registers at `places`; `events` is told of a guest that must end. The device is as
    /// after power-on.
    pub fn new(
        device: Box<dyn Device>,
        name: impl Into<String>,
        places: &Places,
        events: Arc<dyn host::Events>,
    ) -> Preplaced {
        let bridge = places.windows.is_some();
        let mut dwords = Vec::new();
        let mut kept = Vec::new();
        for home in &places.bars {
            let at = register(home.index, bridge);
            let (value, mask) = (home.address | u64::from(home.bar.type_bits()), home.bar.address_mask());
            dwords.push(Dword::new(at, low(value), low(mask)));
            if matches!(home.bar.kind, BarKind::Memory64 { .. }) {
                dwords.push(Dword::new(at + 4, low(value >> 32), low(mask >> 32)));
            }
            // The ROM's register has a switch beside the address, which is the guest's.
            if home.kept && home.bar.kind != BarKind::Rom {
                kept.push(Kept { home: *home, at, register: home.address, sized: [false; 2], told: false });
            }
        }
        let windows = places.windows.iter().flat_map(Windows::registers);
        dwords.extend(windows.map(|(at, home)| Dword::new(at, home, 0)));
        let (name, moves) = (name.into(), places.moves);
        let mut placed = Preplaced { device, name, dwords, kept, moves, events, settled: false };
        placed.go_home();
        placed
    }

    /// Gives the device all its addresses.
    fn go_home(&mut self) {
        self.settled = false;
        for dword in &mut self.dwords {
            *dword = Dword::new(dword.at, dword.home, dword.address);
            // A device that takes no write decodes nothing, and is no worse for that than before.
            let _ = self.device.write(Region::CONFIG, dword.at.into(), Width::B4, dword.home.into());
        }
        self.kept.iter_mut().for_each(Kept::go_home);
    }

    fn read_config(&mut self, offset: u64, width: Width) -> Result<u64, Fault> {
        match self.shown(offset & !3) {
            Some(value) if !crosses(offset, width) => {
                Ok(u64::from(value) >> (8 * (offset & 3)) & width.all_ones())
            }
            _ => self.device.read(Region::CONFIG, offset, width),
        }
    }

    /// The dword at `at` as the guest reads it, where that is not the device's to say.
    fn shown(&self, at: u64) -> Option<u32> {
        if self.settled {
            return self.kept.iter().find_map(|kept| kept.shown(at));
        }
        let dword = self.dwords.iter().find(|dword| u64::from(dword.at) == at)?;
        if dword.put_back {
            return self.kept.iter().find_map(|kept| kept.shown(at));
        }
        Some(if dword.probed { dword.home & !dword.address } else { dword.home })
    }

    fn write_config(&mut self, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        let at = offset & !3;
        let lanes = (width.all_ones() << (8 * (offset & 3))) & u64::from(u32::MAX);
        if let Some(shown) = self.shown(at).filter(|_| !crosses(offset, width)) {
            let new = low(u64::from(shown) & !lanes | value << (8 * (offset & 3)) & lanes);
            match self.settled {
                true => self.write_kept(at, new),
                false => self.write_early(at, new),
            }
            return Ok(());
        }
        let done = self.device.write(Region::CONFIG, offset, width, value);
        self.follow();
        done
    }

    /// The device's registers may have changed.
    fn follow(&mut self) {
        if !self.settled {
            let command = self.command();
            self.settled = command.io() || command.memory();
        }
        if self.settled {
            self.look_after_reset();
            self.judge();
        }
    }

    /// A write before the function is settled.
    fn write_early(&mut self, at: u64, new: u32) {
        let Some(dword) = self.dwords.iter_mut().find(|dword| u64::from(dword.at) == at) else { return };
        let (mask, home) = (dword.address, dword.home);
        dword.probed = mask != 0 && new & mask == mask;
        dword.sized |= dword.probed;
        dword.put_back |= !dword.sized && new & mask != home & mask;
        if !dword.put_back {
            return;
        }
        if self.kept.iter().any(|kept| kept.shown(at).is_some()) {
            self.write_kept(at, new);
        } else {
            let _ = self.device.write(Region::CONFIG, at, Width::B4, new.into());
        }
    }

    fn write_kept(&mut self, at: u64, new: u32) {
        let Preplaced { kept, moves, name, .. } = self;
        let Some(kept) = kept.iter_mut().find(|kept| kept.shown(at).is_some()) else { return };
        let (mask, home) = (kept.half(at, kept.home.bar.address_mask()), kept.half(at, kept.home.address));
        let sizes = new == u32::MAX;
        let new = new & mask;
        kept.sized[usize::from(at != u64::from(kept.at))] = sizes;
        if *moves == Moves::Refuse && !sizes {
            if new != home && !std::mem::replace(&mut kept.told, true) {
                let Home { index, address, .. } = kept.home;
                let to = kept.with_half(at, new);
                tracing::warn!(
                    "{name}: the guest would move BAR {index} to {to:#x}; it stays at {address:#x}, its address on the \
                     host (identity=follow lets it go)"
                );
            }
            kept.register = kept.with_half(at, home);
        } else {
            kept.register = kept.with_half(at, new);
        }
        self.judge();
    }

    /// Registers that are kept go home if the device's changed behind them.
    fn look_after_reset(&mut self) {
        let Preplaced { device, kept, moves, .. } = self;
        for kept in kept {
            let lost = kept.decoded(*moves).any(|(at, value)| {
                device.read(Region::CONFIG, at.into(), Width::B4).is_ok_and(|read| low(read) != value)
            });
            if lost {
                kept.go_home();
            }
        }
    }

    /// Lets the device decode what it is to decode now.
    fn tell_device(&mut self) {
        let Preplaced { device, kept, moves, .. } = self;
        for kept in kept {
            for (at, value) in kept.decoded(*moves) {
                let read = device.read(Region::CONFIG, at.into(), Width::B4).map(low);
                if read.is_ok_and(|read| read != value) {
                    let _ = device.write(Region::CONFIG, at.into(), Width::B4, value.into());
                }
            }
        }
    }

    /// Looks whether what is kept decodes elsewhere now, and does what is to be done then.
    fn judge(&mut self) {
        self.tell_device();
        let command = self.command();
        let Preplaced { kept, moves, name, events, .. } = self;
        for kept in kept {
            let Home { index, bar, address, .. } = kept.home;
            let decodes = if bar.kind == BarKind::Io { command.io() } else { command.memory() };
            let to = kept.register;
            let moved = decodes && to != address && kept.sized == [false; 2] && bar.range(to).is_some();
            if *moves == Moves::Refuse || !moved || std::mem::replace(&mut kept.told, true) {
                continue;
            }
            if *moves == Moves::Follow {
                tracing::warn!(
                    "{name}: the guest moves BAR {index} from {address:#x}, its address on the host, to {to:#x}: what \
                     reaches it by the host's address does not any more (identity=refuse keeps it there)"
                );
            } else {
                events.report(Event::Failed(format!(
                    "{name}: the guest moves BAR {index} from {address:#x}, its address on the host, to {to:#x}; \
                     identity=refuse keeps it there, identity=follow lets it go"
                )));
            }
        }
    }

    fn command(&mut self) -> Command {
        let command = self.device.read(Region::CONFIG, spec::COMMAND.into(), Width::B2).unwrap_or(0);
        Command::from_bits((command & 0xffff) as u16)
    }
}

impl Dword {
    /// As after a reset.
    fn new(at: u16, home: u32, address: u32) -> Dword {
        Dword { at, home, address, probed: false, sized: false, put_back: false }
    }
}

impl Kept {
    fn go_home(&mut self) {
        (self.register, self.sized) = (self.home.address, [false; 2]);
    }

    /// The dwords of the register if it holds `address`: one, or two of 64 bits.
    fn dwords(&self, address: u64) -> impl Iterator<Item = (u16, u32)> {
        let bar = self.home.bar;
        let bits = address & bar.address_mask() | u64::from(bar.type_bits());
        let wide = matches!(bar.kind, BarKind::Memory64 { .. });
        let dwords = [(self.at, low(bits)), (self.at + 4, low(bits >> 32))];
        dwords.into_iter().take(if wide { 2 } else { 1 })
    }

    /// The dword at `at` as the guest reads it, if it is one of the register's.
    fn shown(&self, at: u64) -> Option<u32> {
        let mut dwords = self.dwords(self.register);
        dwords.find(|(dword, _)| u64::from(*dword) == at).map(|(_, value)| value)
    }

    /// What the device's register is to hold.
    fn decoded(&self, moves: Moves) -> impl Iterator<Item = (u16, u32)> {
        self.dwords(if moves == Moves::Follow { self.register } else { self.home.address })
    }

    /// The register's address with the half at `at` replaced.
    fn with_half(&self, at: u64, new: u32) -> u64 {
        match at == u64::from(self.at) {
            true => self.register & !u64::from(u32::MAX) | u64::from(new),
            false => self.register & u64::from(u32::MAX) | u64::from(new) << 32,
        }
    }

    /// The half of `bits` that the dword at `at` holds.
    fn half(&self, at: u64, bits: u64) -> u32 {
        low(if at == u64::from(self.at) { bits } else { bits >> 32 })
    }
}

impl Device for Preplaced {
    fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        match region {
            Region::CONFIG => self.read_config(offset, width),
            _ => self.device.read(region, offset, width),
        }
    }

    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        match region {
            Region::CONFIG => self.write_config(offset, width, value),
            _ if self.device.changes_map(Access::write(region, offset, width, value)) => {
                let done = self.device.write(region, offset, width, value);
                self.follow();
                done
            }
            _ => self.device.write(region, offset, width, value),
        }
    }

    fn quiet(&mut self) {
        self.device.quiet();
    }

    fn reset(&mut self) {
        self.device.reset();
        self.go_home();
    }

    fn claims(&self) -> Claims {
        self.device.claims()
    }

    fn changes_map(&self, access: Access) -> bool {
        self.device.changes_map(access)
    }

    fn attend(&mut self) {
        self.device.attend();
    }

    fn merges(&self, region: Region, offset: u64) -> bool {
        self.device.merges(region, offset)
    }

    fn write_run(&mut self, region: Region, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        self.device.write_run(region, offset, bytes)
    }

    fn window(&mut self) -> Option<&mut dyn Window> {
        self.device.window()
    }

    fn file(&self, region: Region) -> Option<&FileRegion> {
        self.device.file(region)
    }
}

/// Where the register with this index is; 6 is the ROM's.
fn register(index: u8, bridge: bool) -> u16 {
    match (index, bridge) {
        (6, false) => spec::ROM_BAR,
        (6, true) => spec::BRIDGE_ROM_BAR,
        _ => spec::BAR0 + 4 * u16::from(index),
    }
}

/// Whether an access is more than one dword's, which no bus carries.
fn crosses(offset: u64, width: Width) -> bool {
    (offset & 3) + width.bytes() as u64 > 4
}

fn low(value: u64) -> u32 {
    (value & 0xffff_ffff) as u32
}

#[cfg(test)]
mod tests;
