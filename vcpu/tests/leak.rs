//! Starting and stopping leaves nothing behind. Alone in its process, since it counts what the process
//! has.

#[expect(dead_code, reason = "shared with the tests of the guests' behaviour")]
#[path = "kvm/code.rs"]
mod code;
#[expect(dead_code, reason = "shared with the tests of the guests' behaviour")]
#[path = "kvm/machine.rs"]
mod machine;

use code::Code;
use machine::{Machine, PORTS, START};

fn entries(folder: &str) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

/// Lines of the memory map: mappings that stay would add up.
fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().count()
}

#[test]
fn fifty_machines_leave_nothing_behind() {
    let mut before = None;
    for round in 0..52 {
        let code = Code::real(START).tell(1).mov_dx(PORTS);
        let again = code.here();
        let Some(machine) = Machine::started(2, vec![code.out_dx_al().jmp(again)]) else { return };
        assert_eq!(machine.told(), 1);
        if round % 3 == 0 {
            machine.reset();
        }
        if round % 2 == 0 {
            machine.stop()
        } else {
            drop(machine)
        }
        // The first two rounds fill what the process keeps: caches of stacks and arenas.
        if round == 1 {
            before = Some((entries("/proc/self/fd"), entries("/proc/self/task"), mappings()));
        }
    }
    let (fds, tasks, maps) = before.unwrap();
    assert_eq!((entries("/proc/self/fd"), entries("/proc/self/task")), (fds, tasks));
    assert!(mappings() <= maps + 8, "{} mappings became {}", maps, mappings());
}
