//! Getting a vCPU out of `KVM_RUN`, without a race.
//!
//! Whoever wants a vCPU out first makes its reason visible (the world's state), then sets the byte
//! `immediate_exit` in the page that the vCPU shares with the kernel, then sends its thread a
//! real-time signal. A vCPU in the guest is interrupted by the signal. A vCPU that is just about to
//! enter gets its signal for nothing, but finds the byte set and returns at once. The byte stays set
//! until the thread itself has seen the reason, so no kick is lost and none has to be repeated.

// UNSAFETY: the byte lies in memory that the kernel shares with the vCPU's descriptor and must be
// written by threads that do not own that descriptor.
#![expect(unsafe_code)]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Once};
use std::thread::JoinHandle;

use kvm_ioctls::VcpuFd;
use libc::{c_int, c_void, siginfo_t};
use parking_lot::Mutex;
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler, unblock_signal};

/// Does nothing: that the signal interrupts `KVM_RUN` is all it is for.
extern "C" fn ignore(_: c_int, _: *mut siginfo_t, _: *mut c_void) {}

/// Installs the handler of the kick signal, once in the life of the process.
pub(crate) fn install_handler() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // It can only fail on a signal number that does not exist.
        let _ = register_signal_handler(SIGRTMIN(), ignore);
    });
}

/// Lets the kick signal through to the calling thread, whatever its parents blocked.
pub(crate) fn admit() {
    // It can only fail on a signal number that does not exist.
    let _ = unblock_signal(SIGRTMIN());
}

/// Interrupts whatever system call the thread is in. Any other effect is the handler's: none.
pub(crate) fn interrupt(thread: &JoinHandle<()>) {
    // A thread that has ended, but is not joined, may be signalled in vain.
    let _ = thread.kill(SIGRTMIN());
}

/// Interrupts whatever system call each other thread of the process is in, once; of no effect on one that is in
/// none. For the end of a run, when a transfer to a device may sleep for as long as somebody else wishes. Does not block.
///
/// # Errors
/// The list of threads cannot be read.
pub fn interrupt_others() -> std::io::Result<()> {
    install_handler();
    let process = std::process::id();
    let own = rustix::thread::gettid().as_raw_nonzero().get();
    for task in std::fs::read_dir("/proc/self/task")?.flatten() {
        let thread = task.file_name().to_str().and_then(|name| name.parse::<c_int>().ok());
        if let Some(thread) = thread.filter(|thread| *thread != own) {
            // SAFETY: it takes numbers alone. A thread that has ended since is no thread of this process any more,
            // and is not found.
            unsafe { libc::syscall(libc::SYS_tgkill, process, thread, SIGRTMIN()) };
        }
    }
    Ok(())
}

/// The byte `immediate_exit` of one vCPU, for whoever wants it out of `KVM_RUN`. Of no effect once the
/// vCPU's descriptor is closed.
#[derive(Clone, Debug)]
pub(crate) struct ImmediateExit(Arc<Mutex<Option<SharedByte>>>);

#[derive(Debug)]
struct SharedByte(NonNull<u8>);

// SAFETY: the pointer is only used for atomic accesses to one byte, which any thread may do while
// the mapping exists; `OwnedVcpu` takes the pointer away, under the mutex, before it goes.
unsafe impl Send for SharedByte {}

impl ImmediateExit {
    /// Makes `KVM_RUN` return at once, or not.
    pub(crate) fn set(&self, on: bool) {
        if let Some(byte) = &*self.0.lock() {
            // SAFETY: the byte is mapped, since the pointer is still here and the mutex held. A byte
            // is always aligned. Every thread of this program accesses it through this atomic
            // only; the kernel reads it once at each entry.
            let byte = unsafe { AtomicU8::from_ptr(byte.0.as_ptr()) };
            byte.store(u8::from(on), Ordering::SeqCst);
        }
    }
}

/// The descriptor of a vCPU, of which others may hold the [`ImmediateExit`].
#[derive(Debug)]
pub(crate) struct OwnedVcpu {
    fd: VcpuFd,
    immediate_exit: ImmediateExit,
}

impl OwnedVcpu {
    pub(crate) fn new(mut fd: VcpuFd) -> OwnedVcpu {
        // Moving the descriptor does not move the page.
        let byte = NonNull::from(&mut fd.get_kvm_run().immediate_exit);
        OwnedVcpu { fd, immediate_exit: ImmediateExit(Arc::new(Mutex::new(Some(SharedByte(byte))))) }
    }

    /// The byte, to be kept by others.
    pub(crate) fn immediate_exit(&self) -> &ImmediateExit {
        &self.immediate_exit
    }

    /// The descriptor, for its ioctls.
    pub(crate) fn fd(&self) -> &VcpuFd {
        &self.fd
    }

    /// The descriptor, to run it. Not to be swapped for another: the byte is this one's.
    pub(crate) fn fd_mut(&mut self) -> &mut VcpuFd {
        &mut self.fd
    }
}

impl Drop for OwnedVcpu {
    fn drop(&mut self) {
        *self.immediate_exit.0.lock() = None;
    }
}
