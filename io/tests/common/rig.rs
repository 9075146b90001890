//! Devices and machines for the tests of the access path.
#![allow(dead_code, reason = "each test uses a part")]

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use trapline_io::completion::Completions;
use trapline_io::device::Claims;
use trapline_io::doorbell::Doorbell;
use trapline_io::endpoint::{Endpoint, Service};
use trapline_io::{Access, Device, Fault, Op, Region, Width};

/// What a [`Journal`] saw, in order.
pub type Log = Arc<Mutex<Vec<Access>>>;

/// Writes down every access; reads give the number of writes so far.
pub struct Journal {
    log: Log,
    /// How long each access takes.
    pause: Duration,
    writes: u64,
}

impl Journal {
    /// A device and its log.
    pub fn new(pause: Duration) -> (Journal, Log) {
        let log = Log::default();
        (Journal { log: Arc::clone(&log), pause, writes: 0 }, log)
    }

    fn note(&self, access: Access) {
        if !self.pause.is_zero() {
            std::thread::sleep(self.pause);
        }
        self.log.lock().push(access);
    }
}

impl Device for Journal {
    fn read(&mut self, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
        self.note(Access::read(region, offset, width));
        Ok(self.writes)
    }

    fn write(&mut self, region: Region, offset: u64, width: Width, value: u64) -> Result<(), Fault> {
        self.note(Access::write(region, offset, width, value));
        self.writes += 1;
        Ok(())
    }

    fn reset(&mut self) {}

    fn claims(&self) -> Claims {
        Claims::default()
    }
}

/// Fails everything.
pub struct Broken;

impl Device for Broken {
    fn read(&mut self, _: Region, offset: u64, _: Width) -> Result<u64, Fault> {
        Err(if offset == 0 { Fault::Failed } else { Fault::NoRegister })
    }

    fn write(&mut self, _: Region, _: u64, _: Width, _: u64) -> Result<(), Fault> {
        Err(Fault::BadWidth)
    }

    fn reset(&mut self) {}

    fn claims(&self) -> Claims {
        Claims::default()
    }
}

/// An endpoint, its completions and its bell.
pub struct Rig {
    pub endpoint: Arc<Endpoint>,
    pub completions: Completions,
    pub bell: Arc<Doorbell>,
}

/// An endpoint for `device` with room for `capacity` accesses and four callers.
pub fn rig(device: impl Device + 'static, service: Service, capacity: usize) -> Rig {
    let completions = Completions::new(4);
    let bell = Arc::new(Doorbell::new().unwrap());
    let endpoint = Endpoint::new("test", Box::new(device), completions.clone(), Arc::clone(&bell))
        .with_service(service)
        .with_capacity(capacity);
    Rig { endpoint: Arc::new(endpoint), completions, bell }
}

/// The n-th write of a producer: the producer in the offset, n in the value.
pub fn numbered(producer: u64, n: u64) -> Access {
    Access::write(Region::bar(0), producer * 8, Width::B8, n)
}

/// What the writes of one producer were, in the order in which the device saw them.
pub fn values_of(log: &Log, producer: u64) -> Vec<u64> {
    let of = |access: &Access| match access.op {
        Op::Write(value) if access.offset == producer * 8 => Some(value),
        _ => None,
    };
    log.lock().iter().filter_map(of).collect()
}
