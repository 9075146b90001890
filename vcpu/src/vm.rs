//! The virtual machine as KVM sees it: interrupt controllers, timer and clock in the kernel.

use std::io;
use std::sync::OnceLock;

use kvm_bindings::{KVM_PIT_SPEAKER_DUMMY, kvm_pit_config};
use kvm_ioctls::{Cap, Kvm, VmFd};
use parking_lot::Mutex;
use vmm_sys_util::errno;

use crate::chips::Chips;
use crate::irqfd::{self, Routing};
use crate::kick;
use crate::pit::drop_missed_ticks;

/// Where KVM may keep the three pages of a task state segment that some processors need for real
/// mode: below 4 GiB, outside RAM and the 32-bit PCI window.
const TSS_ADDRESS: usize = 0xfeff_d000;

/// Where KVM may keep the page table of the same purpose.
const IDENTITY_MAP_ADDRESS: u64 = 0xfeff_c000;

/// The only version of the interface there ever was.
const API_VERSION: i32 = 12;

/// 8-bit APIC numbers less the one for broadcasts.
const MOST_VCPUS: usize = 255;

/// What this crate cannot do without, with the name that a message gives it.
const NEEDED: [(Cap, &str); 12] = [
    (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
    (Cap::IrqRouting, "KVM_CAP_IRQ_ROUTING"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::Pit2, "KVM_CAP_PIT2"),
    (Cap::PitState2, "KVM_CAP_PIT_STATE2"),
    (Cap::ReinjectControl, "KVM_CAP_REINJECT_CONTROL"),
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::ReadonlyMem, "KVM_CAP_READONLY_MEM"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
    (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
    (Cap::MpState, "KVM_CAP_MP_STATE"),
    (Cap::VcpuEvents, "KVM_CAP_VCPU_EVENTS"),
];

/// Why no virtual machine could be made. Each text says in one line what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no `/dev/kvm`.
    #[error(
        "/dev/kvm does not exist: load the kernel module kvm_intel or kvm_amd, and switch on \
         virtualisation in the firmware (or nested virtualisation in the host of this machine)"
    )]
    Missing,
    /// The user may not open it.
    #[error("/dev/kvm may not be opened: add yourself to the group kvm, or run as root")]
    Forbidden,
    /// It could not be opened for another reason.
    #[error("/dev/kvm could not be opened: {0}")]
    Open(#[source] io::Error),
    /// A kernel of before 2007, or something that is not KVM.
    #[error("/dev/kvm speaks version {0} of its interface, not 12: use another kernel")]
    Version(i32),
    /// The kernel's KVM lacks something.
    #[error("KVM of this kernel lacks {0}: use Linux 4.12 or newer with in-kernel interrupt controllers")]
    Lacks(&'static str),
    /// Making the machine or one of its parts failed.
    #[error("KVM could not make {what}: {source}")]
    Make {
        /// The part.
        what: &'static str,
        /// What the kernel said.
        source: errno::Error,
    },
}

/// A virtual machine: no memory and no vCPU yet. Shared by `Arc`; every method may be called from any
/// thread.
#[derive(Debug)]
pub struct Vm {
    kvm: Kvm,
    fd: VmFd,
    chips: Chips,
    routing: Mutex<Routing>,
    /// How many bits of a physical address its vCPUs tell, if that was said.
    phys_bits: OnceLock<u8>,
    /// KVM's device that is told of VFIO's files, once there is one.
    pub(crate) vfio: Mutex<Option<kvm_ioctls::DeviceFd>>,
}

impl Vm {
    /// Guest physical memory that KVM keeps to itself, as first address and length in bytes: to be
    /// kept free of slots and to be reported to the guest as reserved.
    pub const RESERVED: (u64, u64) = (IDENTITY_MAP_ADDRESS, 0x4000);

    /// Opens `/dev/kvm` and makes a machine with the 8259 pair, the I/O APIC, local APICs and the
    /// 8254 in the kernel (port 0x61 included, without sound; ticks that the guest misses are lost). The
    /// calling thread, and those that it starts, then let the kick signal through.
    ///
    /// # Errors
    /// See [`OpenError`]; the text is fit for the user.
    pub fn new() -> Result<Vm, OpenError> {
        // Threads that this one starts have it from here.
        kick::admit();
        let kvm = Kvm::new().map_err(not_opened)?;
        let version = kvm.get_api_version();
        if version != API_VERSION {
            return Err(OpenError::Version(version));
        }
        if let Some((_, name)) = NEEDED.into_iter().find(|(cap, _)| !kvm.check_extension(*cap)) {
            return Err(OpenError::Lacks(name));
        }
        let make = |what| move |source| OpenError::Make { what, source };
        let fd = kvm.create_vm().map_err(make("a virtual machine"))?;
        if kvm.check_extension(Cap::SetIdentityMapAddr) {
            fd.set_identity_map_address(IDENTITY_MAP_ADDRESS).map_err(make("the identity map"))?;
        }
        fd.set_tss_address(TSS_ADDRESS).map_err(make("the task state segment"))?;
        fd.create_irq_chip().map_err(make("the interrupt controllers"))?;
        let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
        fd.create_pit2(pit).map_err(make("the interval timer"))?;
        drop_missed_ticks(&fd).map_err(make("the interval timer drop missed ticks"))?;
        let chips = Chips::read(&fd).map_err(make("a copy of the controllers' state"))?;
        let limit = usize::try_from(kvm.check_extension_int(Cap::IrqRouting)).unwrap_or(0);
        let routing = Routing::new(limit);
        irqfd::set_default(&fd, &routing).map_err(make("the interrupt routes"))?;
        let (routing, phys_bits) = (Mutex::new(routing), OnceLock::new());
        Ok(Vm { kvm, fd, chips, routing, phys_bits, vfio: Mutex::new(None) })
    }

    /// Says how many bits of a physical address the vCPUs are to tell, in place of
    /// [`crate::cpuid::Cpuid::phys_bits`] of this host; before they are made. The first word counts.
    pub fn set_phys_bits(&self, bits: u8) {
        // Said before: that word counts.
        let _ = self.phys_bits.set(bits);
    }

    /// What [`Vm::set_phys_bits`] said.
    pub(crate) fn phys_bits(&self) -> Option<u8> {
        self.phys_bits.get().copied()
    }

    /// Sets the level of one interrupt input: 0 to 15 reach the 8259 pair and the I/O APIC (0 its pin 2),
    /// 16 to 23 the I/O APIC alone. Does not block; a number out of range is ignored.
    pub fn set_gsi(&self, gsi: u32, level: bool) {
        if let Err(error) = self.fd.set_irq_line(gsi, level) {
            tracing::debug!(gsi, level, %error, "interrupt input not set");
        }
    }

    /// How many vCPUs a machine may have: what this kernel allows, and no more than the 8-bit numbers
    /// of local APICs tell apart (one of which means all).
    pub fn max_vcpus(&self) -> usize {
        self.kvm.get_max_vcpus().min(MOST_VCPUS)
    }

    /// Whether KVM can collect writes to memory, in the ring of [`crate::Vcpus::collected`].
    pub fn collects_memory(&self) -> bool {
        self.ring_offset().is_some()
    }

    /// Whether it can collect writes to ports too (Linux 4.20 or newer).
    pub fn collects_ports(&self) -> bool {
        self.collects_memory() && self.kvm.check_extension(Cap::CoalescedPio)
    }

    /// Where a vCPU's descriptor offers the ring of collected writes, in pages; `None` if this KVM has
    /// none.
    pub(crate) fn ring_offset(&self) -> Option<u64> {
        u64::try_from(self.kvm.check_extension_int(Cap::CoalescedMmio)).ok().filter(|pages| *pages > 0)
    }

    /// The descriptor of `/dev/kvm`, for what concerns the whole host.
    pub(crate) fn kvm(&self) -> &Kvm {
        &self.kvm
    }

    /// Where interrupt inputs lead.
    pub(crate) fn routing(&self) -> &Mutex<Routing> {
        &self.routing
    }

    /// The machine's descriptor.
    pub(crate) fn fd(&self) -> &VmFd {
        &self.fd
    }

    /// Brings the controllers, the timer and the clock back to what they were when the machine was
    /// made. All vCPUs are parked.
    pub(crate) fn reset_chips(&self) -> Result<(), errno::Error> {
        self.chips.write(&self.fd)
    }
}

/// Why `/dev/kvm` was not opened.
fn not_opened(error: errno::Error) -> OpenError {
    match error.errno() {
        libc::ENOENT | libc::ENXIO | libc::ENODEV => OpenError::Missing,
        libc::EACCES | libc::EPERM => OpenError::Forbidden,
        _ => OpenError::Open(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_one_line_that_says_what_to_do() {
        let line = |number| not_opened(errno::Error::new(number)).to_string();
        for (number, advice) in [
            (libc::ENOENT, "load the kernel module"),
            (libc::ENODEV, "load the kernel module"),
            (libc::EACCES, "group kvm"),
            (libc::EPERM, "group kvm"),
            (libc::EMFILE, "Too many open files"),
        ] {
            let line = line(number);
            assert!(line.starts_with("/dev/kvm ") && line.contains(advice), "{line}");
            assert!(!line.contains('\n') && !line.contains("  "), "{line}");
        }
    }
}
