use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use proptest::prelude::*;

use super::super::attention::readable_within;
use super::super::testing::{Line, low};
use super::*;

const P: Region = isa::PORTS;
/// 2009-02-13 23:31:30 UTC, a Friday.
const START: u64 = 1_234_567_890;
const MS: u64 = 1_000_000;

struct Bench {
    rtc: Rtc,
    line: Arc<Line>,
    now_ns: Arc<AtomicU64>,
}

impl Bench {
    fn new() -> Bench {
        Bench::with(&Cmos { cpus: 1, ..Cmos::default() })
    }

    fn with(cmos: &Cmos) -> Bench {
        let now_ns = Arc::new(AtomicU64::new(START * 1_000_000_000));
        let shown = Arc::clone(&now_ns);
        let clock = Box::new(move || Duration::from_nanos(shown.load(SeqCst)));
        let line = Arc::new(Line::default());
        Bench { rtc: Rtc::with_clock(cmos, line.clone(), clock).unwrap(), line, now_ns }
    }

    fn pass(&self, ns: u64) {
        self.now_ns.fetch_add(ns, SeqCst);
    }

    fn get(&mut self, index: u8) -> u8 {
        self.rtc.write(P, 0, Width::B1, u64::from(index | 0x80)).unwrap();
        low(self.rtc.read(P, 1, Width::B1).unwrap())
    }

    fn put(&mut self, index: u8, value: u8) {
        self.rtc.write(P, 0, Width::B1, u64::from(index)).unwrap();
        self.rtc.write(P, 1, Width::B1, u64::from(value)).unwrap();
    }

    fn time(&mut self) -> [u8; 8] {
        [0x32, 9, 8, 7, 6, 4, 2, 0].map(|index| self.get(index))
    }
}

#[test]
fn the_time_is_the_hosts_in_every_format() {
    let mut bench = Bench::new();
    assert_eq!(bench.time(), [0x20, 0x09, 0x02, 0x13, 6, 0x23, 0x31, 0x30]);
    bench.put(register::B, 0x06);
    assert_eq!(bench.time(), [20, 9, 2, 13, 6, 23, 31, 30]);
    bench.put(register::B, 0x00);
    assert_eq!(bench.get(register::HOURS), 0x91);
    bench.put(register::B, 0x04);
    assert_eq!(bench.get(register::HOURS), 11 | 0x80);
    bench.pass(3_600_000 * MS);
    assert_eq!(bench.get(register::HOURS), 12);
    assert_eq!(bench.get(register::D), 0x80);
}

#[test]
fn port_70_reads_ones() {
    let mut bench = Bench::new();
    bench.put(0x0f, 0);
    assert_eq!(bench.rtc.read(P, 0, Width::B1), Ok(0xff));
}

#[test]
fn a_time_that_the_guest_sets_runs_on() {
    let mut bench = Bench::new();
    bench.put(register::B, 0x82);
    for (index, value) in [(0x32, 0x19), (9, 0x99), (8, 0x12), (7, 0x31), (4, 0x23), (2, 0x59), (0, 0x58)] {
        bench.put(index, value);
        bench.pass(2000 * MS);
    }
    assert_eq!(bench.get(register::SECONDS), 0x58);
    assert_eq!(bench.get(register::A) & 0x80, 0);
    bench.put(register::B, 0x02);
    bench.pass(2000 * MS);
    assert_eq!(bench.time(), [0x20, 0x00, 0x01, 0x01, 7, 0x00, 0x00, 0x00]);
    bench.rtc.reset();
    assert_eq!(bench.get(register::YEAR), 0);
    // A part may be set without stopping the clock.
    bench.put(register::MINUTES, 0x42);
    assert_eq!(bench.time(), [0x20, 0x00, 0x01, 0x01, 7, 0x00, 0x42, 0x00]);
}

#[test]
fn the_update_bit_announces_the_next_second() {
    let mut bench = Bench::new();
    assert_eq!(bench.get(register::A), 0x26);
    bench.pass(999 * MS + 800_000);
    assert_eq!(bench.get(register::A), 0xa6);
    bench.pass(MS);
    assert_eq!(bench.get(register::A), 0x26);
    assert_eq!(bench.get(register::C) & UPDATE_ENDED, UPDATE_ENDED);
    assert_eq!(bench.get(register::C), 0);
}

#[test]
fn a_periodic_interrupt_waits_for_its_acknowledgement() {
    let mut bench = Bench::new();
    bench.put(register::B, 0x42);
    for round in 1..4 {
        assert!(readable_within(bench.rtc.attention().unwrap(), Duration::from_secs(5)));
        bench.pass(MS);
        bench.rtc.attend();
        assert!(bench.line.level());
        bench.rtc.attend();
        assert_eq!(bench.line.rises(), round);
        assert_eq!(bench.get(register::C), PENDING | PERIODIC);
        assert!(!bench.line.level());
    }
    bench.pass(MS / 2);
    bench.rtc.attend();
    assert!(!bench.line.level());
}

#[test]
fn an_alarm_comes_at_its_time_alone() {
    let mut bench = Bench::new();
    for (index, value) in [(5, 0xff), (3, 0x32), (1, 0x00)] {
        bench.put(index, value);
    }
    bench.put(register::B, 0x22);
    bench.pass(29_999 * MS);
    bench.rtc.attend();
    assert!(!bench.line.level());
    bench.pass(MS);
    bench.rtc.attend();
    assert!(bench.line.level());
    assert_eq!(bench.get(register::C) & (PENDING | ALARM), PENDING | ALARM);
    bench.pass(3_599_000 * MS);
    assert_eq!(bench.get(register::C) & ALARM, 0);
    bench.pass(1000 * MS);
    assert_eq!(bench.get(register::C) & ALARM, ALARM);
}

#[test]
fn a_reset_keeps_memory_but_not_the_shutdown_code() {
    let mut bench = Bench::new();
    bench.put(0x0f, 0x0a);
    bench.put(0x40, 0x5a);
    bench.put(register::B, 0x72);
    bench.rtc.reset();
    assert_eq!(bench.get(0x0f), 0);
    assert_eq!(bench.get(0x40), 0x5a);
    assert_eq!(bench.get(register::B), 0x02);
    bench.pass(5000 * MS);
    bench.rtc.attend();
    assert!(!bench.line.level());
}

#[test]
fn the_memory_describes_the_machine() {
    let mut bench = Bench::with(&Cmos {
        low_memory: 2 << 30,
        high_memory: 6 << 30,
        cpus: 4,
        boot: [BootDevice::Disk, BootDevice::Cd, BootDevice::Network],
    });
    assert_eq!([bench.get(0x30), bench.get(0x31)], [0xff, 0xff]);
    assert_eq!([bench.get(0x34), bench.get(0x35)], [0x00, 0x7f]);
    assert_eq!([bench.get(0x5b), bench.get(0x5c), bench.get(0x5d)], [0, 0x80, 1]);
    assert_eq!(bench.get(0x5f), 3);
    assert_eq!((bench.get(0x3d), bench.get(0x38)), (0x32, 0x41));
}

#[test]
fn a_word_written_sets_index_and_data() {
    let mut bench = Bench::new();
    bench.rtc.write(P, 0, Width::B2, 0x5a40).unwrap();
    assert_eq!(bench.get(0x40), 0x5a);
}

proptest! {
    #[test]
    fn no_port_traffic_panics(
        steps in prop::collection::vec((any::<[u8; 2]>(), any::<bool>(), 0u64..4_000_000_000_000), 0..64),
    ) {
        let mut bench = Bench::new();
        for ([index, value], write, ns) in steps {
            if write { bench.put(index & 0x7f, value) } else { let _ = bench.get(index & 0x7f); }
            // Forwards and backwards.
            if value & 1 == 0 { bench.pass(ns) } else { bench.now_ns.store(ns, SeqCst) }
            bench.rtc.attend();
        }
    }
}
