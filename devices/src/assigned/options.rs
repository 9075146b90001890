//! How a device is given to the guest, and what became of it.

use std::fmt;
use std::sync::Arc;

use super::rom::Source as RomSource;
use crate::host::Interrupts;
use crate::legacy::Ways;

/// Whether the function is to own the legacy VGA ranges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Vga {
    /// If it is a VGA compatible controller and its backend forwards them.
    #[default]
    Auto,
    /// Yes; an error where the backend cannot.
    On,
    /// No.
    Off,
}

/// Whether a function owns the legacy VGA ranges, and why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegacyVga {
    /// It does.
    Owned,
    /// It was not to ([`Vga::Off`]).
    Off,
    /// It is no VGA compatible controller (class 0300).
    NotVga,
    /// It is one, but its backend does not forward the ranges: BIOS and boot loader stay dark on it,
    /// a driver of the guest's does not need them.
    NoRegion,
}

/// Where in the guest's PCI topology a function sits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// On bus 0, as a part of the root complex: no link, no extended capabilities.
    #[default]
    RootBus,
    /// Behind a root port, at the end of a link.
    BehindPort,
}

/// Which of a device's message signalled interrupts the guest sees. Whatever the guest then uses, the device
/// uses too: never is one kind signalled in place of another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Messages {
    /// All that the device and the host have.
    #[default]
    Guest,
    /// MSI alone.
    NoMsix,
    /// MSI-X alone.
    NoMsi,
    /// None: the guest uses the INTx line.
    Off,
}

impl Messages {
    /// Whether the guest sees MSI.
    pub fn msi(self) -> bool {
        matches!(self, Messages::Guest | Messages::NoMsix)
    }

    /// Whether the guest sees MSI-X.
    pub fn msix(self) -> bool {
        matches!(self, Messages::Guest | Messages::NoMsi)
    }
}

/// The largest number of a GPUDirect clique.
pub const CLIQUE_LARGEST: u8 = 15;

/// How a device is given to the guest.
#[derive(Clone, Default)]
pub struct Options {
    /// Legacy VGA.
    pub vga: Vga,
    /// How legacy VGA may be carried out, if it owns it.
    pub ways: Ways,
    /// The expansion ROM.
    pub rom: RomSource,
    /// Where it sits.
    pub placement: Placement,
    /// Function 0 of a device says so if there are others; a guest looks for those only then.
    pub multifunction: bool,
    /// A write that traps goes on trapping, however often it is repeated: for who traces.
    pub every_write: bool,
    /// Adapters of NVIDIA's with the same number, 0 to 15, may be told by their driver to reach each other directly.
    pub gpudirect_clique: Option<u8>,
    /// Which message signalled interrupts of the device are shown.
    pub messages: Messages,
    /// The host's console showed on it. If it cannot be reset, and is in a text mode, what stands there is
    /// put back when the function is dropped.
    pub console: bool,
    /// The host's interrupts. Without them the guest sees a function that has none.
    pub interrupts: Option<Arc<dyn Interrupts>>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("vga", &self.vga)
            .field("ways", &self.ways)
            .field("rom", &self.rom)
            .field("placement", &self.placement)
            .field("multifunction", &self.multifunction)
            .field("every_write", &self.every_write)
            .field("gpudirect_clique", &self.gpudirect_clique)
            .field("messages", &self.messages)
            .field("console", &self.console)
            .field("interrupts", &self.interrupts.is_some())
            .finish()
    }
}
