//! What the ways of carrying out the legacy window are made of, as ratios to a write that exits: a write
//! that KVM collects, a zone that comes and goes, and finding out what changed in 32 KiB of RAM by KVM's
//! dirty log or by comparing.
//!
//! Each line is the median of many rounds, in turns with what it is compared to. The vCPU is at rest while
//! the host's calls are timed, so that a dirty log is cheaper here than with a guest that runs: the
//! flush of its TLB, and the fault of its next write, come on top.

// UNSAFETY: the guest's memory is given to KVM by hand, with a dirty log.
#![expect(unsafe_code)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, KVM_MEM_LOG_DIRTY_PAGES, kvm_userspace_memory_region};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, VcpuExit, VcpuFd, VmFd};
use trapline_vcpu::Vm;
use vm_memory::{Bytes, MmapRegion, VolatileMemory};

/// The guest asks here how many accesses to make, and says there that it is done.
const ASK: u16 = 0x600;
/// Where the code lies.
const CODE: u64 = 0xffff_f000;
/// The window whose writes trap, and the text window behind it, which is RAM.
const WINDOW: u64 = 0xb0000;
const TEXT: u64 = 0xb8000;
const TEXT_LEN: usize = 0x8000;
/// The port whose writes trap.
const PORT: u16 = 0x3d4;

const ROUNDS: usize = 201;
/// Accesses of a round: many rings.
const ACCESSES: u32 = 1700;

/// `mov [0], al`, `out dx, al` and `mov [8000h], al`; DS is the window.
const STORE: &[u8] = &[0xa2, 0, 0];
const OUT: &[u8] = &[0xee];
const STORE_TEXT: &[u8] = &[0xa2, 0x00, 0x80];

/// mov dx, ASK; in eax, dx; mov ecx, eax; mov dx, PORT; N times the access; mov dx, ASK; out dx, al; again.
fn code(access: &[u8]) -> Vec<u8> {
    let back = |here: usize, to: usize| u8::try_from(here + 1 - to).expect("a short jump").wrapping_neg();
    let [low, high] = PORT.to_le_bytes();
    let mut code = vec![0xb8, 0x00, 0xb0, 0x8e, 0xd8];
    let start = code.len();
    code.extend([0xba, 0x00, 0x06, 0x66, 0xed, 0x66, 0x89, 0xc1, 0xba, low, high]);
    let again = code.len();
    code.extend(access);
    code.extend([0x66, 0x49, 0x75]); // dec ecx; jnz again
    code.push(back(code.len(), again));
    code.extend([0xba, 0x00, 0x06, 0xee, 0xeb]);
    code.push(back(code.len(), start));
    code.resize(0xff0, 0xf4);
    // The reset vector: back to the start of the page, CS stays.
    code.extend([0xe9, 0x0d, 0xf0]);
    code
}

/// A machine whose vCPU runs on the thread that asks it to.
struct Guest {
    vcpu: VcpuFd,
    vm: VmFd,
    text: Arc<MmapRegion>,
    /// What KVM uses until it is closed.
    _code: MmapRegion,
}

impl Guest {
    /// `log`: the text window has a dirty log.
    fn new(access: &[u8], log: bool) -> Guest {
        let kvm = Kvm::new().expect("KVM");
        let vm = kvm.create_vm().expect("a machine");
        vm.set_tss_address(0xfffb_d000).expect("a task state segment");
        vm.create_irq_chip().expect("controllers");
        let memory = MmapRegion::new(0x1000).expect("a page");
        memory.as_volatile_slice().write_slice(&code(access), 0).expect("it fits");
        let text = Arc::new(MmapRegion::new(TEXT_LEN).expect("eight pages"));
        let flags = if log { KVM_MEM_LOG_DIRTY_PAGES } else { 0 };
        for (slot, at, memory, flags) in [(0, CODE, &memory, 0), (1, TEXT, &*text, flags)] {
            let region = kvm_userspace_memory_region {
                slot,
                flags,
                guest_phys_addr: at,
                memory_size: memory.size() as u64,
                userspace_addr: memory.as_ptr() as u64,
            };
            // SAFETY: the mappings live in the result, whose descriptors are closed before them.
            unsafe { vm.set_user_memory_region(region) }.expect("a slot");
        }
        let mut vcpu = vm.create_vcpu(0).expect("a vCPU");
        let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).expect("features");
        vcpu.set_cpuid2(&cpuid).expect("features");
        vcpu.map_coalesced_mmio_ring().expect("a ring");
        Guest { vcpu, vm, text, _code: memory }
    }

    /// How long so many accesses take, those of the ring taken out at every exit.
    fn run(&mut self, accesses: u32) -> Duration {
        let mut start = None;
        loop {
            match self.vcpu.run().expect("KVM_RUN") {
                VcpuExit::IoIn(ASK, data) => {
                    data.copy_from_slice(&accesses.to_le_bytes());
                    start = Some(Instant::now());
                }
                VcpuExit::IoOut(ASK, _) => break,
                VcpuExit::IoOut(..) | VcpuExit::MmioWrite(..) => {}
                other => panic!("{other:?}"),
            }
            while let Some(entry) = self.vcpu.coalesced_mmio_read().expect("a ring") {
                black_box(entry);
            }
        }
        start.expect("the guest asked").elapsed()
    }
}

/// Medians of what `measure` gives, several figures a round, in nanoseconds.
fn medians<const N: usize>(mut measure: impl FnMut() -> [Duration; N]) -> [f64; N] {
    let mut times: Vec<[Duration; N]> = (0..ROUNDS).map(|_| measure()).collect();
    std::array::from_fn(|figure| {
        times.sort_unstable_by_key(|round| round[figure]);
        times[ROUNDS / 2][figure].as_secs_f64() * 1e9
    })
}

fn timed<R>(f: impl FnOnce() -> R) -> Duration {
    let start = Instant::now();
    black_box(f());
    start.elapsed()
}

/// A write that exits, a write that is collected, and what it takes to change between the two.
fn collected(name: &str, access: &[u8], zone: IoEventAddress, len: u32) -> f64 {
    let mut guest = Guest::new(access, false);
    let [exits, register, collects, unregister] = medians(|| {
        let exits = guest.run(ACCESSES);
        let register = timed(|| guest.vm.register_coalesced_mmio(zone, len).expect("a zone"));
        let collects = guest.run(ACCESSES);
        let unregister = timed(|| guest.vm.unregister_coalesced_mmio(zone, len).expect("no zone"));
        [exits, register, collects, unregister]
    });
    let exit = exits / f64::from(ACCESSES);
    let collected = collects / f64::from(ACCESSES);
    println!("{name}: exit {exit:.0} ns, collected {collected:.0} ns, ratio {:.3}", collected / exit);
    println!(
        "  zone: registering {register:.0} ns ({:.2} exits), unregistering {unregister:.0} ns ({:.0} exits)",
        register / exit,
        unregister / exit
    );
    exit
}

/// What one changed page of 32 KiB costs to find.
fn changed(exit: f64) {
    let mut with = Guest::new(STORE_TEXT, true);
    let mut without = Guest::new(STORE_TEXT, false);
    let mut copy = vec![0_u8; TEXT_LEN];
    let mut sent = vec![0_u8; TEXT_LEN];
    without.text.as_volatile_slice().copy_to(&mut sent);
    let [log, compare, logged, plain] = medians(|| {
        let logged = with.run(1);
        let log = timed(|| with.vm.get_dirty_log(1, TEXT_LEN).expect("a log"));
        let plain = without.run(1);
        let compare = timed(|| {
            without.text.as_volatile_slice().copy_to(&mut copy);
            copy == sent
        });
        [log, compare, logged, plain]
    });
    println!("dirty log of 32 KiB, one page dirty: {log:.0} ns ({:.2} exits)", log / exit);
    println!("comparing 32 KiB: {compare:.0} ns ({:.2} exits), ratio {:.3}", compare / exit, compare / log);
    println!("the guest's first write after that: with a log {logged:.0} ns, without {plain:.0} ns");
}

fn main() {
    if let Err(error) = Vm::new() {
        println!("skipped: {error}");
        return;
    }
    let kvm = Kvm::new().expect("KVM");
    if !kvm.check_extension(Cap::CoalescedMmio) || !kvm.check_extension(Cap::CoalescedPio) {
        println!("skipped: this kernel's KVM collects no writes");
        return;
    }
    let exit = collected("memory write", STORE, IoEventAddress::Mmio(WINDOW), 0x8000);
    collected("port write", OUT, IoEventAddress::Pio(PORT.into()), 2);
    changed(exit);
}
