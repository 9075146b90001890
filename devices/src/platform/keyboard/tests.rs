use proptest::prelude::*;

use super::super::attention::readable_within;
use super::super::testing::{Line, Reported, low};
use super::*;

const P: Region = isa::PORTS;

struct Bench {
    device: KeyboardController,
    keys: Keys,
    line: Arc<Line>,
    events: Arc<Reported>,
}

impl Bench {
    fn new() -> Bench {
        let (line, events) = (Arc::new(Line::default()), Arc::new(Reported::default()));
        let (device, keys) = KeyboardController::new(line.clone(), events.clone()).unwrap();
        Bench { device, keys, line, events }
    }

    /// After what SeaBIOS does: set 2 translated to set 1, interrupt on.
    fn set_up() -> Bench {
        let mut bench = Bench::new();
        bench.command(0x60);
        bench.data(0x61);
        bench
    }

    fn status(&mut self) -> u8 {
        low(self.device.read(P, COMMAND, Width::B1).unwrap())
    }

    fn get(&mut self) -> u8 {
        low(self.device.read(P, DATA, Width::B1).unwrap())
    }

    fn command(&mut self, byte: u8) {
        self.device.write(P, COMMAND, Width::B1, byte.into()).unwrap();
    }

    fn data(&mut self, byte: u8) {
        self.device.write(P, DATA, Width::B1, byte.into()).unwrap();
    }

    /// All that is there now.
    fn all(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.status() & 1 == 1 {
            bytes.push(self.get());
        }
        bytes
    }

    fn ask(&mut self, command: u8) -> Vec<u8> {
        self.command(command);
        self.all()
    }

    fn tell(&mut self, byte: u8) -> Vec<u8> {
        self.data(byte);
        self.all()
    }

    /// Polls, as a guest does, until this many bytes came.
    fn poll(&mut self, count: usize) -> Vec<u8> {
        let (mut bytes, start) = (Vec::new(), Instant::now());
        while bytes.len() < count && start.elapsed() < Duration::from_secs(20) {
            bytes.extend(self.all());
        }
        bytes
    }
}

#[test]
fn firmware_sets_it_up() {
    let mut bench = Bench::new();
    bench.keys.press(Key::new(KeyCode::Char('A')));
    bench.device.attend();
    assert_eq!(bench.all(), [0_u8; 0]);
    assert_eq!(bench.ask(0xad), [0_u8; 0]);
    assert_eq!(bench.ask(0xa7), [0_u8; 0]);
    assert_eq!(bench.ask(0xaa), [0x55]);
    assert_eq!(bench.status() & 4, 4);
    assert_eq!(bench.ask(0xab), [0x00]);
    assert_eq!(bench.tell(0xff), [0xfa, 0xaa]);
    assert_eq!(bench.tell(0xf5), [0xfa]);
    assert_eq!(bench.tell(0xf0), [0xfa]);
    assert_eq!(bench.tell(0x02), [0xfa]);
    bench.command(0x60);
    assert_eq!(bench.tell(0x61), [0_u8; 0]);
    assert_eq!(bench.ask(0x20), [0x61]);
    assert_eq!(bench.tell(0xf4), [0xfa]);
    // The key that was pressed before all this.
    assert_eq!(bench.poll(4), [0x2a, 0x1e, 0x9e, 0xaa]);
}

#[test]
fn operating_systems_identify_it() {
    let mut bench = Bench::set_up();
    assert_eq!(bench.tell(0xf2), [0xfa, 0xab, 0x41]);
    assert_eq!(bench.tell(0xed), [0xfa]);
    assert_eq!(bench.tell(0x07), [0xfa]);
    assert_eq!(bench.tell(0xf3), [0xfa]);
    assert_eq!(bench.tell(0x00), [0xfa]);
    assert_eq!(bench.tell(0xee), [0xee]);
    assert_eq!(bench.tell(0xf0), [0xfa]);
    assert_eq!(bench.tell(0x00), [0xfa, 0x41]);
    assert_eq!(bench.tell(0x55), [0xfe]);
    // Without translation.
    bench.command(0x60);
    bench.data(0x21);
    assert_eq!(bench.tell(0xf2), [0xfa, 0xab, 0x83]);
    bench.keys.press(Key::new(KeyCode::Up));
    assert_eq!(bench.all(), [0xe0, 0x75, 0xe0, 0xf0, 0x75]);
}

#[test]
fn there_is_no_second_port() {
    let mut bench = Bench::set_up();
    assert_eq!(bench.ask(0xa9), [PORT_DEAD]);
    bench.command(0xa8);
    assert_eq!(bench.ask(0x20)[0] & 0x20, 0x20);
    bench.command(0xd4);
    assert_eq!(bench.tell(0xff), [0_u8; 0]);
    bench.command(0xd3);
    bench.data(0x5a);
    // What comes is not marked as of the second port.
    assert_eq!(bench.status() & 0x21, 1);
    assert_eq!(bench.get(), 0x5a);
}

#[test]
fn reset_and_the_a20_gate() {
    let mut bench = Bench::new();
    assert_eq!(bench.ask(0xd0), [0x03]);
    bench.command(0xd1);
    bench.data(0x01);
    assert_eq!(bench.ask(0xd0), [0x01]);
    bench.command(0xdf);
    assert_eq!(bench.ask(0xd0), [0x03]);
    assert!(bench.events.all().is_empty());
    bench.command(0xff);
    assert!(bench.events.all().is_empty());
    bench.command(0xfe);
    assert_eq!(bench.events.all(), [Event::Reset]);
    bench.command(0xd1);
    bench.data(0x02);
    assert_eq!(bench.events.all(), [Event::Reset, Event::Reset]);
}

#[test]
fn each_byte_interrupts_once() {
    let mut bench = Bench::set_up();
    bench.keys.press(Key::new(KeyCode::Enter));
    assert!(readable_within(bench.device.attention().unwrap(), Duration::from_secs(5)));
    bench.device.attend();
    assert!(bench.line.level());
    assert_eq!(bench.line.rises(), 1);
    assert_eq!(bench.get(), 0x1c);
    assert_eq!(bench.line.rises(), 2);
    assert_eq!(bench.get(), 0x9c);
    assert!(!bench.line.level());
    assert_eq!(bench.get(), 0x9c);
    assert_eq!(bench.line.rises(), 2);
    // Not while it is off.
    bench.command(0x60);
    bench.data(0x60);
    bench.keys.press(Key::new(KeyCode::Enter));
    std::thread::sleep(2 * PACE);
    bench.device.attend();
    assert_eq!(bench.status() & 1, 1);
    assert!(!bench.line.level());
}

#[test]
fn a_burst_arrives_whole_and_not_too_fast() {
    let mut bench = Bench::set_up();
    let text = "grub rescue> ls";
    assert!(text.chars().all(|key| bench.keys.press(Key::new(KeyCode::Char(key)))));
    let start = Instant::now();
    let expected: usize = text.chars().map(|key| if key == '>' { 4 } else { 2 }).sum();
    assert_eq!(bench.poll(expected).len(), expected);
    assert!(start.elapsed() >= PACE * (u32::try_from(text.len()).unwrap() - 1));
    assert_eq!(bench.keys.dropped(), 0);
}

#[test]
fn a_guest_with_interrupts_alone_is_called_for_the_second_key() {
    let since = Instant::now();
    let mut bench = loop {
        let mut bench = Bench::set_up();
        bench.keys.press(Key::new(KeyCode::Up));
        bench.keys.press(Key::new(KeyCode::Enter));
        let begun = Instant::now();
        bench.device.attend();
        let _: Vec<u8> = (0..4).map(|_| bench.get()).collect();
        let level = bench.line.level();
        // If a busy host let that take longer, the second key is due already.
        if begun.elapsed() < PACE {
            assert!(!level);
            break bench;
        }
        assert!(since.elapsed() < Duration::from_secs(20), "never in time");
    };
    assert!(readable_within(bench.device.attention().unwrap(), Duration::from_secs(5)));
    bench.device.attend();
    assert_eq!(bench.get(), 0x1c);
}

#[test]
fn keys_wait_while_scanning_is_off_and_no_more_than_fit() {
    let mut bench = Bench::set_up();
    assert_eq!(bench.tell(0xf5), [0xfa]);
    let pressed = (0..1000).filter(|_| bench.keys.press(Key::new(KeyCode::Escape))).count();
    assert_eq!(pressed, WAITING);
    assert_eq!(bench.keys.dropped(), 1000 - WAITING as u64);
    assert_eq!(bench.all(), [0_u8; 0]);
    bench.data(0xf4);
    // On a busy host the next key may be there as well.
    assert_eq!(bench.poll(3)[..3], [0xfa, 0x01, 0x81]);
    assert!(!bench.keys.press(Key::new(KeyCode::Char('ß'))));
}

#[test]
fn a_disabled_port_holds_keys_back() {
    let mut bench = Bench::set_up();
    bench.command(0xad);
    bench.keys.press(Key::new(KeyCode::Tab));
    bench.device.attend();
    assert_eq!(bench.all(), [0_u8; 0]);
    bench.command(0xae);
    assert_eq!(bench.all(), [0x0f, 0x8f]);
}

#[test]
fn a_reset_leaves_nothing_half_done() {
    let mut bench = Bench::set_up();
    bench.data(0xed);
    bench.command(0xd1);
    bench.device.reset();
    assert!(!bench.line.level());
    assert_eq!(bench.all(), [0_u8; 0]);
    assert_eq!(bench.tell(0x01), [0xfe]);
    assert!(bench.events.all().is_empty());
}

proptest! {
    #[test]
    fn no_port_traffic_panics_or_hangs(steps in prop::collection::vec((0u8..5, any::<u8>()), 0..200)) {
        let mut bench = Bench::new();
        for (step, byte) in steps {
            match step {
                0 => bench.command(byte),
                1 => bench.data(byte),
                2 => { bench.get(); }
                3 => { bench.status(); }
                _ => { bench.keys.press(Key::new(KeyCode::Char(char::from(byte)))); }
            }
            bench.device.attend();
        }
        // Whatever was before, a reset of both ends makes it work.
        bench.device.reset();
        bench.command(0x60);
        bench.data(0x71);
        bench.data(0xff);
        prop_assert_eq!(&bench.poll(2)[..2], &[0xfa, 0xaa]);
    }
}
