//! The Q35 platform as [`Parts`]: chipset, firmware configuration, clock, serial line, keyboard.

use std::io;
use std::sync::Arc;

use trapline_devices::host::{self, Gsis, IrqLine};
use trapline_devices::pci::Devfn;
use trapline_devices::platform::debug_console::DebugConsole;
use trapline_devices::platform::fw_cfg::{FwCfg, Items};
use trapline_devices::platform::keyboard::{KeyboardController, Keys};
use trapline_devices::platform::output::Output;
use trapline_devices::platform::rtc::{Cmos, Rtc};
use trapline_devices::platform::uart::{Input, Uart};
use trapline_devices::q35::{FirmwareError, HostBridge, Lpc, Pirqs, Ram};
use trapline_io::device::{Direct, DirectKind};
use trapline_io::publish::Published;
use trapline_io::{Gpa, Span};
use trapline_vcpu::Vm;
use vm_memory::{MmapRegion, VolatileMemory};

use crate::events::Events;
use crate::firmware::acpi::Windows;
use crate::parts::Parts;

/// ISA interrupts of the platform's devices.
mod irq {
    pub const KEYBOARD: u32 = 1;
    pub const COM1: u32 = 4;
    pub const RTC: u32 = 8;
}

/// Why the platform cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The firmware does not fit.
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    /// No memory for the firmware.
    #[error("no memory for the firmware image: {0}")]
    Memory(#[from] vm_memory::mmap::MmapRegionError),
    /// The kernel refuses a descriptor.
    #[error("a device cannot be made: {0}; check the limit on open files")]
    Descriptor(#[from] io::Error),
}

/// The interrupt inputs of KVM's in-kernel controllers.
pub struct KvmGsis(pub Arc<Vm>);

impl Gsis for KvmGsis {
    fn set(&self, gsi: u32, level: bool) {
        self.0.set_gsi(gsi, level);
    }
}

/// An ISA interrupt, which nothing else shares.
struct Isa {
    vm: Arc<Vm>,
    gsi: u32,
}

impl IrqLine for Isa {
    fn set(&self, level: bool) {
        self.vm.set_gsi(self.gsi, level);
    }
}

/// What the platform is to be.
pub struct Wishes {
    /// The VM whose interrupt controllers the devices pull.
    pub vm: Arc<Vm>,
    /// Where events go.
    pub events: Events,
    /// The guest's memory.
    pub ram: Ram,
    /// The firmware image.
    pub firmware: Vec<u8>,
    /// Processors.
    pub cpus: u8,
    /// Where the serial line's output goes; `None` for no line.
    pub serial: Option<Output>,
    /// Where the firmware's debug output goes.
    pub debug_console: Option<Output>,
    /// Interrupt wires of PCI functions.
    pub pirqs: Pirqs,
}

/// The platform, and the ends of its lines that lead outside.
pub struct Platform {
    /// Host bridge first: where its claims and those of others overlap, RAM wins.
    pub parts: Vec<Parts>,
    /// Presses keys.
    pub keys: Keys,
    /// Feeds the serial line.
    pub serial: Option<Input>,
}

/// What the firmware reads, as the last of a machine's parts: it tells of all others.
pub fn fw_cfg(items: Items, ram: &Ram) -> Parts {
    Parts::platform("fw_cfg", FwCfg::new(items, Arc::clone(ram.guest_memory())))
}

/// Builds the platform, [`fw_cfg`] apart.
///
/// # Errors
/// See [`Error`].
pub fn build(wishes: Wishes) -> Result<Platform, Error> {
    let Wishes { vm, events, ram, firmware, cpus, serial, debug_console, pirqs } = wishes;
    let isa = |gsi| Arc::new(Isa { vm: Arc::clone(&vm), gsi });
    let events: Arc<dyn host::Events> = Arc::new(events);
    let cmos = Cmos {
        low_memory: ram.split().low,
        high_memory: ram.split().high,
        cpus: cpus.into(),
        ..Cmos::default()
    };
    let (rtc, (keyboard, keys)) =
        (Rtc::new(&cmos, isa(irq::RTC))?, KeyboardController::new(isa(irq::KEYBOARD), Arc::clone(&events))?);
    let host_bridge = HostBridge::new(ram, flash(&firmware)?)?;
    let lpc = Lpc::new(pirqs, events);
    let (rtc_fd, keyboard_fd) = (rtc.attention()?, keyboard.attention()?);
    let mut parts = vec![
        Parts::function("host bridge", host_bridge, None, devfn(0, 0), HostBridge::TOPOLOGY),
        Parts::function("LPC bridge", lpc, None, devfn(31, 0), Lpc::TOPOLOGY),
        Parts::platform("clock", rtc).attention(rtc_fd),
        Parts::platform("keyboard", keyboard).attention(keyboard_fd),
    ];
    let mut feed = None;
    if let Some(to) = serial {
        let (uart, input) = Uart::com1(to, isa(irq::COM1))?;
        let fd = uart.attention()?;
        parts.push(Parts::platform("serial", uart).attention(fd));
        feed = Some(input);
    }
    if let Some(to) = debug_console {
        let console = DebugConsole::new(to)?;
        let fd = console.attention()?;
        parts.push(Parts::platform("debug console", console).attention(fd));
    }
    Ok(Platform { parts, keys, serial: feed })
}

/// The address of a device on bus 0.
fn devfn(device: u8, function: u8) -> Devfn {
    Devfn::new(device, function).unwrap_or_default()
}

/// The firmware image as memory that can lie in the guest.
fn flash(image: &[u8]) -> Result<Arc<MmapRegion>, Error> {
    let region = MmapRegion::new(image.len())?;
    region.as_volatile_slice().copy_from(image);
    Ok(Arc::new(region))
}

/// Where BARs lie now, as ACPI is to tell it: the 64-bit window reaches from the lowest to the
/// highest range above 4 GiB and all RAM, in whole GiB. `planned` is what the firmware was to take there:
/// it has the windows of bridges too, which can be larger than what is in them. What lies in a gap of RAM has
/// that for its window.
pub fn windows(published: &Published, planned: Option<Span<Gpa>>) -> Windows {
    const GIB: u64 = 1 << 30;
    let space = published.current();
    let is_ram = |direct: Option<&Direct>| direct.is_some_and(|direct| direct.kind == DirectKind::Ram);
    let ram = space.memory().filter(|(_, direct)| is_ram(*direct)).map(|(span, _)| span.last());
    let above = ram.max().unwrap_or(Gpa(0)).max(Gpa(4 * GIB - 1));
    let mut high = space.memory().map(|(span, _)| span).filter(|span| span.first() > above);
    let lowest = high.next();
    let highest = high.last().or(lowest);
    let found = lowest.zip(highest).and_then(|(lowest, highest)| {
        Span::new(Gpa(lowest.first().0 & !(GIB - 1)), Gpa(highest.last().0 | (GIB - 1)))
    });
    let window = match (found, planned) {
        (Some(found), Some(planned)) => {
            Span::new(found.first().min(planned.first()), found.last().max(planned.last()))
        }
        (found, planned) => found.or(planned),
    };
    Windows { high: window, ..Windows::default() }
}
