//! What can end or restart a run, in one queue: from devices, vCPUs, signals, the screen.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use trapline_devices::host;
use trapline_vcpu::World;

/// Something that whoever runs the machine has to act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A device or a vCPU asks.
    Guest(host::Event),
    /// The person in front of the screen leaves, or the program was told to end.
    Leave,
}

/// How many events may wait; more of them say nothing new.
const WAITING: usize = 16;

/// The queue; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Events(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<VecDeque<Event>>,
    bell: Condvar,
    world: OnceLock<Arc<World>>,
}

impl Events {
    /// Says whose vCPUs are to be held when the guest asks for a reset or for power-off.
    pub fn hold_in(&self, world: Arc<World>) {
        // A second world would be another machine's.
        let _ = self.0.world.set(world);
    }

    /// Adds an event, unless it waits already. Never blocks for long; any thread.
    pub fn push(&self, event: Event) {
        let mut queue = self.0.queue.lock();
        if queue.len() < WAITING && !queue.contains(&event) {
            queue.push_back(event);
            self.0.bell.notify_one();
        }
    }

    /// The next event; `None` when `deadline` passes first.
    pub fn wait(&self, deadline: Option<Instant>) -> Option<Event> {
        let mut queue = self.0.queue.lock();
        loop {
            if let Some(event) = queue.pop_front() {
                return Some(event);
            }
            match deadline {
                None => self.0.bell.wait(&mut queue),
                Some(deadline) => {
                    if self.0.bell.wait_until(&mut queue, deadline).timed_out() {
                        return queue.pop_front();
                    }
                }
            }
        }
    }

    /// Forgets requests to reset: they were for the machine as it was before this reset.
    pub fn forget_resets(&self) {
        self.0.queue.lock().retain(|event| *event != Event::Guest(host::Event::Reset));
    }
}

impl host::Events for Events {
    fn report(&self, event: host::Event) {
        if let (host::Event::Reset | host::Event::PowerOff, Some(world)) = (&event, self.0.world.get()) {
            world.hold();
        }
        self.push(Event::Guest(event));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_flood_is_bounded_and_a_repetition_says_nothing_new() {
        let events = Events::default();
        for text in 0..100 {
            events.push(Event::Guest(host::Event::Failed(text.to_string())));
            events.push(Event::Guest(host::Event::Failed(text.to_string())));
        }
        let past = Some(Instant::now());
        let mut count = 0;
        while events.wait(past).is_some() {
            count += 1;
        }
        assert_eq!(count, WAITING);
    }

    #[test]
    fn a_deadline_passes() {
        let events = Events::default();
        assert_eq!(events.wait(Some(Instant::now() + Duration::from_millis(5))), None);
        events.push(Event::Leave);
        assert_eq!(events.wait(None), Some(Event::Leave));
    }
}
