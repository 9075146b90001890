//! Fuzz targets of what a guest, a card, a socket or a file can feed to devices.
//!
//! ```text
//! cd devices && cargo +nightly fuzz run vga -- -max_total_time=60 -timeout=10
//! ```
//!
//! The other ways to build and run, `tests/fuzz.rs` among them, are those of `io/fuzz/src/lib.rs`. `-timeout` makes a
//! hang a finding;
//! libFuzzer reports leaks and memory that grows beyond 2 GiB by itself.
//!
//! * `vga`, `snapshot`: the adapter's registers and memory, and the picture that comes of them; the
//!   picture of any snapshot.
//! * `wire`, `server`, `client`: vfio-user, its messages and both ends against a hostile other end.
//! * `config`: configuration space and base address registers, beside plain models.
//! * `chipset`: host bridge, LPC bridge, root port, and the map that follows from their registers.
//! * `function`: an assigned function over a device of any content.
//! * `quirks`: back doors of adapters to configuration space, through the address space.
//! * `window`: the owner of legacy VGA in all its modes, beside the same adapter used strictly.
//! * `rom`: files with an expansion ROM in them: read, told, repaired, compared.
//! * `fw_cfg`, `platform`, `block`: the devices that are no adapters, with hostile guest memory.

/// The card of the target `quirks`.
#[path = "../../tests/assigned_card/adapter.rs"]
#[allow(missing_docs, reason = "a test's")]
pub mod adapter;
pub mod block;
pub mod chipset;
pub mod client;
pub mod config;
pub mod function;
pub mod fw_cfg;
pub mod platform;
pub mod quirks;
pub mod rom;
pub mod server;
pub mod snapshot;
pub mod toy;
pub mod vga;
pub mod window;
pub mod wire;

use std::fs::File;
use std::os::fd::OwnedFd;

use arbitrary::{Arbitrary, Unstructured};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use trapline_devices::host::{Event, Events, Gsis, IrqLine};
use trapline_io::device::{Claims, Range};
use trapline_io::space::{ConfigLatch, EndpointId, Resolved, SpaceBuilder};
use trapline_io::{Address, Device, Op, Port, Region, Trap, Width};

/// A host that nobody watches.
#[derive(Clone, Copy, Debug)]
pub struct Nobody;

impl IrqLine for Nobody {
    fn set(&self, _: bool) {}
}

impl Gsis for Nobody {
    fn set(&self, _: u32, _: bool) {}
}

impl Events for Nobody {
    fn report(&self, _: Event) {}
}

/// Something that a guest, or the machine, does to a device.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Step {
    /// A read at one of the places that the target knows.
    Read {
        /// Which of them.
        place: u8,
        /// How far from its start.
        offset: u16,
        /// How wide.
        width: u8,
    },
    /// A write there.
    Write {
        /// Which of them.
        place: u8,
        /// How far from its start.
        offset: u16,
        /// How wide.
        width: u8,
        /// What is written.
        value: u64,
    },
    /// A small value in a byte or a word, the more usual write.
    Put {
        /// Which of them.
        place: u8,
        /// How far from its start.
        offset: u8,
        /// What is written.
        value: u16,
    },
    /// An access that no claim leads to.
    Stray {
        /// Any region.
        region: u8,
        /// Any offset.
        offset: u64,
        /// How wide.
        width: u8,
        /// A write, if there is a value.
        value: Option<u64>,
    },
    /// The map is asked for.
    Claims,
    /// The machine is reset.
    Reset,
}

/// One of the four widths.
pub fn width(any: u8) -> Width {
    [Width::B1, Width::B2, Width::B4, Width::B8][usize::from(any & 3)]
}

/// A run of offsets of a region that is worth an access.
pub type Place = (Region, u64, u64);

/// The configuration space of a function: header, then all of it.
pub const CONFIG: [Place; 2] = [(Region::CONFIG, 0, 0x40), (Region::CONFIG, 0, 0x1000)];

/// Does `steps` to a device that has something at `places`.
pub fn drive(device: &mut dyn Device, places: &[Place], steps: &[Step]) {
    let at = |place: u8, offset: u64| {
        let (region, first, len) = places[usize::from(place) % places.len()];
        (region, first + offset % len)
    };
    for step in steps {
        match *step {
            Step::Read { place, offset, width: any } => {
                let (region, offset) = at(place, offset.into());
                let _ = device.read(region, offset, width(any));
            }
            Step::Write { place, offset, width: any, value } => {
                let (region, offset) = at(place, offset.into());
                let _ = device.write(region, offset, width(any), value & width(any).all_ones());
            }
            Step::Put { place, offset, value } => {
                let (region, offset) = at(place, offset.into());
                let width = if value > 0xff { Width::B2 } else { Width::B1 };
                let _ = device.write(region, offset, width, value.into());
            }
            Step::Stray { region, offset, width: any, value: None } => {
                let _ = device.read(Region(region), offset, width(any));
            }
            Step::Stray { region, offset, width: any, value: Some(value) } => {
                let _ = device.write(Region(region), offset, width(any), value & width(any).all_ones());
            }
            Step::Claims => check_claims(&device.claims()),
            Step::Reset => device.reset(),
        }
    }
    check_claims(&device.claims());
}

/// What the machine relies on: direct ranges of whole pages inside their mapping, and a table that
/// answers for them.
pub fn check_claims(claims: &Claims) {
    let mut builder = SpaceBuilder::default();
    for claim in &claims.ranges {
        if let (Range::Memory(span), Some(direct)) = (claim.range, &claim.direct) {
            let bytes = span.extent().checked_add(1).expect("a mapping is smaller than the space");
            assert_eq!((span.first().0 | bytes | direct.offset) % 4096, 0, "{claim:?}");
            assert!(direct.offset + bytes <= direct.memory.size() as u64, "{claim:?}");
        }
        builder.claim(EndpointId(0), claim);
    }
    let (space, latch) = (builder.build(), ConfigLatch::default());
    for claim in &claims.ranges {
        let at = match claim.range {
            Range::Ports(span) => Address::Port(span.first()),
            Range::Memory(span) => Address::Gpa(span.first()),
        };
        let found = space.resolve(Trap { at, width: Width::B1, op: Op::Read }, &latch);
        let config = matches!(at, Address::Port(Port(0xcf8..=0xcff))) || found == Resolved::Unclaimed;
        assert!(config || matches!(found, Resolved::Access { .. }), "{claim:?}: {found:?}");
    }
}

/// A memory file that cannot shrink.
///
/// # Errors
/// What the system says.
pub fn sealed(bytes: u64) -> std::io::Result<OwnedFd> {
    let file = memfd_create("fuzz", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&file, bytes)?;
    fcntl_add_seals(&file, SealFlags::SHRINK)?;
    Ok(file)
}

/// A place where a device's output ends.
///
/// # Errors
/// What the system says.
pub fn sink() -> std::io::Result<OwnedFd> {
    Ok(File::options().write(true).open("/dev/null")?.into())
}

/// `data` as the input of a target, if it is long enough for one.
pub fn input<'a, T: Arbitrary<'a>>(data: &'a [u8]) -> Option<T> {
    T::arbitrary_take_rest(Unstructured::new(data)).ok()
}
