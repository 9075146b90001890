//! The policy of the timer in the kernel for ticks that the guest did not take in time.

// UNSAFETY: kvm-ioctls has no `KVM_REINJECT_CONTROL`.
#![expect(unsafe_code)]

use kvm_bindings::{KVMIO, kvm_reinject_control};
use kvm_ioctls::VmFd;
use vmm_sys_util::errno;
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::ioctl_io_nr;

ioctl_io_nr!(KVM_REINJECT_CONTROL, KVMIO, 0x71);

/// Lets ticks go that the guest missed, as on a PC, where IRQ0 is one latch and no count.
///
/// KVM's own way is to raise IRQ0 again for each of them as soon as the one before is acknowledged. A
/// boot loader that unpacks itself for seconds with interrupts off then owes hundreds of them; if it
/// takes interrupts only in short moments, IRQ0 wins each of these over the keyboard.
pub(crate) fn drop_missed_ticks(vm: &VmFd) -> Result<(), errno::Error> {
    let control = kvm_reinject_control { pit_reinject: 0, ..Default::default() };
    // SAFETY: the kernel reads one `kvm_reinject_control`, which outlives the call.
    match unsafe { ioctl_with_ref(vm, KVM_REINJECT_CONTROL(), &control) } {
        0 => Ok(()),
        _ => errno::errno_result(),
    }
}
