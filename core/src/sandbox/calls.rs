//! Who may ask the kernel for what.
//!
//! A list is generous where that is harmless: other kernels and C libraries use other calls for the same thing
//! (`epoll_wait` and `epoll_pwait`, `poll` and `ppoll`). It is exact where it matters: no thread that
//! serves a guest opens a file, none makes memory executable, none starts a program or opens a socket, and each
//! `ioctl` is named.

use syscalls::Sysno;

use super::Kind;

/// A system call that is allowed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub number: Sysno,
    /// What its arguments must be, all of it. A call stands always with conditions or always without.
    pub conditions: &'static [Condition],
}

/// One argument, from 0, has this value in the bits of the mask.
#[derive(Clone, Copy, Debug)]
pub(super) struct Condition {
    pub argument: u8,
    pub mask: u64,
    pub value: u64,
}

const fn any(number: Sysno) -> Call {
    Call { number, conditions: &[] }
}

const fn only(number: Sysno, conditions: &'static [Condition]) -> Call {
    Call { number, conditions }
}

const fn bits(argument: u8, mask: u32, value: u32) -> Condition {
    Condition { argument, mask: mask as u64, value: value as u64 }
}

const fn is(argument: u8, value: u32) -> Condition {
    bits(argument, u32::MAX, value)
}

/// An argument that points to nothing: all of its bits.
const fn nowhere(argument: u8) -> Condition {
    Condition { argument, mask: u64::MAX, value: 0 }
}

/// `PROT_EXEC` of mmap(2).
const EXECUTABLE: u32 = 4;
/// `CLONE_THREAD` of clone(2).
const THREAD: u32 = 0x1_0000;
/// `AF_UNIX` of socket(2).
const UNIX: u32 = 1;
/// `PR_SET_VMA` and `PR_SET_NAME` of prctl(2): names of memory and threads.
const NAME_MEMORY: u32 = 0x5356_4d41;
const NAME_THREAD: u32 = 15;
/// `RLIMIT_MEMLOCK` of prlimit(2).
const LOCKED_MEMORY: u32 = 8;

/// Every thread: memory, waiting, time, reading and writing what is open, panics, its end.
const LEAST: &[Call] = &[
    any(Sysno::read),
    any(Sysno::write),
    any(Sysno::writev),
    any(Sysno::close),
    any(Sysno::fcntl),
    only(Sysno::mmap, &[bits(2, EXECUTABLE, 0)]),
    only(Sysno::mprotect, &[bits(2, EXECUTABLE, 0)]),
    any(Sysno::munmap),
    any(Sysno::mremap),
    any(Sysno::madvise),
    any(Sysno::brk),
    any(Sysno::futex),
    any(Sysno::futex_wait),
    any(Sysno::futex_wake),
    any(Sysno::poll),
    any(Sysno::ppoll),
    any(Sysno::nanosleep),
    any(Sysno::clock_nanosleep),
    any(Sysno::restart_syscall),
    any(Sysno::clock_gettime),
    any(Sysno::gettimeofday),
    any(Sysno::getrandom),
    any(Sysno::getpid),
    any(Sysno::gettid),
    any(Sysno::rt_sigaction),
    any(Sysno::rt_sigprocmask),
    any(Sysno::rt_sigreturn),
    any(Sysno::sigaltstack),
    any(Sysno::exit),
    any(Sysno::exit_group),
];

/// Every thread of a machine, and the software adapter.
const EVERY: &[Call] = &[
    any(Sysno::readv),
    any(Sysno::lseek),
    any(Sysno::dup),
    any(Sysno::fstat),
    // What the C library makes of fstat; it names a path, and opens none.
    any(Sysno::newfstatat),
    any(Sysno::statx),
    only(Sysno::prctl, &[is(0, NAME_MEMORY)]),
    only(Sysno::prctl, &[is(0, NAME_THREAD)]),
    any(Sysno::clock_getres),
    any(Sysno::time),
    any(Sysno::sched_yield),
    any(Sysno::sched_getaffinity),
    any(Sysno::getcpu),
    // The handler of a signal that ends the program, or tells of a new size, on whichever thread it comes; and short
    // messages of vfio-user. To whom a socket is connected, and to nobody else.
    only(Sysno::sendto, &[nowhere(4)]),
    // Timers that exist: whoever gives a device something may have its clock set.
    any(Sysno::timerfd_settime),
    any(Sysno::timerfd_gettime),
    any(Sysno::membarrier),
    any(Sysno::rseq),
    any(Sysno::set_robust_list),
];

/// Whoever may carry out an access, which is whoever may hold a function's token: transfers to a card, messages
/// to the other end of vfio-user, eventfds for vectors that a driver switches on.
const DEVICES: &[Call] = &[
    any(Sysno::pread64),
    any(Sysno::pwrite64),
    any(Sysno::preadv),
    any(Sysno::pwritev),
    any(Sysno::sendmsg),
    any(Sysno::recvmsg),
    any(Sysno::recvfrom),
    any(Sysno::shutdown),
    any(Sysno::setsockopt),
    any(Sysno::getsockopt),
    any(Sysno::eventfd2),
    any(Sysno::ftruncate),
];

/// An event loop on what is there; and a device that is gone is watched no more.
const LOOP: &[Call] =
    &[any(Sysno::epoll_ctl), any(Sysno::epoll_wait), any(Sysno::epoll_pwait), any(Sysno::epoll_pwait2)];

/// Whoever maps memory for DMA: the limit of locked memory is read, to say why the kernel refused. None is set, and
/// no other process is asked of.
const MAPS: &[Call] = &[only(Sysno::prlimit64, &[is(0, 0), is(1, LOCKED_MEMORY), nowhere(2)])];

/// A ring that exists.
const RING: &[Call] = &[any(Sysno::io_uring_enter), any(Sysno::io_uring_register)];

/// A file that is open.
const FILE: &[Call] = &[any(Sysno::pwrite64), any(Sysno::ftruncate)];

/// Signals that came, through a socket; and the end of a server for one.
const SIGNALS: &[Call] = &[any(Sysno::recvfrom), any(Sysno::recvmsg), any(Sysno::shutdown)];

/// Threads that are started, and step behind the guest's. The flags of `clone3` lie in memory, where no filter looks;
/// without `execve` a process would be no more than this one is.
const START_THREADS: &[Call] =
    &[only(Sysno::clone, &[bits(0, THREAD, THREAD)]), any(Sysno::clone3), any(Sysno::setpriority)];

/// A terminal that crossterm watches.
const TERMINAL: &[Call] = &[
    any(Sysno::epoll_create1),
    any(Sysno::eventfd2),
    any(Sysno::pipe2),
    only(Sysno::socketpair, &[is(0, UNIX)]),
    any(Sysno::recvfrom),
    any(Sysno::getpgrp),
];

/// The bits of open(2) by which a file is written, made or emptied: `O_ACCMODE`, `O_CREAT`, `O_TRUNC`, `O_APPEND`.
const TO_WRITE: u32 = 0x643;

/// The host's sysfs.
const READ_FILES: &[Call] = &[
    only(Sysno::openat, &[bits(2, TO_WRITE, 0)]),
    any(Sysno::getdents64),
    any(Sysno::readlink),
    any(Sysno::readlinkat),
    any(Sysno::pread64),
];

/// What a report tells of the host.
const HOST: &[Call] = &[
    any(Sysno::getdents64),
    any(Sysno::pread64),
    any(Sysno::statfs),
    any(Sysno::fstatfs),
    any(Sysno::uname),
    any(Sysno::sysinfo),
    any(Sysno::getuid),
    any(Sysno::geteuid),
];

/// Files that the end of a run writes, beside their places first.
const FILES: &[Call] = &[
    any(Sysno::open),
    any(Sysno::openat),
    any(Sysno::stat),
    any(Sysno::lstat),
    any(Sysno::readlink),
    any(Sysno::readlinkat),
    any(Sysno::getcwd),
    any(Sysno::access),
    any(Sysno::faccessat),
    any(Sysno::faccessat2),
    any(Sysno::rename),
    any(Sysno::renameat),
    any(Sysno::renameat2),
    any(Sysno::unlink),
    any(Sysno::unlinkat),
    any(Sysno::chmod),
    any(Sysno::fchmod),
    any(Sysno::fchmodat),
    any(Sysno::fsync),
    any(Sysno::fdatasync),
    any(Sysno::ftruncate),
    any(Sysno::flock),
];

/// The end of a process that was started for a function.
const CHILD: &[Call] = &[any(Sysno::wait4), any(Sysno::waitid)];

/// The same of one that is not to end by itself.
const KILL: &[Call] = &[any(Sysno::kill), any(Sysno::pidfd_send_signal)];

/// The server's end of a Unix socket: clients, and its name.
const SERVER: &[Call] =
    &[any(Sysno::accept), any(Sysno::accept4), any(Sysno::lstat), any(Sysno::unlink), any(Sysno::unlinkat)];

/// The calls of threads of `kind`, but for `ioctl`.
pub(super) fn of(kind: Kind) -> impl Iterator<Item = &'static Call> {
    let own: &[&[Call]] = match kind {
        Kind::Vcpu | Kind::Window => &[EVERY, DEVICES, LOOP, MAPS],
        Kind::Machine => &[EVERY, DEVICES, LOOP, MAPS, CHILD],
        Kind::Interrupts => &[EVERY, READ_FILES],
        Kind::Worker => &[EVERY, DEVICES, LOOP, MAPS, RING],
        Kind::Dma => &[EVERY, MAPS, START_THREADS],
        Kind::Trace => &[EVERY, FILE],
        Kind::Signals => &[EVERY, SIGNALS],
        Kind::SerialInput => &[EVERY],
        Kind::Main => &[EVERY, DEVICES, LOOP, MAPS, TERMINAL, FILES, HOST, CHILD, KILL],
        Kind::Adapter => &[EVERY, DEVICES, SERVER],
        Kind::Lease => &[],
    };
    LEAST.iter().chain(own.iter().copied().flatten())
}

/// ioctls by their low half: the type above the number.
type Ioctl = u16;

/// Terminals (`asm-generic/ioctls.h`): whoever ends the program gives it back. And `FIONBIO` of a socket.
const TTY: &[Ioctl] = &[
    0x5401, // TCGETS
    0x5402, // TCSETS
    0x5403, // TCSETSW
    0x5404, // TCSETSF
    0x540f, // TIOCGPGRP
    0x5413, // TIOCGWINSZ
    0x5421, // FIONBIO
    0x542a, // TCGETS2
    0x542b, // TCSETS2
    0x542c, // TCSETSW2
    0x542d, // TCSETSF2
];

/// KVM (`linux/kvm.h`): entering the guest, first, and the vCPU's state.
const VCPU: &[Ioctl] = &[
    0xae80, // KVM_RUN
    0xae81, // KVM_GET_REGS
    0xae82, // KVM_SET_REGS
    0xae83, // KVM_GET_SREGS
    0xae84, // KVM_SET_SREGS
    0xae88, // KVM_GET_MSRS
    0xae89, // KVM_SET_MSRS
    0xae8d, // KVM_SET_FPU
    0xae8e, // KVM_GET_LAPIC
    0xae8f, // KVM_SET_LAPIC
    0xae90, // KVM_SET_CPUID2
    0xae98, // KVM_GET_MP_STATE
    0xae99, // KVM_SET_MP_STATE
    0xae9f, // KVM_GET_VCPU_EVENTS
    0xaea0, // KVM_SET_VCPU_EVENTS
    0xaea2, // KVM_SET_DEBUGREGS, KVM_SET_TSC_KHZ
    0xaea5, // KVM_SET_XSAVE
    0xaea7, // KVM_SET_XCRS
];

/// KVM: what devices and changes of the map need of the machine.
const VM: &[Ioctl] = &[
    0xae03, // KVM_CHECK_EXTENSION
    0xae42, // KVM_GET_DIRTY_LOG
    0xae46, // KVM_SET_USER_MEMORY_REGION
    0xae49, // KVM_SET_USER_MEMORY_REGION2
    0xae61, // KVM_IRQ_LINE
    0xae67, // KVM_REGISTER_COALESCED_MMIO, KVM_IRQ_LINE_STATUS
    0xae68, // KVM_UNREGISTER_COALESCED_MMIO
    0xae6a, // KVM_SET_GSI_ROUTING
    0xae76, // KVM_IRQFD
    0xae79, // KVM_IOEVENTFD
    0xaec0, // KVM_CLEAR_DIRTY_LOG
];

/// KVM: the state of controllers, timer and clock, for a reset; and the VFIO files that KVM is told to forget.
const CHIPS: &[Ioctl] = &[
    0xae62, // KVM_GET_IRQCHIP
    0xae63, // KVM_SET_IRQCHIP
    0xae71, // KVM_REINJECT_CONTROL
    0xae7b, // KVM_SET_CLOCK
    0xae7c, // KVM_GET_CLOCK
    0xae9f, // KVM_GET_PIT2
    0xaea0, // KVM_SET_PIT2
    0xaee1, // KVM_SET_DEVICE_ATTR
];

/// VFIO devices (`linux/vfio.h`): interrupts, resets, and what is asked of one again after those.
const VFIO: &[Ioctl] = &[
    0x3b6b, // VFIO_DEVICE_GET_INFO
    0x3b6c, // VFIO_DEVICE_GET_REGION_INFO
    0x3b6d, // VFIO_DEVICE_GET_IRQ_INFO
    0x3b6e, // VFIO_DEVICE_SET_IRQS
    0x3b6f, // VFIO_DEVICE_RESET
    0x3b70, // VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, VFIO_IOMMU_GET_INFO
    0x3b71, // VFIO_DEVICE_PCI_HOT_RESET, VFIO_IOMMU_MAP_DMA
    0x3b74, // VFIO_DEVICE_IOEVENTFD
    0x3b75, // VFIO_DEVICE_FEATURE
];

/// Memory for DMA, in a container or an iommufd (`linux/vfio.h`, `linux/iommufd.h`).
const DMA: &[Ioctl] = &[
    0x3b70, // VFIO_IOMMU_GET_INFO
    0x3b71, // VFIO_IOMMU_MAP_DMA
    0x3b72, // VFIO_IOMMU_UNMAP_DMA
    0x3b84, // IOMMU_IOAS_IOVA_RANGES
    0x3b85, // IOMMU_IOAS_MAP
    0x3b86, // IOMMU_IOAS_UNMAP
];

/// The end of what VFIO opened.
const PARTING: &[Ioctl] = &[
    0x3b69, // VFIO_GROUP_UNSET_CONTAINER
    0x3b78, // VFIO_DEVICE_DETACH_IOMMUFD_PT
    0x3b80, // IOMMU_DESTROY
];

/// The ioctls of threads of `kind`, in the order in which the kernel compares.
pub(super) fn ioctls(kind: Kind) -> impl Iterator<Item = Ioctl> {
    let own: &[&[Ioctl]] = match kind {
        Kind::Vcpu => &[VCPU, VM, VFIO, DMA, TTY],
        Kind::Worker | Kind::Window => &[VM, VFIO, DMA, TTY],
        Kind::Machine => &[VM, CHIPS, VFIO, DMA, PARTING, TTY],
        Kind::Dma => &[DMA, TTY],
        // The last to hold the machine may be the one who watches it.
        Kind::Main => &[VM, CHIPS, VFIO, DMA, PARTING, TTY],
        Kind::Trace | Kind::Interrupts | Kind::Signals | Kind::SerialInput | Kind::Adapter => &[TTY],
        Kind::Lease => &[],
    };
    own.iter().copied().flatten().copied()
}
