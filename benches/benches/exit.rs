//! What the access path adds to an exit: a guest that does nothing but one kind of access, once through
//! the whole path of trapline to a device that does nothing, once in a loop that only calls `KVM_RUN`.
//!
//! Cases: `out` of a byte to a port; a store of a byte to memory. Before criterion's own figures, which
//! it takes one after the other, each pair is timed in alternation and one line gives the ratio
//! (target: at most 1.05).

// UNSAFETY: the bare loop gives its memory to KVM by itself.
#![expect(unsafe_code)]

use std::hint::black_box;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group};
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VcpuExit};
use trapline_io::completion::Completions;
use trapline_io::device::{Claim, Claims, Direct, DirectKind, Range};
use trapline_io::doorbell::Doorbell;
use trapline_io::endpoint::Endpoint;
use trapline_io::path::{Path, Topology};
use trapline_io::publish::Published;
use trapline_io::queue::CallerId;
use trapline_io::space::{ConfigLatch, EndpointId, SpaceBuilder};
use trapline_io::{Access, Device, Fault, Gpa, Port, Region, Span, Width};
use trapline_vcpu::slots::wanted;
use trapline_vcpu::{Exits, Slots, Vcpus, Vm, World};
use vm_memory::{Bytes, MmapRegion, VolatileMemory};

/// The guest asks here how many accesses to make.
const ASK: u16 = 0x600;
/// The port that the guest writes, in one case.
const NULL_PORT: u16 = 0x500;
/// Where the guest says that it is done.
const DONE: u16 = 0x601;
/// The memory that the guest writes, in the other.
const NULL_MEMORY: u64 = 0xb0000;
/// Where the code lies; the page after it is never used.
const CODE: u64 = 0xffff_f000;

/// The distance byte at `here` of a jump back to `target`.
fn back(here: usize, target: usize) -> u8 {
    u8::try_from(here + 1 - target).expect("a short jump").wrapping_neg()
}

/// in eax, ASK; N times the access; out DONE, al; and again. DS is 0xb000.
fn code(access: &[u8]) -> Vec<u8> {
    let mut page = vec![0xf4; 0x1000];
    let mut code = vec![0xb8, 0x00, 0xb0, 0x8e, 0xd8];
    let start = code.len();
    code.extend([0xba, 0x00, 0x06, 0x66, 0xed, 0x66, 0x89, 0xc1, 0xba, 0x00, 0x05]);
    let again = code.len();
    code.extend(access);
    code.extend([0x66, 0x49, 0x75]); // dec ecx; jnz again
    code.push(back(code.len(), again));
    code.extend([0xba, 0x01, 0x06, 0xee, 0xeb]);
    code.push(back(code.len(), start));
    page[..code.len()].copy_from_slice(&code);
    // The reset vector: back to the start of the page, CS stays.
    page[0xff0..0xff3].copy_from_slice(&[0xe9, 0x0d, 0xf0]);
    page
}

/// `out dx, al`, and `mov [0], al`.
const CASES: [(&str, &[u8]); 2] = [("port write", &[0xee]), ("memory write", &[0xa2, 0, 0])];

/// A guest that makes accesses when told to.
struct Guest {
    ask: Sender<u32>,
    done: Receiver<()>,
    end: Option<Box<dyn FnOnce()>>,
}

impl Guest {
    /// How long this many accesses take.
    fn time(&self, accesses: u64) -> Duration {
        let start = Instant::now();
        let mut left = accesses;
        while left > 0 {
            let part = u32::try_from(left).unwrap_or(u32::MAX);
            self.ask.send(part).expect("the guest runs");
            self.done.recv().expect("the guest runs");
            left -= u64::from(part);
        }
        start.elapsed()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // A guest that waits for a number gets one that ends the wait.
        let (ask, _) = channel();
        self.ask = ask;
        if let Some(end) = self.end.take() {
            end();
        }
    }
}

/// A device that swallows writes; a read of region 1 waits for the next number.
struct Null {
    asked: Receiver<u32>,
    done: Sender<()>,
}

impl Device for Null {
    fn read(&mut self, _: Region, _: u64, _: Width) -> Result<u64, Fault> {
        self.asked.recv().map(u64::from).map_err(|_| Fault::Failed)
    }

    fn write(&mut self, region: Region, _: u64, _: Width, value: u64) -> Result<(), Fault> {
        if region == Region(1) {
            let _ = self.done.send(());
        }
        black_box(value);
        Ok(())
    }

    fn reset(&mut self) {}

    fn claims(&self) -> Claims {
        Claims::default()
    }
}

struct Fixed;

impl Topology for Fixed {
    fn change(&self, _: &mut trapline_io::completion::Caller, _: EndpointId, _: Access) {}
}

struct Silent;

impl Exits for Silent {
    fn shutdown(&self, vcpu: usize) {
        panic!("vcpu{vcpu} shut down");
    }
    fn failed(&self, vcpu: usize, text: &str) {
        panic!("vcpu{vcpu}: {text}");
    }
}

fn memory_of(code: &[u8]) -> Arc<MmapRegion> {
    let memory = Arc::new(MmapRegion::new(0x1000).expect("a page"));
    memory.as_volatile_slice().write_slice(code, 0).expect("it fits");
    memory
}

/// The guest behind the whole path.
fn through_path(code: &[u8]) -> Guest {
    let (ask, asked) = channel();
    let (done_to, done) = channel();
    let vm = Arc::new(Vm::new().expect("KVM"));
    let world = Arc::new(World::new(1));
    let completions = Completions::new(1);
    let bell = Arc::new(Doorbell::new().expect("an eventfd"));
    let null = Box::new(Null { asked, done: done_to });
    let endpoints = Arc::new([Arc::new(Endpoint::new("null", null, completions.clone(), bell))]);
    let me = EndpointId(0);
    let mut builder = SpaceBuilder::default();
    let ports = |port, len| Range::Ports(Span::of_len(Port(port), len).expect("ports"));
    let memory = |gpa, len| Range::Memory(Span::of_len(Gpa(gpa), len).expect("memory"));
    builder.claim(me, &Claim::region(ports(NULL_PORT, 1), Region(0), 0));
    builder.claim(me, &Claim::region(ports(ASK, 4), Region(1), 0));
    builder.claim(me, &Claim::region(memory(NULL_MEMORY, 0x1000), Region(0), 0));
    let direct = Direct { memory: memory_of(code), offset: 0, kind: DirectKind::Rom };
    builder.claim(me, &Claim::region(memory(CODE, 0x1000), Region(0), 0).direct(direct));
    let space = builder.build();
    let mut slots = Slots::new(Arc::clone(&vm));
    slots.add_missing(&wanted(&space)).expect("a slot");
    let caller = completions.caller(CallerId(0)).expect("the first caller");
    let reader = Published::new(space).reader();
    let path = Path::new(reader, Arc::new(ConfigLatch::default()), endpoints, Arc::new(Fixed), caller);
    let vcpus = Vcpus::spawn(vm, Arc::clone(&world), vec![path], Arc::new(Silent)).expect("a vCPU");
    world.release();
    let end = Box::new(move || {
        world.stop();
        vcpus.join().expect("the thread ends");
        drop(slots);
    });
    Guest { ask, done, end: Some(end) }
}

/// The guest behind a loop that does only `KVM_RUN`.
fn bare(code: &[u8]) -> Guest {
    let (ask, asked) = channel::<u32>();
    let (done_to, done) = channel();
    let memory = memory_of(code);
    let kvm = Kvm::new().expect("KVM");
    let vm = kvm.create_vm().expect("a machine");
    vm.set_tss_address(0xfffb_d000).expect("a task state segment");
    vm.create_irq_chip().expect("controllers");
    let region = kvm_userspace_memory_region {
        guest_phys_addr: CODE,
        memory_size: 0x1000,
        userspace_addr: memory.as_ptr() as u64,
        ..Default::default()
    };
    // SAFETY: the mapping is moved into the thread, which drops it after the machine.
    unsafe { vm.set_user_memory_region(region) }.expect("a slot");
    let mut vcpu = vm.create_vcpu(0).expect("a vCPU");
    let cpuid = kvm.get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES).expect("features");
    vcpu.set_cpuid2(&cpuid).expect("features");
    let thread: JoinHandle<()> = std::thread::spawn(move || {
        let _memory = memory;
        let _vm = vm;
        loop {
            match vcpu.run().expect("KVM_RUN") {
                VcpuExit::IoOut(NULL_PORT, _) | VcpuExit::MmioWrite(..) => {}
                VcpuExit::IoOut(DONE, _) => {
                    let _ = done_to.send(());
                }
                VcpuExit::IoIn(ASK, data) => match asked.recv() {
                    Ok(count) => data.copy_from_slice(&count.to_le_bytes()),
                    Err(_) => return,
                },
                other => panic!("{other:?}"),
            }
        }
    });
    Guest { ask, done, end: Some(Box::new(move || thread.join().expect("the thread ends"))) }
}

/// Median nanoseconds of an access through the path and through the bare loop, timed in turns.
fn in_turns(code: &[u8]) -> (f64, f64) {
    const ROUNDS: usize = 201;
    const ACCESSES: u32 = 500;
    let guests = [through_path(code), bare(code)];
    let mut times = [const { Vec::new() }; 2];
    for _ in 0..ROUNDS {
        for (guest, times) in guests.iter().zip(&mut times) {
            times.push(guest.time(u64::from(ACCESSES)));
        }
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        times[ROUNDS / 2].as_secs_f64() * 1e9 / f64::from(ACCESSES)
    };
    let [path, bare] = &mut times;
    (median(path), median(bare))
}

fn exits(criterion: &mut Criterion) {
    for (name, access) in CASES {
        let code = code(access);
        let (path, loop_) = in_turns(&code);
        let ratio = path / loop_;
        println!("{name}: path {path:.0} ns, bare loop {loop_:.0} ns, ratio {ratio:.3} (target 1.05)");
        let mut group = criterion.benchmark_group(name);
        group.sample_size(20);
        for (way, start) in [("path", through_path as fn(&[u8]) -> Guest), ("bare", bare)] {
            let guest = Mutex::new(start(&code));
            group.bench_function(way, |bencher| {
                bencher.iter_custom(|accesses| guest.lock().expect("one thread").time(accesses));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, exits);

fn main() {
    if let Err(error) = Vm::new() {
        println!("skipped: {error}");
        return;
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
}
