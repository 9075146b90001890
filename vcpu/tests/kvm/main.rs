//! Small guests on a real `/dev/kvm`, through a real access path to a toy device.
//!
//! Where there is no `/dev/kvm` each test prints a line that begins with `skipped:`.

mod accesses;
mod coalesced;
mod code;
mod interrupts;
mod ioeventfd;
mod irqfd;
mod machine;
mod memory;
mod park;
mod reset;
mod smp;
