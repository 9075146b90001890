//! Where the registers of all functions lie, when some lie where the host has them.
//!
//! Some adapters reach their own BARs by mechanisms of their own, with the addresses that the host gave.
//! Where the guest sees the same addresses, these need no quirk. So a function can keep them ([`HostAddresses`]):
//! *identity mapping*. No firmware knows of an address that is taken, so in a machine with such a function none
//! places anything: every BAR and every window of a bridge is given its address here, before the firmware
//! runs, and hidden from its sizing ([`Preplaced`]). Without such a function nothing here does anything, and the
//! firmware places what it finds.
//!
//! In this order, so that what cannot go elsewhere goes first:
//!
//! 1. what is kept. It must lie where the guest has neither RAM (which was built around it) nor its
//!    configuration space, which SeaBIOS puts at 0xb0000000, nor the chipset and the firmware's flash from
//!    0xfec00000 on, and below the end of what the guest's processors can address. Ports are kept where they
//!    lie in 0x1000-0xffff, which a guest has for PCI; others are placed anew;
//! 2. the windows of the bridges above that, each around all that is kept behind it. A window that would
//!    have to span something else cannot be;
//! 3. what else is behind these bridges (ROMs, above all), in the windows or right beside them;
//! 4. all the rest: below 4 GiB as SeaBIOS does, from 0xfebfffff down, else between low RAM and the
//!    configuration space; what can lie above 4 GiB and finds no room goes above RAM.
//!
//! The memory map tells RAM's gap, and ACPI's windows of the PCI root are all of 1 to 4. What cannot be
//! arranged is refused with the reason and the way out ([`Unfit`]).

mod plan;
mod space;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use trapline_devices::host;
use trapline_devices::pci::{Moves, Places, Preplaced};
use trapline_devices::q35::RamSplit;
use trapline_io::{Gpa, Span};

use crate::firmware::placement::{Function, Plan};
use crate::parts::{PartId, Parts};

/// What a function keeps of the host's addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostAddresses {
    /// What messages call the function.
    pub name: String,
    /// Index of each base address register, 0 to 5, and its address on the host, in guest physical memory or
    /// in ports as the register says.
    pub bars: Vec<(u8, u64)>,
    /// What becomes of a guest that moves one.
    pub moves: Moves,
}

/// What the machine has besides its functions.
#[derive(Clone, Copy, Debug)]
pub struct Ground<'a> {
    /// Where RAM lies: nothing of what is kept must be in it.
    pub ram: RamSplit,
    /// How many bits a guest physical address has.
    pub phys_bits: u8,
    /// Where nothing is to be put that can be elsewhere.
    pub reserved: &'a [Span<Gpa>],
}

/// Why addresses of the host cannot be kept. The text is for a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// The guest has something else there.
    #[error(
        "{name}: identity: its BAR {index} lies at {first:#x}-{last:#x} on the host, where the guest has {what}; have \
         the host's firmware place it elsewhere (a setting for PCI above 4 GiB moves it), or give identity=off"
    )]
    Taken {
        /// The function.
        name: String,
        /// Its register.
        index: u8,
        /// First address.
        first: u64,
        /// Last address.
        last: u64,
        /// What is there.
        what: String,
    },
    /// A bridge would have to pass on something that is not behind it.
    #[error(
        "{name}: identity: a window of the root port above it would have to span {first:#x}-{last:#x}, where the guest \
         has {what}; give root-port=off, which needs no window"
    )]
    Window {
        /// The function, or the first of several.
        name: String,
        /// First address.
        first: u64,
        /// Last address.
        last: u64,
        /// What is there.
        what: String,
    },
    /// A bridge passes on no such memory so high.
    #[error(
        "{name}: identity: its BAR {index} at {address:#x} is not prefetchable, and a root port passes on such memory \
         only below 4 GiB; give root-port=off"
    )]
    Above {
        /// The function.
        name: String,
        /// Its register.
        index: u8,
        /// Where it is on the host.
        address: u64,
    },
    /// What is not kept finds no place.
    #[error(
        "{name}: there is no room for its BAR {index} of {size:#x} bytes beside the addresses that identity keeps; leave \
         the function out, or give identity=off"
    )]
    NoRoom {
        /// The function.
        name: String,
        /// Its register; 6 is the ROM.
        index: u8,
        /// Bytes.
        size: u64,
    },
    /// Something that was never built.
    #[error("{name}: identity: it is a bridge behind a bridge, which is not supported with identity=on")]
    Nested {
        /// The bridge.
        name: String,
    },
}

/// Gives every register of `functions` an address, as one of them keeps the host's, and tells where all lies, and
/// what was not kept and why, a line each. The functions are the parts at `places`, as after power-on; `events`
/// is told of a guest that must end.
///
/// # Errors
/// See [`Unfit`]; `parts` are to be dropped then.
pub fn arrange(
    parts: &mut Vec<Parts>,
    (functions, places): (&[Function], &[PartId]),
    ground: Ground<'_>,
    events: &Arc<dyn host::Events>,
) -> Result<(Plan, Vec<String>), Unfit> {
    let kept = places.iter().map(|id| parts.get(*id).and_then(|part| part.keeps.clone()));
    let kept: Vec<_> = kept.collect();
    let addresses = plan::plan(functions, &kept, ground)?;
    let plan = addresses.as_plan(ground.ram);
    let mut addresses_of = places.iter().zip(addresses.places).peekable();
    for (id, part) in std::mem::take(parts).into_iter().enumerate() {
        let places = addresses_of.next_if(|(place, _)| **place == id).map(|(_, places)| places);
        parts.push(match places.filter(|places| !places.bars.is_empty() || places.windows.is_some()) {
            Some(places) => placed(part, &places, events),
            None => part,
        });
    }
    Ok((plan, addresses.told))
}

fn placed(part: Parts, places: &Places, events: &Arc<dyn host::Events>) -> Parts {
    let name = part.keeps.as_ref().map_or(&part.name, |keeps| &keeps.name).clone();
    let device = Preplaced::new(part.device, name, places, Arc::clone(events));
    Parts { device: Box::new(device), ..part }
}
