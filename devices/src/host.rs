//! What devices need of the host, as traits that the machine joins to KVM.

/// The interrupt inputs of the machine. In the in-kernel controllers GSI 0 to 15 reach both the
/// 8259 pair and the I/O APIC, 16 to 23 the I/O APIC alone.
pub trait Gsis: Send + Sync {
    /// Sets the level of one input. Never blocks for long; any thread.
    fn set(&self, gsi: u32, level: bool);
}

/// One interrupt line of one device: its own share of a wire that others may pull too.
pub trait IrqLine: Send + Sync {
    /// Asserts or releases the line. Never blocks for long; any thread.
    fn set(&self, level: bool);
}

/// What the guest, or a device behind it, asks of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// ACPI S5: the machine is to be switched off.
    PowerOff,
    /// Port 0xcf9, 0x64 or 0x92: all of the machine is to be reset.
    Reset,
    /// A device can not go on; the text is for a person and names the device.
    Failed(String),
}

/// Takes events to whoever runs the machine.
pub trait Events: Send + Sync {
    /// Reports `event`. Does not block and does not carry it out: the caller goes on, and its vCPU
    /// is stopped on its way back into the guest.
    fn report(&self, event: Event);
}
