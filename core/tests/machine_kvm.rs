//! A guest of a few instructions and a device that notes what reaches it, through the whole machine.
//! Needs /dev/kvm.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use trapline::events::Events;
use trapline::machine::{Ending, Machine};
use trapline::parts::Parts;
use trapline_devices::host::{Event, Events as _};
use trapline_devices::pci::Devfn;
use trapline_devices::q35::{HostBridge, Ram};
use trapline_io::device::{Claim, Claims, Range, Retire};
use trapline_io::endpoint::Service;
use trapline_io::publish::Published;
use trapline_io::{Device, Fault, Port, Region, Span, Width};
use trapline_vcpu::{Message, MessageVector, Vm};
use vm_memory::{Bytes, MmapRegion, VolatileMemory};

const WRITES: u64 = 2000;

/// Ports 0x5000-0x5003: what is written is noted, and answered later than asked; a read gives how
/// many writes came before it. Port 0x5004 is strict: what is written there is noted apart. 0x5005
/// powers off, 0x5006 resets.
struct Recorder {
    log: Arc<Mutex<Vec<u64>>>,
    seen: Arc<Mutex<Vec<u64>>>,
    events: Events,
}

impl Device for Recorder {
    fn read(&mut self, _: Region, _: u64, _: Width) -> Result<u64, Fault> {
        Ok(self.log.lock().len() as u64)
    }

    fn write(&mut self, _: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        match (offset, width) {
            (4, _) => self.seen.lock().push(value),
            (5, _) => self.events.report(Event::PowerOff),
            (6, _) => self.events.report(Event::Reset),
            (0, Width::B2) => self.log.lock().push(value),
            _ => return Err(Fault::BadWidth),
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.log.lock().clear();
    }

    fn claims(&self) -> Claims {
        let ports = |first, last| Range::Ports(Span::new(Port(first), Port(last)).unwrap());
        let posted = Claim::region(ports(0x5000, 0x5003), Region(0), 0).retire(Retire::Posted);
        Claims { ranges: vec![posted, Claim::region(ports(0x5004, 0x5006), Region(0), 4)], bridge: None }
    }
}

/// A firmware image of 64 KiB with this code at f000:0000, where the reset vector leads.
fn firmware(code: &[u8]) -> Arc<MmapRegion> {
    let image = MmapRegion::new(0x1_0000).unwrap();
    let slice = image.as_volatile_slice();
    slice.write_slice(code, 0).unwrap();
    slice.write_slice(&[0xea, 0x00, 0x00, 0x00, 0xf0], 0xfff0).unwrap();
    Arc::new(image)
}

struct Run {
    ending: Ending,
    log: Vec<u64>,
    seen: Vec<u64>,
}

fn run(service: Service, cpus: u16, code: &[u8]) -> Option<Run> {
    run_beside(service, cpus, code, |_| Vec::new())
}

/// As [`run`], in a machine that has `others` too.
fn run_beside(
    service: Service,
    cpus: u16,
    code: &[u8],
    others: impl FnOnce(&Arc<Vm>) -> Vec<Parts>,
) -> Option<Run> {
    let vm = match Vm::new() {
        Ok(vm) => Arc::new(vm),
        Err(error) => {
            println!("skipped: {error}");
            return None;
        }
    };
    let events = Events::default();
    let (log, seen) = (Arc::default(), Arc::default());
    let recorder = Recorder { log: Arc::clone(&log), seen: Arc::clone(&seen), events: events.clone() };
    let bridge = HostBridge::new(Ram::new(1 << 20).unwrap(), firmware(code)).unwrap();
    let mut parts = vec![
        Parts::function("host bridge", bridge, None, Devfn::default(), HostBridge::TOPOLOGY),
        Parts::platform("recorder", recorder),
    ];
    parts.extend(others(&vm));
    let mut machine = Machine::new(vm, cpus, service, Published::default(), parts, events).unwrap();
    let ending = machine.run(Instant::now().checked_add(Duration::from_secs(60))).unwrap();
    machine.stop();
    let (log, seen) = (log.lock().clone(), seen.lock().clone());
    Some(Run { ending, log, seen })
}

/// Writes 0 to 1999 to the posted port, then tells the strict port how many the device has seen.
const COUNT: &[u8] = &[
    0x31, 0xc0, // xor ax, ax
    0xba, 0x00, 0x50, // mov dx, 0x5000
    0xef, // again: out dx, ax
    0x40, // inc ax
    0x3d, 0xd0, 0x07, // cmp ax, 2000
    0x75, 0xf9, // jne again
    0xed, // in ax, dx
    0xba, 0x04, 0x50, // mov dx, 0x5004
    0xef, // out dx, ax
    0x42, // inc dx
    0xee, // out dx, al: power off
    0xf4, 0xeb, 0xfd, // hlt; jmp back
];

fn posted_writes_keep_their_order(service: Service) {
    let Some(run) = run(service, 1, COUNT) else { return };
    assert_eq!(run.ending, Ending::PowerOff);
    assert_eq!(run.log, (0..WRITES).collect::<Vec<_>>());
    assert_eq!(run.seen, [WRITES], "the read has overtaken a posted write");
}

#[test]
fn inline_posted_writes_keep_their_order() {
    posted_writes_keep_their_order(Service::Inline);
}

#[test]
fn uring_posted_writes_keep_their_order() {
    posted_writes_keep_their_order(Service::Uring);
}

#[test]
fn adaptive_posted_writes_keep_their_order() {
    posted_writes_keep_their_order(Service::Adaptive);
}

/// The first time a cell of RAM is 0: it is set to 1, and a reset asked for, behind which lies an
/// instruction that must not run. The second time, power off.
const RESET_ONCE: &[u8] = &[
    0x31, 0xc0, 0x8e, 0xd8, // xor ax, ax; mov ds, ax
    0xba, 0x04, 0x50, // mov dx, 0x5004
    0xa1, 0x00, 0x10, // mov ax, [0x1000]
    0xef, // out dx, ax
    0x85, 0xc0, // test ax, ax
    0x75, 0x0e, // jnz off
    0xc7, 0x06, 0x00, 0x10, 0x01, 0x00, // mov word [0x1000], 1
    0x83, 0xc2, 0x02, // add dx, 2
    0xee, // out dx, al: reset
    0x83, 0xea, 0x02, // sub dx, 2
    0xef, // out dx, ax: never
    0x42, // off: inc dx
    0xee, // out dx, al: power off
    0xf4, 0xeb, 0xfd, // hlt; jmp back
];

#[test]
fn nothing_runs_between_a_reset_asked_for_and_carried_out() {
    for cpus in [1, 4] {
        let Some(run) = run(Service::Adaptive, cpus, RESET_ONCE) else { return };
        assert_eq!(run.ending, Ending::PowerOff);
        assert_eq!(run.seen, [0, 1], "with {cpus} vCPUs");
    }
}

/// A device that signals until it is told to be quiet, then for the last time: a non-maskable interrupt, which no
/// state of a local APIC holds back.
struct Signals {
    name: &'static str,
    calls: Arc<Mutex<Vec<String>>>,
    vector: MessageVector,
}

impl Device for Signals {
    fn read(&mut self, _: Region, _: u64, _: Width) -> Result<u64, Fault> {
        Err(Fault::NoRegister)
    }

    fn write(&mut self, _: Region, _: u64, _: Width, _: u64) -> Result<(), Fault> {
        Err(Fault::NoRegister)
    }

    fn quiet(&mut self) {
        self.calls.lock().push(format!("quiet {}", self.name));
        rustix::io::write(self.vector.fd(), &1_u64.to_ne_bytes()).unwrap();
    }

    fn reset(&mut self) {
        self.calls.lock().push(format!("reset {}", self.name));
    }

    fn claims(&self) -> Claims {
        Claims::default()
    }
}

/// Asks for one reset, as [`RESET_ONCE`] does, and tells of each non-maskable interrupt.
const RESET_AND_LISTEN: &[u8] = &[
    0x31, 0xc0, 0x8e, 0xd8, // xor ax, ax; mov ds, ax
    0x83, 0x3e, 0x00, 0x10, 0x00, // cmp word [0x1000], 0
    0x75, 0x16, // jne off
    0xc7, 0x06, 0x08, 0x00, 0x28, 0x00, // mov word [8], interrupt
    0xc7, 0x06, 0x0a, 0x00, 0x00, 0xf0, // mov word [10], 0xf000
    0xc7, 0x06, 0x00, 0x10, 0x01, 0x00, // mov word [0x1000], 1
    0xba, 0x06, 0x50, 0xee, // mov dx, 0x5006; out dx, al: reset
    0xba, 0x05, 0x50, 0xee, // off: mov dx, 0x5005; out dx, al: power off
    0xf4, 0xeb, 0xfd, // hlt; jmp back
    0x60, // interrupt: pusha
    0xba, 0x04, 0x50, // mov dx, 0x5004
    0xb8, 0xad, 0x0b, 0xef, // mov ax, 0xbad; out dx, ax
    0x61, 0xcf, // popa; iret
];

#[test]
fn what_devices_signal_until_a_reset_does_not_reach_the_next_guest() {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let others = |vm: &Arc<Vm>| {
        let part = |name| {
            let mut vector = vm.vectors(1).unwrap().remove(0);
            vector.route(Some(Message { address: 0xfee0_0000, data: 0x400 })).unwrap();
            Parts::platform(name, Signals { name, calls: Arc::clone(&calls), vector })
        };
        vec![part("A"), part("B")]
    };
    let Some(run) = run_beside(Service::Adaptive, 1, RESET_AND_LISTEN, others) else { return };
    assert_eq!(run.ending, Ending::PowerOff);
    assert_eq!(*calls.lock(), ["quiet A", "quiet B", "reset A", "reset B"]);
    assert_eq!(run.seen, [0; 0], "an interrupt of the old guest's devices");
}

/// Makes c0000 RAM through PAM, writes to it, makes it read-only, writes again, and tells what it
/// reads; then what the closed window reads.
const PAM: &[u8] = &[
    0x66, 0xb8, 0x90, 0x00, 0x00, 0x80, // mov eax, 0x80000090
    0xba, 0xf8, 0x0c, 0x66, 0xef, // mov dx, 0xcf8; out dx, eax
    0xb8, 0x00, 0xc0, 0x8e, 0xd8, // mov ax, 0xc000; mov ds, ax
    0xba, 0xfd, 0x0c, // mov dx, 0xcfd: PAM1
    0xb0, 0x03, 0xee, // mov al, 3; out dx, al: c0000 is RAM
    0xc7, 0x06, 0x00, 0x00, 0x34, 0x12, // mov word [0], 0x1234
    0xb0, 0x01, 0xee, // mov al, 1; out dx, al: read-only
    0xc7, 0x06, 0x00, 0x00, 0x99, 0x99, // mov word [0], 0x9999
    0xa1, 0x00, 0x00, // mov ax, [0]
    0xbb, 0x04, 0x50, 0x87, 0xd3, // mov bx, 0x5004; xchg dx, bx
    0xef, // out dx, ax
    0x87, 0xd3, // xchg dx, bx
    0xb0, 0x00, 0xee, // mov al, 0; out dx, al: PCI again
    0xa1, 0x00, 0x00, // mov ax, [0]
    0x87, 0xd3, 0xef, // xchg dx, bx; out dx, ax
    0x42, 0xee, // inc dx; out dx, al: power off
    0xf4, 0xeb, 0xfd, // hlt; jmp back
];

#[test]
fn pam_changes_what_the_guest_sees_at_once() {
    for cpus in [1, 4] {
        let Some(run) = run(Service::Adaptive, cpus, PAM) else { return };
        assert_eq!(run.seen, [0x1234, 0], "with {cpus} vCPUs");
    }
}

/// A device that tells on which thread it goes.
struct Goes(std::sync::mpsc::Sender<Option<String>>);

impl Device for Goes {
    fn read(&mut self, _: Region, _: u64, _: Width) -> Result<u64, Fault> {
        Err(Fault::NoRegister)
    }

    fn write(&mut self, _: Region, _: u64, _: Width, _: u64) -> Result<(), Fault> {
        Err(Fault::NoRegister)
    }

    fn reset(&mut self) {}

    fn claims(&self) -> Claims {
        Claims::default()
    }
}

impl Drop for Goes {
    fn drop(&mut self) {
        let _ = self.0.send(std::thread::current().name().map(str::to_owned));
    }
}

/// A machine that comes to no run, or to no end, is dropped by who made it: its threads may not be able to close what a
/// device has open.
#[test]
fn devices_go_on_the_thread_that_drops_the_machine() {
    let Ok(vm) = Vm::new() else { return println!("skipped: no /dev/kvm") };
    let (tell, told) = std::sync::mpsc::channel();
    let parts = vec![Parts::platform("goes", Goes(tell))];
    let machine =
        Machine::new(Arc::new(vm), 1, Service::Adaptive, Published::default(), parts, Events::default());
    drop(machine.unwrap());
    assert_eq!(told.recv().unwrap().as_deref(), std::thread::current().name());
    assert!(told.recv().is_err());
}
