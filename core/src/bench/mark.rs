//! The device that the benchmark's guest asks what to do, and whom it tells when it begins and ends.
//!
//! Questions are ordinary reads. The two marks are writes that the vCPU's thread carries out on its own
//! way, before any queue: there the clock is read, and there the recording of stages begins and ends.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use trapline_devices::host::{Event, Events as _};
use trapline_io::access::{Access, Op};
use trapline_io::completion::Caller;
use trapline_io::device::{Claim, Claims, Range, Retire};
use trapline_io::endpoint::Endpoint;
use trapline_io::path::Topology;
use trapline_io::space::EndpointId;
use trapline_io::stages::Stages;
use trapline_io::{Device, Fault, Port, Region, Span, Width};

use super::script::{self, Script};
use crate::events::Events;

/// Offsets in the device's region are those from its first port.
const BEGIN: u64 = (script::BEGIN - script::NEXT) as u64;
const END: u64 = (script::END - script::NEXT) as u64;
const COUNT: u64 = (script::COUNT - script::NEXT) as u64;

/// The ports that are read.
pub struct Mark {
    script: Arc<Mutex<Script>>,
    events: Events,
}

impl Mark {
    /// Plays `script`, and switches the machine off at its end.
    pub fn new(script: Arc<Mutex<Script>>, events: Events) -> Mark {
        Mark { script, events }
    }
}

impl Device for Mark {
    fn read(&mut self, _: Region, offset: u64, _: Width) -> Result<u64, Fault> {
        let script = self.script.lock();
        match offset {
            0 => {
                let next = script.next();
                if next.is_none() {
                    self.events.report(Event::PowerOff);
                }
                Ok(next.unwrap_or(0).into())
            }
            COUNT => Ok(script.count().into()),
            _ => Err(Fault::NoRegister),
        }
    }

    fn write(&mut self, _: Region, _: u64, _: Width, _: u64) -> Result<(), Fault> {
        // Marks do not come here.
        Err(Fault::NoRegister)
    }

    fn reset(&mut self) {}

    fn claims(&self) -> Claims {
        let span = |first| Span::of_len(Port(first), 8);
        let questions = span(script::NEXT).map(|ports| Claim::region(Range::Ports(ports), Region(0), 0));
        let marks = span(script::BEGIN)
            .map(|ports| Claim::region(Range::Ports(ports), Region(0), BEGIN).retire(Retire::Topology));
        Claims { ranges: questions.into_iter().chain(marks).collect(), bridge: None }
    }
}

/// Takes the marks out of the way of changes of the map.
pub struct Marks {
    /// Carries out everything else.
    pub rest: Arc<dyn Topology>,
    /// Which endpoint is the [`Mark`].
    pub mark: EndpointId,
    /// All of them, to bring out what is queued.
    pub endpoints: Arc<[Arc<Endpoint>]>,
    /// What is played.
    pub script: Arc<Mutex<Script>>,
}

impl Topology for Marks {
    fn change(&self, caller: &mut Caller, endpoint: EndpointId, access: Access) {
        if endpoint != self.mark {
            return self.rest.change(caller, endpoint, access);
        }
        let Op::Write(_) = access.op else { return };
        match access.offset {
            BEGIN => self.begin(caller),
            END => self.end(caller),
            _ => {}
        }
    }
}

impl Marks {
    fn begin(&self, caller: &mut Caller) {
        // What a case before has left behind is not this one's.
        self.settle();
        let mut script = self.script.lock();
        caller.stages = script.wants_stages().then(|| Box::new(Stages::new()));
        script.begin();
    }

    fn end(&self, caller: &mut Caller) {
        let end = Instant::now();
        let stages = caller.stages.take();
        self.settle();
        self.script.lock().end(end, Instant::now(), stages);
    }

    fn settle(&self) {
        for endpoint in self.endpoints.iter() {
            endpoint.drain();
        }
    }
}
