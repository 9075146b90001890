//! A lane under every order of its two threads' steps: what comes out is whole and in order, and what
//! does not is counted.
//!
//! `RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test -p trapline-io --release --test loom_trace`
#![cfg(loom)]

use std::sync::Arc;

use loom::thread;
use trapline_io::space::EndpointId;
use trapline_io::trace::{How, Lane, Record};
use trapline_io::{Access, Address, Gpa, Region, Width};

/// A record whose every word tells its number.
fn record(number: u32) -> Record {
    let wide = u64::from(number);
    Record {
        time: wide,
        push: Some(number),
        start: Some(number),
        end: Some(number),
        resume: Some(number),
        vcpu: Some(number as u16),
        at: Some(Address::Gpa(Gpa(wide))),
        function: Some(EndpointId(number as u16)),
        access: Access::write(Region(number as u8), wide, Width::B8, wide),
        value: wide,
        how: How::Inline,
    }
}

fn check(scene: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(scene);
}

/// The ring is full but for one place: the second of two records needs the place that the consumer
/// gives back, or is lost.
#[test]
fn records_are_whole_in_order_or_counted() {
    check(|| {
        let lane = Arc::new(Lane::new(4));
        for number in 1..=3 {
            assert!(lane.push(&record(number)));
        }
        let producer = {
            let lane = Arc::clone(&lane);
            thread::spawn(move || (4..=5).filter(|number| lane.push(&record(*number))).count())
        };
        let mut taken = Vec::new();
        lane.take(2, |record| taken.push(record));
        lane.take(2, |record| taken.push(record));
        let pushed = producer.join().unwrap();
        lane.take(usize::MAX, |record| taken.push(record));
        assert_eq!(pushed as u64 + lane.lost(), 2);
        let numbers: Vec<u64> = taken.iter().map(|record| record.time).collect();
        assert_eq!(numbers.len(), 3 + pushed);
        assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
        for taken in taken {
            assert_eq!(taken, record(taken.time as u32));
        }
    });
}
