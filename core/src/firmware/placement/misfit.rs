//! What does not fit, for a person: the sum, whose it is, and the way out.

use std::fmt;

use trapline_io::{Gpa, Span};

use super::seabios::MOST_PORTS;
use super::{LOW, end_of};
use crate::config::size;

/// How many of the largest a message names.
const NAMED: usize = 4;

/// A register, or a window of a bridge, and what it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The function's name.
    pub name: String,
    /// The register's index, 6 being the ROM; `None` for a window.
    pub bar: Option<u8>,
    /// Bytes, or ports.
    pub size: u64,
}

/// Why a machine's functions do not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// There are fewer ports.
    #[error(
        "the functions' I/O BARs do not fit: they need {needed:#x} ports and the firmware has {MOST_PORTS:#x} ({}); \
         give the guest fewer functions, or root-port=off to some: behind a root port every I/O BAR takes 0x1000",
        Shares(shares)
    )]
    Ports {
        /// What is needed.
        needed: u64,
        /// Whose it is.
        shares: Vec<Share>,
    },
    /// The window below 4 GiB is smaller.
    #[error(
        "the functions' memory below 4 GiB does not fit: it needs {}, and the firmware has {} at {:#x}-{:#x} ({}); \
         give the guest fewer functions, rom=off to those whose ROM is not needed, or root-port=off to those with \
         large 64-bit BARs: behind a root port only prefetchable ones can lie above 4 GiB",
        size::shown(*needed), size::shown(LOW.1 - LOW.0 + 1), LOW.0, LOW.1, Shares(shares)
    )]
    Low {
        /// What is needed, alignment included.
        needed: u64,
        /// Whose it is.
        shares: Vec<Share>,
    },
    /// Addresses end before RAM does.
    #[error(
        "the guest's memory does not fit: it ends at {end:#x}, and with {bits} bits guest physical addresses end at \
         {:#x}; give the guest less memory",
        end_of(*bits)
    )]
    Ram {
        /// The end of RAM.
        end: u64,
        /// How wide an address is.
        bits: u8,
    },
    /// Addresses end before.
    #[error(
        "the functions' memory above 4 GiB does not fit: from {from:#x} on it would end at {}, and with {bits} \
         bits guest physical addresses end at {:#x} ({}); give the guest fewer functions or less memory",
        Ends(*end), end_of(*bits), Shares(shares)
    )]
    High {
        /// Where the firmware would begin.
        from: u64,
        /// Where it would end; `None` beyond all addresses.
        end: Option<u64>,
        /// How wide an address is.
        bits: u8,
        /// Whose it is.
        shares: Vec<Share>,
    },
    /// The firmware hands out an address that the register cannot hold.
    #[error(
        "{share} would be put at {:#x}, which is no multiple of its size: this version of SeaBIOS misplaces large \
         BARs behind ports with a slot; give root-port=off, or a newer firmware (--firmware)",
        at.first().0
    )]
    Crooked {
        /// Where.
        at: Span<Gpa>,
        /// Whose it is.
        share: Share,
    },
    /// Something else lies there.
    #[error(
        "{share} would be put at {:#x}-{:#x}, where {:#x}-{:#x} is RAM or reserved; give the guest less memory or \
         fewer functions",
        at.first().0, at.last().0, by.first().0, by.last().0
    )]
    Taken {
        /// Where.
        at: Span<Gpa>,
        /// What lies there.
        by: Span<Gpa>,
        /// Whose it is.
        share: Share,
    },
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Share { name, bar, size } = self;
        match bar {
            Some(6) => write!(f, "{name} ROM {}", size::shown(*size)),
            Some(bar) => write!(f, "{name} BAR {bar} {}", size::shown(*size)),
            None => write!(f, "behind {name} {}", size::shown(*size)),
        }
    }
}

/// The largest of them, as a list.
struct Shares<'a>(&'a [Share]);

impl fmt::Display for Shares<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted: Vec<&Share> = self.0.iter().collect();
        sorted.sort_by_key(|share| std::cmp::Reverse(share.size));
        for (index, share) in sorted.iter().take(NAMED).enumerate() {
            write!(f, "{}{share}", if index == 0 { "" } else { ", " })?;
        }
        match sorted.len().saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(f, ", and {more} more"),
        }
    }
}

/// The end of a range, or that there is none.
struct Ends(Option<u64>);

impl fmt::Display for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(end) => write!(f, "{end:#x}"),
            None => f.write_str("no address at all"),
        }
    }
}
