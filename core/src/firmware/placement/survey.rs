//! What the firmware will find, found in its way: by sizing the registers of every function.

use trapline_devices::pci::{self, Bar, BarKind, spec};
use trapline_io::{Device, Region, Width};

use super::{Bridge, Function, FunctionId};
use crate::parts::{Parts, Place};

/// PCI Express capability: root port and downstream port of a switch, by Device/Port Type.
const DOWNSTREAM: [u32; 2] = [4, 6];
/// The same register: a slot is implemented.
const SLOT: u32 = 1 << 8;
/// Capability of a standard hot-plug controller (SHPC 1.0).
const CAP_HOT_PLUG: u8 = 0x0c;
/// A type 1 header has two base address registers, and its ROM elsewhere.
const BRIDGE_BARS: u8 = 2;
/// The bits of a register that are no address, by kind (PCI 3.0 sections 6.2.5.1 and 6.2.5.2).
const PORT_BITS: u32 = 0x3;
const MEMORY_BITS: u32 = 0xf;
const ROM_BITS: u32 = 0x7ff;

/// The PCI functions among `parts`, and the place of each in that list.
///
/// Base address registers are written, and written back. No function decodes anything yet, so nothing else
/// comes of it: to be called before the machine runs.
pub fn survey(parts: &mut [Parts]) -> (Vec<Function>, Vec<usize>) {
    let places: Vec<usize> = parts
        .iter()
        .enumerate()
        .filter(|(_, part)| part.place != Place::Platform)
        .map(|(id, _)| id)
        .collect();
    let id_of = |part: usize| -> Option<FunctionId> { places.binary_search(&part).ok() };
    let found = parts.iter_mut().filter_map(|part| {
        let Place::Pci { parent, devfn } = part.place else { return None };
        let mut config = Config(&mut *part.device);
        let bridge = config.bridge();
        Some(Function {
            name: part.name.clone(),
            parent: parent.and_then(id_of),
            devfn,
            class: config.word(spec::REVISION_ID + 2),
            bars: config.bars(bridge.is_some()),
            bridge,
        })
    });
    (found.collect(), places)
}

/// A function's configuration space.
struct Config<'a>(&'a mut dyn Device);

impl Config<'_> {
    /// A register, all ones where the function does not answer.
    fn read(&mut self, at: u16, width: Width) -> u32 {
        let value = self.0.read(Region::CONFIG, at.into(), width).unwrap_or(width.all_ones());
        u32::try_from(value).unwrap_or(u32::MAX)
    }

    fn word(&mut self, at: u16) -> u16 {
        (self.read(at, Width::B2) & 0xffff) as u16
    }

    /// What a register holds that `ones` was written to; its old value is back then.
    fn sized(&mut self, at: u16, ones: u32) -> u32 {
        let old = self.read(at, Width::B4);
        // What does not take a write is no register.
        let _ = self.0.write(Region::CONFIG, at.into(), Width::B4, ones.into());
        let found = self.read(at, Width::B4);
        let _ = self.0.write(Region::CONFIG, at.into(), Width::B4, old.into());
        found
    }

    /// What the firmware asks of it, if it is a bridge.
    fn bridge(&mut self) -> Option<Bridge> {
        let header = self.read(spec::HEADER_TYPE, Width::B1) & 0x7f;
        if header != 1 {
            return None;
        }
        let mut bytes = [0; 256];
        for (at, byte) in (0..).zip(&mut bytes) {
            *byte = (self.read(at, Width::B1) & 0xff) as u8;
        }
        let byte = |at: u16| bytes.get(usize::from(at)).copied().unwrap_or(0);
        let hot_plug = pci::capabilities(byte).any(|(at, id)| match id {
            spec::CAP_EXPRESS => {
                let flags = u32::from(byte(at + 2)) | u32::from(byte(at + 3)) << 8;
                flags & SLOT != 0 && DOWNSTREAM.contains(&(flags >> 4 & 0xf))
            }
            id => id == CAP_HOT_PLUG,
        });
        Some(Bridge { hot_plug })
    }

    fn bars(&mut self, is_bridge: bool) -> [Option<Bar>; 7] {
        let mut bars = [None; 7];
        if self.word(spec::VENDOR_ID) == u16::MAX {
            return bars;
        }
        let last = if is_bridge { BRIDGE_BARS } else { 6 };
        let mut index = 0;
        while index < last {
            let bar = self.bar(spec::BAR0 + 4 * u16::from(index));
            bars[usize::from(index)] = bar;
            index += if bar.is_some_and(|bar| matches!(bar.kind, BarKind::Memory64 { .. })) { 2 } else { 1 };
        }
        let rom = self.sized(if is_bridge { spec::BRIDGE_ROM_BAR } else { spec::ROM_BAR }, !ROM_BITS);
        bars[6] = size(rom, ROM_BITS).map(|size| Bar { kind: BarKind::Rom, size });
        bars
    }

    fn bar(&mut self, at: u16) -> Option<Bar> {
        let low = self.sized(at, u32::MAX);
        if low & 1 == 1 {
            return size(low, PORT_BITS).map(|size| Bar { kind: BarKind::Io, size });
        }
        let prefetchable = low & 8 != 0;
        if low & 7 != 4 {
            let kind = BarKind::Memory32 { prefetchable };
            return size(low, MEMORY_BITS).map(|size| Bar { kind, size });
        }
        let high = self.sized(at + 4, u32::MAX);
        let address = u64::from(high) << 32 | u64::from(low & !MEMORY_BITS);
        let size = address.wrapping_neg();
        Some(Bar { kind: BarKind::Memory64 { prefetchable }, size }).filter(|bar| bar.size != 0)
    }
}

/// The size that the ones of a 32-bit register tell.
fn size(ones: u32, bits: u32) -> Option<u64> {
    let size = (ones & !bits).wrapping_neg();
    (size != 0).then(|| size.into())
}
