//! Fuzzing without a fuzzer: every body over random inputs and over mutations of those that went before, on the
//! stable compiler, for a few seconds. It sees no coverage and finds what is easily found; what it is for is that no
//! change breaks a body, or what the body holds, without a test that fails.
//!
//! An input is made of one number. A failure tells it, and `TRAPLINE_FUZZ_INPUT=NUMBER` makes that input
//! alone again; `TRAPLINE_FUZZ_SECONDS` is how long each body is at work.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long a body is at work if nothing else is said: all of the workspace then take less than a minute.
const SECONDS: f64 = 2.0;
/// The longest input, in bytes.
const LONGEST: u64 = 4096;
/// An input that takes longer is a hang.
const HANG: Duration = Duration::from_secs(60);

/// Calls `body` with inputs until its time is over. `examples` are inputs that get further than random ones.
///
/// # Panics
/// The body did; its input is told.
pub fn run(name: &str, body: fn(&[u8]), examples: &[&[u8]]) {
    if let Some(number) = variable("TRAPLINE_FUZZ_INPUT") {
        return body(&input(number, examples));
    }
    let time = Duration::from_secs_f64(variable("TRAPLINE_FUZZ_SECONDS").unwrap_or(SECONDS));
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut numbers = Random(since.as_secs() ^ u64::from(since.subsec_nanos()) << 32);
    let (start, mut count) = (Instant::now(), 0_u64);
    let current = Arc::new(AtomicU64::new(0));
    let watched = watch(name, &current);
    examples.iter().for_each(|example| body(example));
    while start.elapsed() < time {
        let number = numbers.next();
        current.store(number, Ordering::Relaxed);
        let bytes = input(number, examples);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(&bytes))) {
            eprintln!("{name} failed after {count} inputs; again: TRAPLINE_FUZZ_INPUT={number}");
            resume_unwind(panic);
        }
        count += 1;
    }
    drop(watched);
    println!("{name}: {count} inputs");
    assert!(count > 0, "{name}: not one input in {time:?}");
}

fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

/// Ends the process if the input stays the same for too long, which no test runner does. Until the result is dropped.
fn watch(name: &str, current: &Arc<AtomicU64>) -> Arc<()> {
    let alive = Arc::new(());
    let (watched, current, name) = (Arc::downgrade(&alive), Arc::clone(current), name.to_owned());
    std::thread::spawn(move || {
        let (mut last, mut since) = (0, Instant::now());
        while watched.strong_count() > 0 {
            std::thread::sleep(Duration::from_millis(200));
            let now = current.load(Ordering::Relaxed);
            if now != last {
                (last, since) = (now, Instant::now());
            }
            if since.elapsed() > HANG {
                eprintln!("{name} hangs; again: TRAPLINE_FUZZ_INPUT={now}");
                std::process::abort();
            }
        }
    });
    alive
}

/// The input that `number` stands for: random bytes, bytes of few values, or an example with changes.
fn input(number: u64, examples: &[&[u8]]) -> Vec<u8> {
    let mut random = Random(number);
    let length = random.below(LONGEST) >> random.below(10);
    let kind = random.below(4);
    match kind {
        0 | 1 if !examples.is_empty() => mutation(&mut random, examples),
        // Small values are lengths and choices that make sense more often.
        2 => (0..length).map(|_| (random.next() & random.next() & random.next() & 0xff) as u8).collect(),
        _ => (0..length).map(|_| (random.next() & 0xff) as u8).collect(),
    }
}

fn mutation(random: &mut Random, examples: &[&[u8]]) -> Vec<u8> {
    let index = random.below(examples.len() as u64) as usize;
    let mut bytes = examples[index].to_vec();
    for _ in 0..=random.below(8) {
        let at = random.below(bytes.len().max(1) as u64) as usize;
        let value = (random.next() & 0xff) as u8;
        match random.below(5) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at.min(bytes.len()), value),
            2 => bytes.extend_from_within(at.min(bytes.len())..),
            3 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (value & 7)),
            _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = value),
        }
        bytes.truncate(LONGEST as usize);
    }
    bytes
}

/// Random numbers (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `limit`, which is not 0.
    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
