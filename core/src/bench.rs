//! `trapline bench`: what an access costs on this host.
//!
//! A guest of our own repeats one kind of access after the other; a device of the machine tells it what to
//! do and takes the time. Each [case](cases) is visited in each *variant* (how the legacy window is carried
//! out, and by whom), round after round, so that what disturbs the host disturbs all variants alike. The
//! *baselines* run in the same rounds: the same guest in a loop that does nothing but `KVM_RUN`, that loop
//! with a `pread` or `pwrite` of the device's file, and these alone.
//!
//! What is reported is the median of the rounds, ratios of such medians, and histograms of the
//! [stages](trapline_io::stages) of each access.
//!
//! | file | what |
//! |---|---|
//! | [`cases`], `payload` | what is measured; the guest that it becomes |
//! | `script`, `mark` | what the guest does next; the device that tells it, and takes the time |
//! | `survey`, `null` | where the device's registers lie; a device that does nothing |
//! | `rig`, `bare` | a machine around the device; the baselines |
//! | [`measure`] | rounds and variants, to a report |
//! | [`report`], `compare`, `host` | the report as JSON; two side by side; what it says of the host |
//! | `table`, `html` | the report for people |

mod bare;
pub mod cases;
pub(crate) mod compare;
pub(crate) mod host;
pub(crate) mod html;
mod mark;
pub mod measure;
mod null;
mod payload;
pub mod report;
mod rig;
mod script;
mod survey;
pub(crate) mod table;

use std::fmt;

use trapline_devices::legacy::{Phase, Ways};

use crate::config::{Adapters, Window};

/// What is measured.
#[derive(Clone, Debug, PartialEq)]
pub enum Device {
    /// One that answers at once and does nothing.
    Null,
    /// The software adapter, or one that is given.
    Adapters(Adapters),
}

/// How the legacy window is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// Not at all: the guest in a loop of `KVM_RUN`.
    Bare,
    /// The same, and each access a `pread` or `pwrite`.
    BareFile,
    /// These alone, without any guest.
    File,
    /// One exit and one access each.
    Strict,
    /// As [`Way::Coalesced`] with the null device: what KVM's collecting costs by itself.
    Dropped,
    /// KVM collects writes.
    Coalesced,
    /// The text window is RAM.
    Shadowed,
}

impl Way {
    /// What each function with legacy VGA may do.
    pub fn ways(self) -> Ways {
        match self {
            Way::Bare | Way::BareFile | Way::File | Way::Strict => Ways::default(),
            Way::Dropped | Way::Coalesced => Ways { coalesced: true, shadowed: false, phase: Phase::Auto },
            Way::Shadowed => Ways { coalesced: true, shadowed: true, phase: Phase::Auto },
        }
    }

    /// As `trapline run` has it; the baselines are no ways of a machine.
    pub(crate) const fn window(self) -> Option<Window> {
        match self {
            Way::Bare | Way::BareFile | Way::File | Way::Dropped => None,
            Way::Strict => Some(Window::Strict),
            Way::Coalesced => Some(Window::Coalesced),
            Way::Shadowed => Some(Window::Shadowed),
        }
    }

    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Way::Bare => "bare",
            Way::BareFile => "bare+file",
            Way::File => "file",
            Way::Strict => "strict",
            Way::Dropped => "dropped",
            Way::Coalesced => "coalesced",
            Way::Shadowed => "shadowed",
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
