//! A machine that does nothing but `KVM_RUN`: what a benchmark compares the access path with.
//!
//! One vCPU, fixed memory, and a closure that answers each exit on the vCPU's own thread. There is no
//! address space, no queue and no device between the exit and the answer, so that what a guest's access
//! takes here is what KVM and the answer take.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use kvm_ioctls::VcpuExit;

use crate::cpuid::Cpuid;
use crate::kick::{self, OwnedVcpu};
use crate::slots::{Slot, SlotError, Slots};
use crate::vcpus;
use crate::vm::{OpenError, Vm};

/// What the guest asks for.
#[derive(Debug)]
pub enum Asked<'a> {
    /// `in`: the answer goes into `data`.
    PortIn {
        /// The port.
        port: u16,
        /// 1, 2 or 4 bytes; more where an `ins` asks for several elements at once.
        data: &'a mut [u8],
    },
    /// `out`.
    PortOut {
        /// The port.
        port: u16,
        /// As above.
        data: &'a [u8],
    },
    /// A load: the answer goes into `data`.
    Load {
        /// Its guest physical address.
        gpa: u64,
        /// 1 to 8 bytes.
        data: &'a mut [u8],
    },
    /// A store.
    Store {
        /// Its guest physical address.
        gpa: u64,
        /// 1 to 8 bytes.
        data: &'a [u8],
    },
}

/// Why there is no bare machine, or why it ended too early.
#[derive(Debug, thiserror::Error)]
pub enum BareError {
    /// KVM cannot be had.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The memory is refused.
    #[error(transparent)]
    Slots(#[from] SlotError),
    /// The vCPU cannot be made.
    #[error(transparent)]
    Vcpu(#[from] vcpus::Error),
    /// The thread cannot be started.
    #[error("the bare vCPU's thread could not be started: {0}")]
    Thread(#[source] std::io::Error),
    /// The guest did something that is no access; what KVM said.
    #[error("the bare vCPU cannot go on: {0}")]
    Failed(String),
    /// The guest was not at its end in time.
    #[error("the bare vCPU did not come to its end within {0:?}")]
    TooLong(Duration),
}

/// Runs one vCPU from the reset vector, with `memory` and nothing else, until `answer` breaks. `answer`
/// is called on the vCPU's thread. Blocks until that thread is gone: at most `limit`, and what one
/// answer takes.
///
/// # Errors
/// See [`BareError`].
pub fn run(
    memory: &[Slot],
    limit: Duration,
    answer: impl FnMut(Asked<'_>) -> ControlFlow<()> + Send + 'static,
) -> Result<(), BareError> {
    kick::install_handler();
    let vm = Arc::new(Vm::new()?);
    let mut slots = Slots::new(Arc::clone(&vm));
    slots.add_missing(memory)?;
    let cpuid = Cpuid::of_host(&vm, 1).map_err(vcpus::Error::Features)?;
    let (vcpu, _) = vcpus::make(&vm, 0, &cpuid)?;
    let immediate_exit = vcpu.immediate_exit().clone();
    let late = Arc::new(AtomicBool::new(false));
    let is_late = Arc::clone(&late);
    let (done, ended) = channel();
    let thread = std::thread::Builder::new()
        .name("bare".into())
        .spawn(move || {
            kick::admit();
            // Nobody listens any more where the caller itself is gone.
            let _ = done.send(serve(vcpu, &is_late, answer));
        })
        .map_err(BareError::Thread)?;
    let outcome = ended.recv_timeout(limit);
    if outcome == Err(RecvTimeoutError::Timeout) {
        late.store(true, Ordering::SeqCst);
        immediate_exit.set(true);
        kick::interrupt(&thread);
    }
    let joined = thread.join();
    drop(slots);
    match (outcome, joined) {
        (Ok(outcome), Ok(())) => outcome.map_err(BareError::Failed),
        (Err(RecvTimeoutError::Timeout), Ok(())) => Err(BareError::TooLong(limit)),
        _ => Err(BareError::Failed("its thread panicked".into())),
    }
}

/// The loop itself.
fn serve(
    mut vcpu: OwnedVcpu,
    late: &AtomicBool,
    mut answer: impl FnMut(Asked<'_>) -> ControlFlow<()>,
) -> Result<(), String> {
    loop {
        let next = match vcpu.fd_mut().run() {
            Ok(VcpuExit::IoIn(port, data)) => answer(Asked::PortIn { port, data }),
            Ok(VcpuExit::IoOut(port, data)) => answer(Asked::PortOut { port, data }),
            Ok(VcpuExit::MmioRead(gpa, data)) => answer(Asked::Load { gpa, data }),
            Ok(VcpuExit::MmioWrite(gpa, data)) => answer(Asked::Store { gpa, data }),
            Ok(VcpuExit::Intr) => ControlFlow::Continue(()),
            Err(error) if [libc::EINTR, libc::EAGAIN].contains(&error.errno()) => ControlFlow::Continue(()),
            Ok(other) => return Err(format!("{other:?}")),
            Err(error) => return Err(format!("KVM_RUN failed: {error}")),
        };
        // The flag is looked at only after exits: a guest that runs on without any is kicked.
        if next.is_break() || late.load(Ordering::Relaxed) {
            return Ok(());
        }
    }
}

/// What this kernel's KVM can do that an access's cost depends on: names without `KVM_CAP_`, and numbers
/// (0 is no).
///
/// # Errors
/// KVM cannot be had.
pub fn capabilities() -> Result<Vec<(&'static str, i32)>, OpenError> {
    use kvm_ioctls::Cap;
    const ASKED: [(Cap, &str); 6] = [
        (Cap::CoalescedMmio, "COALESCED_MMIO"),
        (Cap::CoalescedPio, "COALESCED_PIO"),
        (Cap::Ioeventfd, "IOEVENTFD"),
        (Cap::IoeventfdNoLength, "IOEVENTFD_NO_LENGTH"),
        (Cap::ReadonlyMem, "READONLY_MEM"),
        (Cap::NrMemslots, "NR_MEMSLOTS"),
    ];
    let vm = Vm::new()?;
    Ok(ASKED.into_iter().map(|(cap, name)| (name, vm.kvm().check_extension_int(cap))).collect())
}
