//! Cards for the tests of quirks, and what holds for the table as a whole.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::assigned::config::Shape;
use crate::assigned::options::Placement;

/// Offset of MSI in all of them.
pub const MSI: u16 = 0x68;

const IO: u8 = 1;
const MEMORY: u8 = 0;
const WIDE: u8 = 4;
const PREFETCHABLE: u8 = 8;

/// A card, as far as quirks look.
#[derive(Clone, Copy, Debug)]
pub struct Adapter {
    id: (u16, u16),
    class: u16,
    /// The low bits of each register, and bytes.
    bars: [(u8, u64); 6],
    owns_vga: bool,
    traced: bool,
}

const NONE: (u8, u64) = (0, 0);

/// A Radeon with its ports in BAR 4.
pub const RADEON: Adapter = Adapter {
    id: (0x1002, 0x68f9),
    class: 0x0300,
    bars: [(WIDE, 256 << 20), NONE, (WIDE, 0x2_0000), NONE, (IO, 0x100), NONE],
    owns_vga: true,
    traced: false,
};

/// One with doorbells in BAR 2, and its registers in BAR 5.
pub const POLARIS: Adapter = Adapter {
    id: (0x1002, 0x67df),
    bars: [
        (WIDE | PREFETCHABLE, 256 << 20),
        NONE,
        (WIDE | PREFETCHABLE, 2 << 20),
        NONE,
        (IO, 0x100),
        (MEMORY, 0x4_0000),
    ],
    ..RADEON
};

/// One with its ports in BAR 1.
pub const RADEON_X550: Adapter = Adapter {
    id: (0x1002, 0x5b60),
    bars: [(MEMORY, 128 << 20), (IO, 0x100), (MEMORY, 0x1_0000), NONE, NONE, NONE],
    ..RADEON
};

/// A GeForce.
pub const GEFORCE: Adapter = Adapter {
    id: (0x10de, 0x1381),
    bars: [(MEMORY, 16 << 20), (WIDE, 256 << 20), NONE, (WIDE, 32 << 20), NONE, (IO, 0x80)],
    ..RADEON
};

/// Graphics of a processor.
pub const IGD: Adapter = Adapter {
    id: (0x8086, 0x5916),
    bars: [(WIDE, 16 << 20), NONE, (WIDE, 256 << 20), NONE, (IO, 0x40), NONE],
    ..RADEON
};

impl Adapter {
    pub fn with_bar(mut self, bar: usize, size: u64) -> Adapter {
        self.bars[bar].1 = size;
        self
    }

    pub fn with_class(self, class: u16) -> Adapter {
        Adapter { class, ..self }
    }

    pub fn with_device(self, device: u16) -> Adapter {
        Adapter { id: (self.id.0, device), ..self }
    }

    pub fn without_vga(self) -> Adapter {
        Adapter { owns_vga: false, ..self }
    }

    pub fn traced(self) -> Adapter {
        Adapter { traced: true, ..self }
    }

    fn sizes(&self) -> [u64; 6] {
        self.bars.map(|(_, size)| size)
    }
}

/// Its configuration space.
pub fn registers(adapter: Adapter) -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    bytes[..2].copy_from_slice(&adapter.id.0.to_le_bytes());
    bytes[2..4].copy_from_slice(&adapter.id.1.to_le_bytes());
    bytes[6] = 0x10;
    bytes[10..12].copy_from_slice(&adapter.class.to_le_bytes());
    for (bar, (bits, _)) in adapter.bars.iter().enumerate() {
        bytes[0x10 + 4 * bar] = *bits;
    }
    bytes[0x34] = 0x68;
    bytes[0x68..0x6c].copy_from_slice(&[spec::CAP_MSI, 0, 0x80, 0]);
    bytes
}

fn shaped(bytes: &[u8], bars: [u64; 6]) -> Config {
    let shape = Shape { placement: Placement::RootBus, multifunction: false, intx: true, bars, rom: None };
    Config::new(&Registers::of(bytes), &shape).unwrap()
}

/// What the guest sees of a card without BARs.
pub fn config_of(bytes: &[u8]) -> Config {
    shaped(bytes, [0; 6])
}

fn quirks(adapter: Adapter) -> Quirks {
    let bytes = registers(adapter);
    let (registers, config) = (Registers::of(&bytes), shaped(&bytes, adapter.sizes()));
    let card = Card {
        name: "card",
        registers: &registers,
        config: &config,
        bars: adapter.sizes(),
        owns_vga: adapter.owns_vga,
        opregion: true,
        traced: adapter.traced,
    };
    Quirks::of(&card)
}

/// The quirk that answers under this number, if the card has it.
pub fn made(adapter: Adapter, region: Region) -> Option<Box<dyn Quirk>> {
    quirks(adapter).list.into_iter().find(|quirk| quirk.region() == region)
}

fn regions_of(adapter: Adapter) -> Vec<u8> {
    quirks(adapter).list.iter().map(|quirk| quirk.region().0).collect()
}

#[test]
fn each_vendor_has_its_own() {
    assert_eq!(regions_of(RADEON), [0xe0, 0xe1, 0xe2]);
    assert_eq!(regions_of(RADEON_X550), [0xe0, 0xe1, 0xe2]);
    assert_eq!(regions_of(GEFORCE), [0xe3, 0xe4, 0xe5, 0xe6]);
    assert_eq!(regions_of(GEFORCE.traced()), [0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8]);
    assert_eq!(regions_of(IGD), [0xe9]);
    assert_eq!(regions_of(IGD.with_class(0x0380)), [0xe9]);
    assert!(regions_of(RADEON.without_vga()).is_empty());
    assert_eq!(regions_of(GEFORCE.without_vga()), [0xe5]);
    let bochs =
        Adapter { id: vga::spec::IDENTITY, bars: [NONE, NONE, (MEMORY, 4096), NONE, NONE, NONE], ..RADEON };
    assert_eq!(regions_of(bochs), [0xf0]);
    assert!(regions_of(bochs.with_device(0x1112)).is_empty());
    assert!(regions_of(Adapter { id: (0x1013, 0x00b8), ..RADEON }).is_empty());
}

#[test]
fn every_overlay_has_a_name_and_a_place_of_its_own() {
    for adapter in [RADEON, RADEON_X550, GEFORCE.traced(), IGD] {
        let mut places = BTreeSet::new();
        for (region, overlay) in quirks(adapter).overlays() {
            assert!(regions::is_quirk(region) && overlay_name(region).is_some(), "{region:?}");
            for at in overlay.first..overlay.first + overlay.len {
                assert!(places.insert((overlay.on, at)), "{overlay:?}");
            }
            if overlay.on != Region::VGA {
                let size = adapter.sizes()[usize::from(overlay.on.0)];
                assert!(overlay.first + overlay.len <= size, "{overlay:?}");
            }
        }
    }
    assert!(is_foreign(regions::AUDIO_MIRROR) && !is_foreign(regions::NVIDIA_MIRROR));
}

/// An access somewhere on an overlay of the four cards.
fn access() -> impl Strategy<Value = (usize, u64, Width, Op)> {
    let width = prop_oneof![Just(Width::B1), Just(Width::B2), Just(Width::B4), Just(Width::B8)];
    let values = [0x338, 0x538, 0x738, 0x1810, 0x4004, 0xf10, 0x8_8ffe, 1, 0x4fff, u64::MAX];
    let value = prop_oneof![prop::sample::select(values.to_vec()), any::<u64>()];
    let op = prop_oneof![Just(Op::Read), value.prop_map(Op::Write)];
    (any::<usize>(), any::<u64>(), width, op)
}

proptest! {
    /// Whatever is done: what leads to the device stays where the access was, or in a BAR that it has; what leads
    /// to configuration space stays inside of it; and a write that may be one to configuration space was
    /// announced as such.
    #[test]
    fn nothing_leads_out_of_what_there_is(accesses in prop::collection::vec(access(), 1..200)) {
        for adapter in [RADEON, RADEON_X550, GEFORCE.traced(), IGD] {
            let mut quirks = quirks(adapter);
            let overlays: Vec<_> = quirks.overlays().collect();
            for (which, offset, width, op) in &accesses {
                let (region, overlay) = overlays[which % overlays.len()];
                let at = overlay.first + offset % overlay.len;
                let (width, op) = (*width, *op);
                if at + width.bytes() as u64 > overlay.first + overlay.len {
                    continue;
                }
                let lead = quirks.lead(region, at, width, op);
                prop_assert_eq!(quirks.follow(region, at, width, op), lead);
                match lead {
                    Ok(Lead::Device((on, place))) => prop_assert_eq!((on, place), (overlay.on, at)),
                    Ok(Lead::Config(byte, beside)) => {
                        prop_assert!(u64::from(byte) + width.bytes() as u64 <= 4096);
                        if let Beside::Sees(place) | Beside::Alike(place) = beside {
                            prop_assert_eq!(place, (overlay.on, at));
                        }
                        let announced = match overlay.writes {
                            Writes::Mirrored(first) => u64::from(byte) == u64::from(first) + at - overlay.first,
                            Writes::Latched => true,
                            Writes::Plain | Writes::Late => op == Op::Read,
                        };
                        prop_assert!(announced, "{:?} {:?}", overlay, op);
                    }
                    Ok(Lead::Here(_)) | Err(_) => {}
                }
            }
        }
    }

    /// The ports' window against one that keeps all that was written to the index, byte by byte.
    #[test]
    fn a_window_is_what_its_index_says(steps in prop::collection::vec((0..8_u64, access()), 1..100)) {
        let mut quirks = quirks(RADEON);
        let mut index = [0_u8; 4];
        for (at, (_, _, width, op)) in steps {
            if width == Width::B8 || at / 4 != (at + width.bytes() as u64 - 1) / 4 {
                continue;
            }
            let lead = quirks.follow(regions::ATI_WINDOW, at, width, op);
            let selected = u32::from_le_bytes(index).wrapping_sub(0x4000);
            let byte = u64::from(selected) + at.saturating_sub(4);
            let device = (Region::bar(4), at);
            let expected = match op {
                _ if at < 4 || selected >= 0x1000 => Ok(Lead::Device(device)),
                _ if byte + width.bytes() as u64 > 0x1000 => Err(Fault::NoRegister),
                Op::Read => Ok(Lead::Config(u16::try_from(byte).unwrap(), Beside::Sees(device))),
                Op::Write(_) => Ok(Lead::Config(u16::try_from(byte).unwrap(), Beside::Nothing)),
            };
            prop_assert_eq!(lead, expected);
            if let Op::Write(value) = op {
                let lanes = (at..4).zip(value.to_le_bytes()).take(width.bytes());
                lanes.for_each(|(lane, byte)| index[usize::try_from(lane).unwrap()] = byte);
            }
        }
    }
}
