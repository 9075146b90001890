//! The worker's thread: doorbell, attention, tasks, stop.
#![cfg(not(loom))]

#[path = "common/rig.rs"]
mod common;

use std::io::{Read, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{Journal, numbered, rig, values_of};
use trapline_io::device::Claims;
use trapline_io::endpoint::Service;
use trapline_io::worker::{Served, Task, Worker};
use trapline_io::{Device, Fault, Region, Width};

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(10), "waited in vain until {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

#[test]
fn a_sleeping_worker_serves_a_posted_write() {
    let (device, log) = Journal::new(Duration::ZERO);
    let rig = rig(device, Service::Adaptive, 64);
    let served = Served { endpoint: Arc::clone(&rig.endpoint), attention: None };
    let worker = Worker::start("sleeper", Arc::clone(&rig.bell), vec![served], Vec::new()).unwrap();
    for n in 0..20 {
        // Long enough for the worker to fall asleep now and then.
        std::thread::sleep(Duration::from_millis(n % 3));
        rig.endpoint.post(numbered(0, n));
        until("the write arrived", || values_of(&log, 0).len() as u64 == n + 1);
    }
    worker.stop();
}

#[test]
fn stopping_drains_and_drops_the_tasks() {
    let (device, log) = Journal::new(Duration::from_micros(100));
    let rig = rig(device, Service::Adaptive, 256);
    let served = Served { endpoint: Arc::clone(&rig.endpoint), attention: None };
    let alive = Arc::new(());
    let held = Arc::clone(&alive);
    let endless: Task = Box::new(move || {
        Box::pin(async move {
            let _held = held;
            std::future::pending::<()>().await;
        })
    });
    let worker = Worker::start("stopper", Arc::clone(&rig.bell), vec![served], vec![endless]).unwrap();
    for n in 0..100 {
        rig.endpoint.post(numbered(0, n));
    }
    worker.stop();
    assert_eq!(values_of(&log, 0), (0..100).collect::<Vec<_>>());
    assert_eq!(Arc::strong_count(&alive), 1, "the task is gone");
}

/// Takes its time, and counts.
struct Slow(Arc<AtomicU64>);

impl Device for Slow {
    fn read(&mut self, _: Region, _: u64, _: Width) -> Result<u64, Fault> {
        Ok(0)
    }
    fn write(&mut self, _: Region, _: u64, _: Width, _: u64) -> Result<(), Fault> {
        std::thread::sleep(Duration::from_micros(20));
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
    fn reset(&mut self) {}
    fn claims(&self) -> Claims {
        Claims::default()
    }
}

#[test]
fn tasks_run_beside_a_queue_that_never_runs_dry() {
    let writes = Arc::new(AtomicU64::new(0));
    let rig = rig(Slow(Arc::clone(&writes)), Service::Adaptive, 64);
    let served = Served { endpoint: Arc::clone(&rig.endpoint), attention: None };
    let ticks = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&ticks);
    let task: Task = Box::new(move || {
        Box::pin(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(1)).await;
                counted.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    let worker = Worker::start("busy", Arc::clone(&rig.bell), vec![served], vec![task]).unwrap();
    let (mut posted, begun) = (0, Instant::now());
    while ticks.load(Ordering::Relaxed) < 10 {
        // What it has done tells how long the worker ran, on a busy host too. A tick is due every hundred or so.
        let written = writes.load(Ordering::Relaxed);
        assert!(written < 4000 && begun.elapsed() < Duration::from_secs(20), "{ticks:?} beside {written}");
        // Nor is the queue ever full: then this thread would carry writes out.
        if posted < written + 32 {
            rig.endpoint.post(numbered(0, posted));
            posted += 1;
        }
    }
    worker.stop();
}

/// Reads a socket whenever it is told that there is something.
struct Peer {
    socket: UnixStream,
    calls: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
}

impl Device for Peer {
    fn read(&mut self, _: Region, _: u64, _: Width) -> Result<u64, Fault> {
        std::thread::sleep(Duration::from_millis(20));
        Ok(0)
    }
    fn write(&mut self, _: Region, _: u64, _: Width, _: u64) -> Result<(), Fault> {
        Ok(())
    }
    fn reset(&mut self) {}
    fn claims(&self) -> Claims {
        Claims::default()
    }
    fn attend(&mut self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let mut buffer = [0; 64];
        while let Ok(read @ 1..) = self.socket.read(&mut buffer) {
            self.bytes.fetch_add(read as u64, Ordering::Relaxed);
        }
    }
}

#[test]
fn a_device_is_called_for_its_descriptor_and_once_more_at_its_end() {
    let (mut far, near) = UnixStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    let attention = OwnedFd::from(near.try_clone().unwrap());
    let (calls, bytes) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let peer = Peer { socket: near, calls: Arc::clone(&calls), bytes: Arc::clone(&bytes) };
    let rig = rig(peer, Service::Adaptive, 64);
    let served = Served { endpoint: Arc::clone(&rig.endpoint), attention: Some(attention) };
    let worker = Worker::start("watcher", Arc::clone(&rig.bell), vec![served], Vec::new()).unwrap();
    for n in 1..=5 {
        far.write_all(b"0123456789").unwrap();
        until("the device read it", || bytes.load(Ordering::Relaxed) == n * 10);
    }
    // A device in use is told later, not forgotten.
    let reader = Arc::clone(&rig.endpoint);
    let mut caller = rig.completions.caller(trapline_io::queue::CallerId(0)).unwrap();
    let reading = std::thread::spawn(move || {
        reader.call(&mut caller, trapline_io::Access::read(Region::bar(0), 0, Width::B1))
    });
    far.write_all(b"x").unwrap();
    until("the device read it after its access", || bytes.load(Ordering::Relaxed) == 51);
    reading.join().unwrap();
    let before = calls.load(Ordering::Relaxed);
    drop(far);
    until("the device heard of the end", || calls.load(Ordering::Relaxed) > before);
    let after = calls.load(Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(50));
    assert!(calls.load(Ordering::Relaxed) <= after + 1, "a dead descriptor spins the worker");
    worker.stop();
}
