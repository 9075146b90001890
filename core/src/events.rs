//! What can end or restart a run, in one queue: from devices, vCPUs, signals, the screen.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use trapline_devices::host;

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
pub struct Events(Arc<(Mutex<VecDeque<Event>>, Condvar)>);

impl Events {
    /// Adds an event, unless it waits already. Never blocks for long; any thread.
    pub fn push(&self, event: Event) {
        let (queue, bell) = &*self.0;
        let mut queue = queue.lock();
        if queue.len() < WAITING && !queue.contains(&event) {
            queue.push_back(event);
            bell.notify_one();
        }
    }

    /// The next event; `None` when `deadline` passes first.
    pub fn wait(&self, deadline: Option<Instant>) -> Option<Event> {
        let (queue, bell) = &*self.0;
        let mut queue = queue.lock();
        loop {
            if let Some(event) = queue.pop_front() {
                return Some(event);
            }
            match deadline {
                None => bell.wait(&mut queue),
                Some(deadline) => {
                    if bell.wait_until(&mut queue, deadline).timed_out() {
                        return queue.pop_front();
                    }
                }
            }
        }
    }

    /// Forgets requests to reset: they were for the machine as it was before this reset.
    pub fn forget_resets(&self) {
        self.0.0.lock().retain(|event| *event != Event::Guest(host::Event::Reset));
    }
}

impl host::Events for Events {
    fn report(&self, event: host::Event) {
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
