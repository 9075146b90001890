//! Interrupts of assigned functions: messages and levels, by eventfds, through the controllers in the
//! kernel, in the ways that firmware (8259) and an operating system (I/O APIC) use them.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use trapline_vcpu::{Inputs, LevelLine, Message};

use super::code::Code;
use super::machine::{Machine, PATIENCE, START};

const HANDLER: u32 = 0x1800;
const SPURIOUS: u32 = 0x1900;
/// Handlers of messages, with what they tell.
const HANDLERS: [(u32, u8); 2] = [(0x1a00, 0x51), (0x1b00, 0x61)];
/// Their vectors.
const VECTORS: [u8; 2] = [0x51, 0x61];
/// The wire of PIRQE, and the interrupt that firmware routes it to.
const PIN: u32 = 20;
const ISA: u32 = 10;
const BOTH: Inputs = Inputs { io_apic: PIN, pic: Some(ISA) };
/// A dword that a guest counts up while no interrupt is served.
const COUNTED: u32 = 0x7000;
const APIC_ONLY: Inputs = Inputs { io_apic: PIN, pic: None };

/// Long enough for an interrupt that must not come.
const QUIET: Duration = Duration::from_millis(30);

fn raise(fd: BorrowedFd<'_>) {
    rustix::io::write(fd, &1_u64.to_ne_bytes()).unwrap();
}

/// What was written to an eventfd since the last time; waits for it.
fn taken(fd: BorrowedFd<'_>) -> u64 {
    let (mut count, since) = ([0; 8], Instant::now());
    while since.elapsed() < PATIENCE {
        if rustix::io::read(fd, &mut count).is_ok() {
            return u64::from_ne_bytes(count);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    0
}

#[track_caller]
fn quiet(machine: &Machine) {
    std::thread::sleep(QUIET);
    assert_eq!(machine.told_already(), None);
}

/// Counts for ever; in the place of [`Code::rest`].
fn count(code: Code) -> Code {
    let again = code.here();
    code.inc(COUNTED).jmp(again)
}

/// Waits until no interrupt of before is served any more, nor on its way to the guest's processor.
#[track_caller]
fn await_counting(machine: &Machine) {
    let (counted, since) = (machine.ram(COUNTED), Instant::now());
    while machine.ram(COUNTED).wrapping_sub(counted) < 100_000 {
        assert!(since.elapsed() < PATIENCE, "the interrupts do not end");
    }
}

/// Real-mode code: the 8259 pair with vectors from 8 and 70h on, everything masked but `ISA`, level
/// triggered; its handler tells 0x55 and acknowledges. A level that falls before it is acknowledged
/// comes as the last interrupt of either 8259, for which the handler of the second half will do. Between
/// interrupts it does `idle`.
fn with_8259(idle: fn(Code) -> Code) -> Option<Machine> {
    let main = Code::real(START)
        .mov_eax(HANDLER)
        .store_eax((0x70 + ISA - 8) * 4)
        .mov_eax(SPURIOUS)
        .store_eax((0x70 + 7) * 4)
        .store_eax((0x08 + 7) * 4);
    let main = main.mov_dx(0x4d1).mov_al(1 << (ISA - 8)).out_dx_al();
    let writes: [(u8, u8); 10] = [
        (0x20, 0x11),
        (0x21, 0x08),
        (0x21, 0x04),
        (0x21, 0x01),
        (0x21, !(1 << 2)),
        (0xa0, 0x11),
        (0xa1, 0x70),
        (0xa1, 0x02),
        (0xa1, 0x01),
        (0xa1, !(1 << (ISA - 8))),
    ];
    let main = writes.into_iter().fold(main, |code, (port, value)| code.mov_al(value).out_al(port));
    let main = idle(main.tell(1).raw(&[0xfb])); // sti
    let handler = Code::real(HANDLER).tell(0x55).mov_al(0x20).out_al(0xa0).out_al(0x20).raw(&[0xcf]); // iret
    let spurious = Code::real(SPURIOUS).mov_al(0x20).out_al(0x20).raw(&[0xcf]);
    let machine = Machine::started(1, vec![main, handler, spurious])?;
    assert_eq!(machine.told(), 1);
    Some(machine)
}

/// `mov [address], value` with a 32-bit address: for real mode with long segments.
fn set(code: Code, address: u32, value: u32) -> Code {
    code.mov_eax(value).raw(&[0x67, 0x66, 0xa3]).raw(&address.to_le_bytes())
}

/// Real-mode code with long segments: the local APIC on, the 8259 pair off, pin [`PIN`] of the
/// I/O APIC level triggered to the first vector. (Interrupts in 32-bit mode are not what every host's KVM can do.)
fn with_apics(idle: fn(Code) -> Code) -> Option<Machine> {
    let main = HANDLERS.into_iter().zip(VECTORS).fold(Code::real(START), |code, ((handler, _), vector)| {
        code.mov_eax(handler).store_eax(4 * u32::from(vector))
    });
    let main = main
        .raw(&[0xfa, 0x0f, 0x01, 0x16, 0x00, 0x0f]) // cli; lgdt [0xf00]
        .raw(&[0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0]) // cr0 |= PE
        .mov_ax(0x10)
        .mov_ds_ax()
        .raw(&[0x0f, 0x20, 0xc0, 0x24, 0xfe, 0x0f, 0x22, 0xc0]) // cr0 &= !PE
        .mov_ax(0)
        .mov_ds_ax();
    let writes = [
        (0xfee0_00f0, 0x1ff),
        (0xfec0_0000, 0x10 + 2 * PIN),
        (0xfec0_0010, 0x8000 | u32::from(VECTORS[0])),
        (0xfec0_0000, 0x11 + 2 * PIN),
        (0xfec0_0010, 0),
    ];
    let main = writes.into_iter().fold(main, |code, (address, value)| set(code, address, value));
    // The 8259 pair is masked.
    let main = main.mov_al(0xff).out_al(0x21).out_al(0xa1);
    let handler = |(at, tells)| set(Code::real(at).tell(tells), 0xfee0_00b0, 0).raw(&[0xcf]); // iret
    let code = [idle(main.tell(1).raw(&[0xfb]))].into_iter().chain(HANDLERS.map(handler)).collect();
    let machine = Machine::started(1, code)?;
    assert_eq!(machine.told(), 1);
    Some(machine)
}

fn line(machine: &Machine, inputs: Inputs) -> LevelLine {
    let line = machine.parts.vm.line().unwrap();
    line.mover().lead(inputs).unwrap();
    assert_eq!(taken(line.resample()), 1, "its device is asked once");
    line
}

fn message(vector: u8) -> Option<Message> {
    Some(Message { address: 0xfee0_0000, data: vector.into() })
}

#[test]
fn a_vector_delivers_its_message_and_keeps_what_comes_without_one() {
    let Some(machine) = with_apics(Code::rest) else { return };
    let mut vectors = machine.parts.vm.vectors(65).unwrap();
    for vector in &mut vectors {
        vector.route(message(VECTORS[1])).unwrap();
    }
    let vector = &mut vectors[64];
    for which in [0, 1, 0] {
        vector.route(message(VECTORS[which])).unwrap();
        raise(vector.fd());
        assert_eq!(machine.told(), HANDLERS[which].1);
    }
    vector.route(None).unwrap();
    assert!(!vector.pending());
    raise(vector.fd());
    raise(vector.fd());
    quiet(&machine);
    assert!(vector.pending());
    vector.route(message(VECTORS[1])).unwrap();
    assert_eq!(machine.told(), HANDLERS[1].1);
    quiet(&machine);
    assert!(!vector.pending());
    // Another's message is its own.
    raise(vectors[0].fd());
    assert_eq!(machine.told(), HANDLERS[1].1);
    drop(vectors);
    quiet(&machine);
    machine.stop();
}

#[test]
fn a_message_to_memory_is_no_interrupt() {
    let Some(machine) = with_apics(Code::rest) else { return };
    let mut vectors = machine.parts.vm.vectors(1).unwrap();
    vectors[0].route(message(VECTORS[0])).unwrap();
    let refused = vectors[0].route(Some(Message { address: 0x1000, data: 0x51 })).unwrap_err();
    assert_eq!(refused.to_string(), "a message to 0x1000 is no interrupt");
    raise(vectors[0].fd());
    quiet(&machine);
    assert!(vectors[0].pending());
    machine.stop();
}

#[test]
fn there_is_an_end_to_vectors() {
    let Some(vm) = super::machine::kvm() else { return };
    assert!(vm.vectors(5000).is_err());
    let vectors = vm.vectors(64).unwrap();
    drop(vectors);
    for _ in 0..100 {
        drop(vm.vectors(64).unwrap());
    }
}

#[test]
fn a_level_comes_again_until_the_device_is_served_through_the_8259() {
    let Some(machine) = with_8259(Code::rest) else { return };
    level_comes_again(&machine, BOTH, 0x55);
    machine.stop();
}

#[test]
fn a_level_comes_again_until_the_device_is_served_through_the_io_apic() {
    let Some(machine) = with_apics(Code::rest) else { return };
    level_comes_again(&machine, BOTH, HANDLERS[0].1);
    level_comes_again(&machine, APIC_ONLY, HANDLERS[0].1);
    machine.stop();
}

/// The device asserts, is asked after the acknowledgement, and asserts again as long as it likes.
fn level_comes_again(machine: &Machine, inputs: Inputs, tells: u8) {
    let line = line(machine, inputs);
    for _ in 0..5 {
        raise(line.trigger());
        assert_eq!(machine.told(), tells);
        assert_eq!(taken(line.resample()), 1, "the acknowledgement");
    }
    quiet(machine);
}

/// An emulated device pulls the same wire by the chipset's way, which sets both inputs.
fn pull(machine: &Machine, level: bool) {
    machine.parts.vm.set_gsi(PIN, level);
    machine.parts.vm.set_gsi(ISA, level);
}

#[test]
fn a_wire_is_shared_with_an_emulated_device() {
    for (start, tells) in [(with_8259 as fn(_) -> _, 0x55), (with_apics, HANDLERS[0].1)] {
        let Some(machine) = start(count) else { return };
        let line = line(&machine, BOTH);
        pull(&machine, true);
        assert_eq!(machine.told(), tells);
        raise(line.trigger());
        assert_eq!(machine.told(), tells);
        assert!(taken(line.resample()) > 0, "the assigned device is asked");
        // The emulated one still pulls.
        for _ in 0..3 {
            assert_eq!(machine.told(), tells);
        }
        pull(&machine, false);
        await_counting(&machine);
        while machine.told_already().is_some() {}
        raise(line.trigger());
        assert_eq!(machine.told(), tells);
        quiet(&machine);
        machine.stop();
    }
}

#[test]
fn wires_that_meet_at_the_8259_are_all_acknowledged() {
    let Some(machine) = with_8259(Code::rest) else { return };
    let lines = [PIN, PIN + 1, PIN].map(|io_apic| line(&machine, Inputs { io_apic, pic: Some(ISA) }));
    // Whoever moved was asked once more.
    for line in &lines {
        while rustix::io::read(line.resample(), &mut [0; 8]).is_ok() {}
    }
    for _ in 0..3 {
        for line in &lines {
            raise(line.trigger());
            assert_eq!(machine.told(), 0x55);
            for line in &lines {
                assert_eq!(taken(line.resample()), 1);
            }
            quiet(&machine);
        }
    }
    machine.stop();
}

#[test]
fn a_line_that_moves_leaves_no_level_behind() {
    let Some(machine) = with_8259(Code::rest) else { return };
    // Nobody acknowledges on the I/O APIC's side: the pin is masked.
    let line = line(&machine, APIC_ONLY);
    raise(line.trigger());
    quiet(&machine);
    line.mover().lead(BOTH).unwrap();
    assert_eq!(taken(line.resample()), 1, "its device is asked again");
    quiet(&machine);
    raise(line.trigger());
    assert_eq!(machine.told(), 0x55);
    assert_eq!(taken(line.resample()), 1);
    line.mover().lead(BOTH).unwrap();
    assert!(rustix::io::read(line.resample(), &mut [0; 8]).is_err(), "no news, no question");
    // Away while asserted: the 8259 sees it fall.
    let mover = line.mover();
    drop(line);
    mover.lead(APIC_ONLY).unwrap();
    quiet(&machine);
    machine.stop();
}

#[test]
fn lines_on_one_wire_move_one_after_the_other() {
    let Some(machine) = with_8259(Code::rest) else { return };
    let lines = [(); 2].map(|()| line(&machine, APIC_ONLY));
    let lead = |inputs| {
        for line in &lines {
            line.mover().lead(inputs).unwrap();
        }
        for line in &lines {
            while rustix::io::read(line.resample(), &mut [0; 8]).is_ok() {}
        }
    };
    for _ in 0..3 {
        lead(BOTH);
        for line in &lines {
            raise(line.trigger());
            assert_eq!(machine.told(), 0x55);
            for line in &lines {
                assert_eq!(taken(line.resample()), 1, "all are asked");
            }
        }
        lead(APIC_ONLY);
        quiet(&machine);
    }
    machine.stop();
}
