use super::*;

fn port() -> RootPort {
    RootPort::new(Link { speed: 4, lanes: 16 })
}

fn set(port: &mut RootPort, offset: u64, width: Width, value: u64) {
    port.write(Region::CONFIG, offset, width, value).unwrap();
}

fn get(port: &mut RootPort, offset: u64, width: Width) -> u64 {
    port.read(Region::CONFIG, offset, width).unwrap()
}

fn memory(first: u64, last: u64) -> Option<Span<Gpa>> {
    Span::new(Gpa(first), Gpa(last))
}

/// The registers as firmware leaves them above an adapter, decode still off.
fn program(port: &mut RootPort) {
    set(port, 0x18, Width::B4, 0x0003_0100);
    set(port, 0x1c, Width::B2, 0xd0c0);
    set(port, 0x20, Width::B4, 0xfe10_fe00);
    set(port, 0x24, Width::B4, 0xfff0_0000);
    set(port, 0x28, Width::B4, 0x3fe0);
    set(port, 0x2c, Width::B4, 0x3fff);
    set(port, 0x3e, Width::B2, 0x08);
}

#[test]
fn after_power_on_nothing_goes_downstream() {
    let mut port = port();
    set(&mut port, 0x04, Width::B2, 0x103);
    assert_eq!(port.forwards(), Forwards::default());
    assert!(port.claims().ranges.is_empty());
    assert_eq!(get(&mut port, 0x00, Width::B4), 0x000c_1b36);
    assert_eq!(get(&mut port, 0x0e, Width::B1), 1);
    assert_eq!(get(&mut port, 0x3d, Width::B1), 1);
    assert_eq!(get(&mut port, 0x24, Width::B4) & 0x000f_000f, 0x0001_0001, "64 bits");
}

#[test]
fn command_gates_the_windows() {
    let mut port = port();
    program(&mut port);
    for command in 0..4 {
        set(&mut port, 0x04, Width::B2, command);
        let (io, mem) = (command & 1 == 1, command & 2 == 2);
        let expected = Forwards {
            secondary: 1,
            subordinate: 3,
            io: Span::new(Port(0xc000), Port(0xdfff)).filter(|_| io),
            memory: memory(0xfe00_0000, 0xfe1f_ffff).filter(|_| mem),
            prefetchable: memory(0x3fe0_0000_0000, 0x3fff_ffff_ffff).filter(|_| mem),
            vga_io: io,
            vga_memory: mem,
            in_reset: false,
        };
        assert_eq!(port.forwards(), expected, "COMMAND {command}");
    }
    set(&mut port, 0x3e, Width::B2, 0);
    assert!(!port.forwards().vga_io && !port.forwards().vga_memory);
    port.reset();
    assert_eq!(port.forwards(), Forwards::default());
}

#[test]
fn a_base_above_its_limit_closes_a_window() {
    let mut port = port();
    program(&mut port);
    set(&mut port, 0x04, Width::B2, 3);
    set(&mut port, 0x1c, Width::B2, 0xc0d0);
    set(&mut port, 0x20, Width::B4, 0xfdf0_fe00);
    set(&mut port, 0x2c, Width::B4, 0x3fdf);
    let forwards = port.forwards();
    assert_eq!((forwards.io, forwards.memory, forwards.prefetchable), (None, None, None));
    // One granule each.
    set(&mut port, 0x1c, Width::B2, 0xd0d0);
    set(&mut port, 0x20, Width::B4, 0xfe00_fe00);
    assert_eq!(port.forwards().io, Span::new(Port(0xd000), Port(0xdfff)));
    assert_eq!(port.forwards().memory, memory(0xfe00_0000, 0xfe0f_ffff));
}

#[test]
fn windows_may_reach_every_end() {
    let mut port = port();
    set(&mut port, 0x04, Width::B2, 3);
    set(&mut port, 0x1c, Width::B2, 0xf000);
    set(&mut port, 0x20, Width::B4, 0xfff0_0000);
    set(&mut port, 0x24, Width::B4, 0xfff0_0000);
    set(&mut port, 0x28, Width::B4, 0);
    set(&mut port, 0x2c, Width::B4, 0xffff_ffff);
    let forwards = port.forwards();
    assert_eq!(forwards.io, Span::new(Port(0), Port(0xffff)));
    assert_eq!(forwards.memory, memory(0, 0xffff_ffff));
    assert_eq!(forwards.prefetchable, memory(0, u64::MAX));
}

#[test]
fn a_sleeping_port_forwards_nothing_and_wakes_as_it_was() {
    let mut port = port();
    program(&mut port);
    set(&mut port, 0x04, Width::B2, 3);
    let awake = port.forwards();
    assert!(RootPort::TOPOLOGY.contains(u64::from(POWER_CONTROL)));
    assert_eq!(port.power.map(|power| power.control_offset()), Some(u16::from(POWER_CONTROL)));
    set(&mut port, 0x44, Width::B1, 3);
    let asleep = Forwards { secondary: 1, subordinate: 3, ..Forwards::default() };
    assert_eq!(port.forwards(), asleep);
    set(&mut port, 0x44, Width::B1, 2);
    assert_eq!(port.forwards(), asleep, "there is no D2");
    set(&mut port, 0x44, Width::B1, 0);
    assert_eq!(port.forwards(), awake);
}

#[test]
fn a_reset_of_the_bus_behind_is_told_while_it_is_held() {
    let mut port = port();
    set(&mut port, 0x3e, Width::B2, 0x48);
    assert!(port.forwards().in_reset && port.forwards().vga_io == port.config.command().io());
    set(&mut port, 0x3e, Width::B2, 0x08);
    assert!(!port.forwards().in_reset);
    set(&mut port, 0x3e, Width::B1, 0x40);
    port.reset();
    assert!(!port.forwards().in_reset);
}

#[test]
fn capabilities_lead_to_a_port_without_a_slot() {
    let mut port = port();
    let mut at = get(&mut port, 0x34, Width::B1);
    let mut found = Vec::new();
    while at != 0 {
        found.push(get(&mut port, at, Width::B1));
        if found.last() == Some(&0x10) {
            assert_eq!(get(&mut port, at + 2, Width::B2), 0x0042, "version 2, root port, no slot");
            assert_eq!(get(&mut port, at + 0x12, Width::B2), 0x3104, "link up");
            set(&mut port, at + 0x10, Width::B2, 0x10);
            assert_eq!(get(&mut port, at + 0x12, Width::B2), 0x1104, "link off");
        }
        at = get(&mut port, at + 1, Width::B1);
    }
    assert_eq!(found, [0x01, 0x10]);
}
