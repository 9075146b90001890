//! What tests of the backend share.

use parking_lot::Mutex;

use super::*;

mod in_the_lab;
mod stand_in;

#[derive(Default)]
struct Told(Mutex<Vec<Event>>);

impl Events for Told {
    fn report(&self, event: Event) {
        self.0.lock().push(event);
    }
}

fn has(event: &Event, text: &str) -> bool {
    matches!(event, Event::Failed(told) if told.contains(text))
}
