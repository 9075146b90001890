//! The clock of the legacy window: a thread that looks after what KVM collects, and turns the window
//! as its function wishes.
//!
//! A guest that only writes to the window never exits, so somebody has to bring out what it wrote:
//! about 60 times a second, as a screen does. While nothing is collected the thread
//! sleeps until the function unparks it, so an idle guest costs nothing.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use trapline_devices::host;
use trapline_io::endpoint::Endpoint;
use trapline_io::window::Mode;

use crate::events::{Event, Events};
use crate::parts::PartId;
use crate::sandbox::{Kind, Seccomp};
use crate::stoppable::{Farewell, StopFlag, StoppableThread};
use crate::topology::{Topology, Trouble, Turned, window_of};

/// How often what the guest wrote is brought out while something is collected.
const BEAT: Duration = Duration::from_millis(16);

/// How long a turn that did not come about is not tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// A device gives up after 5 s, and a park after 20 s.
const FAREWELL: Farewell =
    Farewell { longest: Duration::from_secs(30), hangs: "a device behind the legacy window hangs" };

/// The thread, called `vga`. Dropping this has it bring out what the guest has written and end, and waits for
/// that, 30 seconds at most.
#[derive(Debug)]
pub struct Clock {
    _thread: StoppableThread,
}

impl Clock {
    /// Starts the clock of a function, the one behind `endpoint`, whose window `topology` turns. Before
    /// the vCPUs run.
    ///
    /// # Errors
    /// The system refuses the thread.
    pub fn start(
        topology: Arc<Topology>,
        function: PartId,
        endpoint: Arc<Endpoint>,
        events: Events,
        seccomp: Seccomp,
    ) -> io::Result<Clock> {
        let ticker = Ticker { topology, function, endpoint: Arc::clone(&endpoint), events, again: None };
        let thread = StoppableThread::start("vga", FAREWELL, move |stop| {
            seccomp.confine(Kind::Window);
            ticker.run(stop);
        })?;
        let handle = thread.thread().clone();
        window_of(&endpoint, |window| window.watch(handle));
        Ok(Clock { _thread: thread })
    }
}

/// Brings out what the guest has written to the window of the function behind `endpoint`, if it has one.
/// Waits for the token; any thread but a worker's.
pub fn bring_out(endpoint: &Endpoint) {
    // What it wishes now it still wishes at the clock's next beat.
    window_of(endpoint, |window| window.tick(Instant::now()));
}

/// What the thread knows.
struct Ticker {
    topology: Arc<Topology>,
    function: PartId,
    endpoint: Arc<Endpoint>,
    events: Events,
    /// A wish that was not fulfilled, and when to try again.
    again: Option<(Mode, Instant)>,
}

impl Ticker {
    fn run(mut self, stop: &StopFlag) {
        tracing::debug!(function = self.endpoint.name(), "the clock of the legacy window starts");
        while !stop.is_set() {
            if let Err(trouble) = self.beat() {
                let text = format!("the legacy window of {} cannot turn: {trouble}", self.endpoint.name());
                self.events.push(Event::Guest(host::Event::Failed(text)));
            }
            match self.topology.is_collecting(self.function) {
                // A wish that stands calls again and again; and nobody may call any more.
                _ if self.again.is_some() => std::thread::sleep(BEAT),
                true => std::thread::park_timeout(BEAT),
                false => std::thread::park(),
            }
        }
        bring_out(&self.endpoint);
    }

    fn beat(&mut self) -> Result<(), Trouble> {
        let now = Instant::now();
        let beat = window_of(&self.endpoint, |window| (window.tick(now), window.mode()));
        let Some((wish, mode)) = beat else { return Ok(()) };
        let collecting = self.topology.is_collecting(self.function);
        // A reset on a vCPU has changed the mode, or another function lies in the zones.
        let stale = collecting && (!mode.collects() || self.topology.is_contested());
        self.again = self.again.filter(|(_, until)| now < *until);
        let refused = self.again.is_some_and(|(was, _)| was == wish);
        if !stale && (refused || wish == mode) {
            return Ok(());
        }
        self.again = match self.topology.turn(self.function, wish) {
            Ok(Turned::AsWished) => None,
            Ok(Turned::Slower) => Some((wish, now + PAUSE)),
            Err(Trouble::Park(error)) => {
                tracing::warn!(%error, ?mode, ?wish, "the legacy window stays as it is for now");
                Some((wish, now + PAUSE))
            }
            Err(trouble) => return Err(trouble),
        };
        Ok(())
    }
}
