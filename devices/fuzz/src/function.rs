//! An assigned function over a device with any configuration space, regions and answers.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Instant;

use super::{CONFIG, Place, Step, drive};
use arbitrary::Arbitrary;
use trapline_devices::assigned::backend::{Backend, Irqs, Mapping, RegionInfo, Signalled};
use trapline_devices::assigned::{Function, Options, Placement, RomSource, Vga};
use trapline_devices::host::{Interrupts, Level, Message, Vector};
use trapline_devices::legacy::{Phase, Ways};
use trapline_devices::pci::Pin;
use trapline_io::window::Mode;
use trapline_io::{Device, Fault, Region, Width};
use vm_memory::MmapRegion;

const PLACES: [Place; 12] = [
    CONFIG[0],
    CONFIG[1],
    (Region::CONFIG, 0x40, 0xc0),
    (Region::bar(0), 0, 0x4000),
    (Region::VGA, 0x3c0, 0x20),
    (Region::VGA, 0xb_7ff0, 0x40),
    (Region::ROM, 0, 0x2000),
    // The ports of the Bochs adapter, the table of MSI-X and its pending bits.
    (Region(0xf0), 0x1ce, 4),
    (Region(0xf1), 0, 0x100),
    (Region(0xf2), 0, 0x100),
    // The capabilities of a usual head: MSI and MSI-X; and the extended ones.
    (Region::CONFIG, 0x40, 0x30),
    (Region::CONFIG, 0x100, 0x100),
];

#[derive(Arbitrary, Debug)]
struct Any {
    config: Vec<u8>,
    /// Whether the head is that of a common adapter, whatever follows.
    usual: bool,
    sizes: Vec<(u8, u16)>,
    mapped: u16,
    answers: Vec<Result<u64, u8>>,
    rom: Vec<u8>,
    resettable: bool,
    irqs: (bool, u16, u16, bool),
    /// Which of the host's interrupts fail: a bit for each call.
    refused: u32,
    dies_after: Option<u8>,
}

struct Card {
    any: Any,
    regions: Vec<RegionInfo>,
    calls: usize,
}

impl Card {
    fn new(mut any: Any) -> Card {
        if any.usual {
            any.config.resize(any.config.len().max(0x40), 0);
            any.config[..16]
                .copy_from_slice(&[0x34, 0x12, 0x11, 0x11, 0, 0, 0x10, 0, 2, 0, 0, 3, 0, 0, 0, 0]);
            any.config[0x0e] = 0;
            any.config[0x34] = 0x40;
            any.config.resize(any.config.len().max(0x100), 0);
            // 64 bits, masks and 32 messages; 5 vectors, in the places that BAR 0 has.
            any.config[0x40..0x44].copy_from_slice(&[0x05, 0x60, 0x8a, 0x01]);
            any.config[0x60..0x6c].copy_from_slice(&[0x11, 0x70, 4, 0, 0, 0, 0, 0, 0, 8, 0, 0]);
        }
        let region = |(index, &(shift, more)): (usize, &(u8, u16))| {
            let size = 1_u64
                .checked_shl(u32::from(shift) % 70)
                .unwrap_or(u64::MAX)
                .saturating_add(u64::from(more & 1));
            let mappings = if any.mapped >> (index & 15) & 1 == 1 && (0x1000..=0x1_0000).contains(&size) {
                let memory = MmapRegion::new(0x1000).expect("address space");
                vec![Mapping::whole(size - size % 0x1000 - 0x1000, Arc::new(memory))]
            } else {
                Vec::new()
            };
            RegionInfo { size, readable: more & 2 == 0, writable: more & 4 == 0, mappings }
        };
        let mut regions: Vec<_> = any.sizes.iter().take(64).enumerate().map(region).collect();
        if any.usual
            && let Some(region) = regions.first_mut().filter(|region| region.size > 0x1_0000)
        {
            *region = RegionInfo { size: 0x1000, readable: true, writable: true, mappings: Vec::new() };
        }
        Card { any, regions, calls: 0 }
    }

    fn answer(&mut self) -> Result<u64, Fault> {
        self.calls += 1;
        match self.any.answers.get(self.calls % self.any.answers.len().max(1)) {
            Some(Ok(value)) => Ok(*value),
            Some(Err(0..0xe0)) | None => Ok(0),
            Some(Err(_)) => Err(Fault::Failed),
        }
    }
}

impl Backend for Card {
    fn name(&self) -> &str {
        "fuzz"
    }
    fn regions(&self) -> &[RegionInfo] {
        &self.regions
    }
    fn is_dead(&self) -> bool {
        self.any.dies_after.is_some_and(|calls| self.calls > calls.into())
    }
    fn resettable(&self) -> bool {
        self.any.resettable
    }
    fn read(&mut self, _: Region, _: u64, _: Width) -> Result<u64, Fault> {
        self.answer()
    }
    fn write(&mut self, _: Region, _: u64, _: Width, _: u64) -> Result<(), Fault> {
        self.answer().map(|_| ())
    }
    fn read_bytes(&mut self, region: Region, offset: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        let from = if region == Region::CONFIG { &self.any.config } else { &self.any.rom };
        let from = usize::try_from(offset).ok().and_then(|at| from.get(at..)).unwrap_or_default();
        bytes.iter_mut().zip(from).for_each(|(byte, from)| *byte = *from);
        self.answer().map(|_| ())
    }
    fn reset(&mut self) -> Result<(), Fault> {
        self.answer().map(|_| ())
    }
    fn irqs(&self) -> Irqs {
        let (intx, msi, msix, msix_grows) = self.any.irqs;
        Irqs { intx, msi, msix, msix_grows }
    }
    fn enable_intx(&mut self, _: BorrowedFd<'_>, _: BorrowedFd<'_>) -> Result<(), Fault> {
        self.answer().map(|_| ())
    }
    fn disable_intx(&mut self) -> Result<(), Fault> {
        self.answer().map(|_| ())
    }
    fn enable_vectors(&mut self, _: Signalled, _: u16, _: &[BorrowedFd<'_>]) -> Result<(), Fault> {
        self.answer().map(|_| ())
    }
    fn disable_vectors(&mut self, _: Signalled) -> Result<(), Fault> {
        self.answer().map(|_| ())
    }
}

/// A host whose interrupts lead nowhere, and are refused now and then.
struct Host(u32);

#[derive(Debug)]
struct Nowhere(io::Stdin, u32);

impl Interrupts for Host {
    fn vectors(&self, count: usize) -> io::Result<Vec<Box<dyn Vector>>> {
        assert!(count <= 2048);
        if self.0 & 1 << (count % 32) != 0 {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        Ok((0..count).map(|_| Box::new(Nowhere(io::stdin(), self.0)) as Box<dyn Vector>).collect())
    }
    fn line(&self, _: Pin) -> io::Result<Box<dyn Level>> {
        Ok(Box::new(Nowhere(io::stdin(), 0)))
    }
}

impl Vector for Nowhere {
    fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
    fn route(&mut self, message: Option<Message>) -> io::Result<()> {
        match message {
            Some(message) if message.data & self.1 == 1 => Err(io::ErrorKind::InvalidInput.into()),
            _ => Ok(()),
        }
    }
    fn pending(&self) -> bool {
        self.1 & 2 == 0
    }
}

impl Level for Nowhere {
    fn trigger(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
    fn resample(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What the machine asks of a window that the guest uses, and what a run of writes may meet.
fn turn(function: &mut Function<Card>, turn: u8, offset: u32) {
    const MODES: [Mode; 4] = [Mode::Native, Mode::Resting, Mode::Coalesced, Mode::Shadowed];
    let bytes = [0x5a; 40];
    let _ = function.write_run(Region::VGA, offset.into(), &bytes[..usize::from(turn >> 2 & 31) + 1]);
    if let Some(window) = function.window() {
        window.tick(Instant::now());
        let to = MODES[usize::from(turn & 3)];
        window.turn(to);
        // To rest is never refused, so that every shadow ends.
        assert!(window.mode() == to || to != Mode::Resting);
    }
}

/// Carries out what `data` says.
pub fn run(data: &[u8]) {
    let Some(input) = super::input::<(Any, u8, bool, u8, Vec<(u8, u32, Vec<Step>)>)>(data) else { return };
    let (any, options, dma, ways, steps) = input;
    let phase = [Phase::Auto, Phase::Legacy, Phase::Native][usize::from(ways >> 2) % 3];
    let options = Options {
        ways: Ways { coalesced: ways & 1 == 0, shadowed: ways & 2 == 0, phase },
        vga: [Vga::Auto, Vga::On, Vga::Off][usize::from(options % 3)],
        rom: if options & 0x80 != 0 { RomSource::Off } else { RomSource::Device },
        placement: if options & 0x40 != 0 { Placement::BehindPort } else { Placement::RootBus },
        multifunction: options & 0x20 != 0,
        every_write: options & 8 != 0,
        interrupts: (options & 0x10 == 0).then(|| Arc::new(Host(any.refused)) as Arc<dyn Interrupts>),
        ..Options::default()
    };
    match Function::open(Card::new(any), options) {
        Ok(mut function) => {
            if dma {
                function.allow_dma();
            }
            for (to, offset, steps) in steps {
                drive(&mut function, &PLACES, &steps);
                turn(&mut function, to, 0xa_0000 + offset % 0x2_0010);
            }
            assert_eq!(function.topology(), function.topology());
        }
        Err(problem) => assert!(!problem.to_string().is_empty()),
    }
}
