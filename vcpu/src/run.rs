//! One `KVM_RUN`, and what came of it.

// UNSAFETY: what kvm-ioctls gives for string I/O lacks the element size, and for an internal error
// the reason; both are fields of a C union in the shared page.
#![expect(unsafe_code)]

use kvm_ioctls::{VcpuExit, VcpuFd};
use trapline_io::{Gpa, Port};

/// Why the guest was left. Answers go into `data` before the next [`enter`].
#[derive(Debug)]
pub(crate) enum Exit<'a> {
    /// `in`, or `ins` with several elements of `size` bytes.
    PortIn { port: Port, size: usize, data: &'a mut [u8] },
    /// `out`, or `outs`.
    PortOut { port: Port, size: usize, data: &'a [u8] },
    /// A load, 1 to 8 bytes.
    MemoryRead { gpa: Gpa, data: &'a mut [u8] },
    /// A store, 1 to 8 bytes.
    MemoryWrite { gpa: Gpa, data: &'a [u8] },
    /// Nothing to do: a signal, `immediate_exit`, or a processor that waits to be started.
    Interrupted,
    /// A triple fault.
    Shutdown,
    /// The memory behind a slot is not there at the moment; where, if the kernel tells.
    NoMemory(Option<Gpa>),
    /// KVM cannot go on. What it said, for a person.
    Failed(String),
}

impl Exit<'_> {
    /// Whether the guest waits for an access to be carried out.
    pub(crate) fn is_access(&self) -> bool {
        matches!(
            self,
            Exit::PortIn { .. } | Exit::PortOut { .. } | Exit::MemoryRead { .. } | Exit::MemoryWrite { .. }
        )
    }
}

/// Runs the guest until it needs something.
#[inline]
pub(crate) fn enter(vcpu: &mut VcpuFd) -> Exit<'_> {
    let (port, data, out) = match vcpu.run() {
        Ok(VcpuExit::IoIn(port, data)) => (port, std::ptr::from_mut(data), false),
        Ok(VcpuExit::IoOut(port, data)) => (port, std::ptr::from_ref(data).cast_mut(), true),
        Ok(VcpuExit::MmioRead(gpa, data)) => {
            let data = std::ptr::from_mut(data);
            // SAFETY: the slice that kvm-ioctls gave lives in the shared page, as long as `vcpu` is
            // borrowed; this only ties it to the borrow that the caller sees.
            return Exit::MemoryRead { gpa: Gpa(gpa), data: unsafe { &mut *data } };
        }
        Ok(VcpuExit::MmioWrite(gpa, data)) => {
            let data = std::ptr::from_ref(data);
            // SAFETY: as above.
            return Exit::MemoryWrite { gpa: Gpa(gpa), data: unsafe { &*data } };
        }
        other => {
            let seldom = seldom(other);
            return seldom.unwrap_or_else(|| Exit::Failed(internal_error(vcpu)));
        }
    };
    // SAFETY: the exit was KVM_EXIT_IO, so this is the field of the union that the kernel filled.
    let size = usize::from(unsafe { vcpu.get_kvm_run().__bindgen_anon_1.io.size });
    if out {
        // SAFETY: the data lies behind the structure whose field was just read (the kernel puts it
        // on a page of its own), in the mapping that lives as long as `vcpu` is borrowed.
        Exit::PortOut { port: Port(port), size, data: unsafe { &*data } }
    } else {
        // SAFETY: as above, and nobody else has a reference to it.
        Exit::PortIn { port: Port(port), size, data: unsafe { &mut *data } }
    }
}

/// The exits that are not accesses; `None` for an internal error, whose reason is in the page.
#[cold]
fn seldom(result: Result<VcpuExit<'_>, kvm_ioctls::Error>) -> Option<Exit<'static>> {
    Some(match result {
        Ok(VcpuExit::Intr) => Exit::Interrupted,
        Ok(VcpuExit::Shutdown) => Exit::Shutdown,
        Ok(VcpuExit::MemoryFault { gpa, .. }) => Exit::NoMemory(Some(Gpa(gpa))),
        Ok(VcpuExit::InternalError) => return None,
        Ok(VcpuExit::FailEntry(reason, cpu)) => Exit::Failed(format!(
            "the processor refused to enter the guest: hardware reason {reason:#x} on host CPU {cpu}"
        )),
        Ok(other) => Exit::Failed(format!("KVM left the guest for a reason that has no answer: {other:?}")),
        Err(error) => match error.errno() {
            libc::EINTR | libc::EAGAIN => Exit::Interrupted,
            libc::EFAULT => Exit::NoMemory(None),
            _ => Exit::Failed(format!("KVM_RUN failed: {error}")),
        },
    })
}

/// What KVM says of an internal error (`KVM_EXIT_INTERNAL_ERROR`).
#[cold]
fn internal_error(vcpu: &mut VcpuFd) -> String {
    // SAFETY: the exit was KVM_EXIT_INTERNAL_ERROR, so the kernel filled this field of the union.
    let internal = unsafe { vcpu.get_kvm_run().__bindgen_anon_1.internal };
    let meaning = match internal.suberror {
        1 => "an instruction could not be emulated",
        2 => "exceptions came while another was delivered",
        3 => "an event could not be delivered",
        4 => "an exit came for an unknown reason",
        _ => "reason unknown",
    };
    let rip = vcpu.get_regs().map_or_else(|_| "?".into(), |regs| format!("{:#x}", regs.rip));
    let data: Vec<String> =
        internal.data.iter().take(internal.ndata as usize).map(|word| format!("{word:#x}")).collect();
    format!("KVM internal error {} ({meaning}) at rip {rip}, data [{}]", internal.suberror, data.join(", "))
}
