//! Records made by hand: the legal ones pass, and each broken one is found out for what it is.

use super::*;

/// A program under construction: each operation comes after all earlier ones of its vCPU.
#[derive(Default)]
struct Program {
    ops: Vec<Op>,
    after: [[usize; CPUS]; CPUS],
}

impl Program {
    fn add(&mut self, cpu: usize, way: Way, access: Access, made: (usize, usize)) -> usize {
        let shows = way == Way::Strict && access.offset == START;
        let after = self.after[cpu];
        self.ops.push(Op { cpu, after, access, way, made, shows, plain: true, life: 0 });
        self.after[cpu][cpu] += 1;
        self.ops.len() - 1
    }

    fn late(&mut self, cpu: usize, access: Access) -> usize {
        self.add(cpu, Way::Late, access, (0, 0))
    }

    fn ram(&mut self, cpu: usize, access: Access) -> usize {
        self.add(cpu, Way::Ram, access, (0, 0))
    }

    /// `learner` learns of all that `teller` did.
    fn tell(&mut self, teller: usize, learner: usize) {
        for cpu in 0..CPUS {
            self.after[learner][cpu] = self.after[learner][cpu].max(self.after[teller][cpu]);
        }
    }

    fn check(&self, record: &[Seen]) -> Result<(), Illegal> {
        check(&self.ops, record)
    }
}

const START: u64 = 0x3d4;

fn port(value: u64) -> Access {
    Access::write(Region::VGA, 0x3c8, Width::B1, value)
}

fn start(value: u64) -> Access {
    Access::write(Region::VGA, START, Width::B2, value << 8 | 0x0c)
}

fn cell(place: u64, value: u64) -> Access {
    Access::write(Region::VGA, 0xb_8000 + 2 * place, Width::B2, value << 8 | value)
}

fn run(place: u64, bytes: &[u8]) -> Seen {
    let (region, bytes) = (Region::VGA, bytes.to_vec());
    Seen::Run { region, offset: 0xb_8000 + 2 * place, bytes, independent: true }
}

fn seen(accesses: &[Access]) -> Vec<Seen> {
    accesses.iter().copied().map(Seen::Access).collect()
}

#[test]
fn program_order_is_kept() {
    let mut program = Program::default();
    program.late(0, port(1));
    program.late(0, port(2));
    assert_eq!(program.check(&seen(&[port(1), port(2)])), Ok(()));
    assert_eq!(program.check(&seen(&[port(2), port(1)])), Err(Illegal::Reordered(0, 1)));
    assert_eq!(program.check(&seen(&[port(2)])), Err(Illegal::Lost(0)));
    assert_eq!(program.check(&seen(&[port(1), port(2), port(2)])), Err(Illegal::Unknown(2)));
}

#[test]
fn two_vcpus_are_ordered_by_what_they_know() {
    let mut program = Program::default();
    program.late(0, port(1));
    program.late(1, port(2));
    assert_eq!(program.check(&seen(&[port(2), port(1)])), Ok(()), "neither knew");
    let mut program = Program::default();
    program.late(0, port(1));
    program.tell(0, 1);
    program.late(1, port(2));
    assert_eq!(program.check(&seen(&[port(1), port(2)])), Ok(()));
    assert_eq!(program.check(&seen(&[port(2), port(1)])), Err(Illegal::Reordered(0, 1)));
}

#[test]
fn a_port_keeps_its_width_and_is_joined_to_nothing() {
    let mut program = Program::default();
    program.late(0, port(1));
    program.late(0, Access::write(Region::VGA, 0x3c9, Width::B1, 2));
    let joined = Access::write(Region::VGA, 0x3c8, Width::B2, 0x0201);
    assert_eq!(program.check(&seen(&[joined])), Err(Illegal::Unknown(0)));
    let run = Seen::Run { region: Region::VGA, offset: 0x3c8, bytes: vec![1, 2], independent: true };
    assert_eq!(program.check(&[run]), Err(Illegal::Merged(0)));
}

#[test]
fn memory_may_be_joined_where_lanes_are_independent() {
    let mut program = Program::default();
    program.late(0, cell(0, 1));
    program.late(0, cell(1, 2));
    program.late(0, port(3));
    let port = Seen::Access(port(3));
    assert_eq!(program.check(&[run(0, &[1, 1, 2, 2]), port.clone()]), Ok(()));
    assert_eq!(program.check(&[port.clone(), run(0, &[1, 1, 2, 2])]), Err(Illegal::Reordered(0, 2)));
    assert_eq!(
        program.check(&[run(0, &[1, 1]), port.clone(), run(1, &[2, 2])]),
        Err(Illegal::Reordered(1, 2))
    );
    assert_eq!(program.check(&[run(0, &[1, 1, 2]), port.clone()]), Err(Illegal::Lost(1)));
    let planar = Seen::Run { region: Region::VGA, offset: 0xb_8000, bytes: vec![1, 1], independent: false };
    assert_eq!(program.check(&[planar, port]), Err(Illegal::Merged(0)));
}

#[test]
fn collected_memory_is_not_joined_backwards() {
    let mut program = Program::default();
    program.late(0, cell(1, 1));
    program.late(0, cell(0, 2));
    assert_eq!(program.check(&seen(&[cell(1, 1), cell(0, 2)])), Ok(()));
    assert_eq!(program.check(&[run(0, &[2, 2, 1, 1])]), Err(Illegal::Reordered(0, 1)));
}

#[test]
fn a_read_is_answered_while_it_is_awaited_and_after_what_came_before() {
    let read = Access::read(Region::VGA, 0x3da, Width::B1);
    let mut program = Program::default();
    program.late(0, port(1));
    program.add(0, Way::Strict, read, (0, 2));
    assert_eq!(program.check(&seen(&[port(1), read])), Ok(()));
    assert_eq!(program.check(&seen(&[read, port(1)])), Err(Illegal::Reordered(0, 1)));
    let mut program = Program::default();
    program.add(0, Way::Strict, read, (0, 0));
    assert_eq!(program.check(&seen(&[read])), Err(Illegal::NotAwaited(0)));
}

#[test]
fn text_may_be_late_but_not_behind_a_start_address() {
    let mut program = Program::default();
    program.ram(0, cell(3, 1));
    program.late(0, port(2));
    program.add(0, Way::Strict, start(3), (0, 9));
    let (port, start) = (Seen::Access(port(2)), Seen::Access(start(3)));
    let text = run(3, &[1, 1]);
    assert_eq!(program.check(&[port.clone(), text.clone(), start.clone()]), Ok(()), "behind a port");
    assert_eq!(program.check(&[text.clone(), port.clone(), start.clone()]), Ok(()));
    assert_eq!(program.check(&[port.clone(), start.clone(), text]), Err(Illegal::Stale(0, 2)));
    assert_eq!(program.check(&[port, start]), Err(Illegal::Stale(0, 2)), "or never");
}

#[test]
fn overwritten_text_need_not_be_seen_and_never_comes_back() {
    let mut program = Program::default();
    program.ram(0, cell(3, 1));
    program.ram(0, cell(3, 2));
    program.add(0, Way::Strict, start(9), (0, 9));
    let start = Seen::Access(start(9));
    assert_eq!(program.check(&[run(3, &[2, 2]), start.clone()]), Ok(()));
    assert_eq!(program.check(&[run(3, &[1, 1]), run(3, &[2, 2]), start.clone()]), Ok(()));
    assert_eq!(
        program.check(&[run(3, &[2, 2]), run(3, &[1, 1]), start.clone()]),
        Err(Illegal::Reordered(0, 1))
    );
    assert_eq!(program.check(&[run(3, &[1, 1]), start.clone()]), Err(Illegal::Stale(1, 2)));
    assert_eq!(program.check(&[run(3, &[7, 7]), start]), Err(Illegal::Unknown(0)));
}

#[test]
fn unchanged_bytes_between_may_be_repeated() {
    let mut program = Program::default();
    program.ram(0, cell(0, 1));
    program.ram(0, cell(2, 1));
    program.add(0, Way::Strict, start(9), (0, 9));
    let start = Seen::Access(start(9));
    assert_eq!(program.check(&[run(0, &[1, 1, 0, 0, 1, 1]), start.clone()]), Ok(()));
    assert_eq!(program.check(&[run(0, &[1, 1, 5, 0, 1, 1]), start]), Err(Illegal::Unknown(0)));
}

#[test]
fn text_of_another_vcpu_counts_once_it_is_known() {
    let mut unknown = Program::default();
    unknown.ram(0, cell(3, 1));
    unknown.add(1, Way::Strict, start(3), (0, 9));
    let late = [Seen::Access(start(3)), run(3, &[1, 1])];
    assert_eq!(unknown.check(&late), Ok(()));
    let mut known = Program::default();
    known.ram(0, cell(3, 1));
    known.tell(0, 1);
    known.add(1, Way::Strict, start(3), (0, 9));
    assert_eq!(known.check(&late), Err(Illegal::Stale(0, 1)));
}

#[test]
fn text_does_not_pass_what_is_done_but_may_pass_what_is_under_way() {
    let mut program = Program::default();
    program.late(0, port(1));
    program.ram(0, cell(3, 2));
    assert_eq!(program.check(&[run(3, &[2, 2]), Seen::Access(port(1))]), Ok(()));
    let mut program = Program::default();
    program.add(0, Way::Strict, port(1), (0, 9));
    program.ram(0, cell(3, 2));
    let early = [run(3, &[2, 2]), Seen::Access(port(1))];
    assert_eq!(program.check(&early), Err(Illegal::Reordered(0, 1)));
}

#[test]
fn a_mark_stands_for_what_the_device_sees_by_itself() {
    let mut program = Program::default();
    program.late(0, port(1));
    program.add(0, Way::Mark, Access::read(Region::bar(0), 0, Width::B8), (0, 0));
    assert_eq!(program.check(&[Seen::Access(port(1)), Seen::Mark(1)]), Ok(()));
    assert_eq!(program.check(&[Seen::Mark(1), Seen::Access(port(1))]), Err(Illegal::Reordered(0, 1)));
}

#[test]
fn a_reset_forgets_and_lets_nothing_through_later() {
    let mut program = Program::default();
    program.late(0, port(1));
    assert_eq!(program.check(&[Seen::Reset]), Ok(()));
    assert_eq!(program.check(&[Seen::Reset, Seen::Access(port(1))]), Err(Illegal::Unknown(1)));
}
