//! The worker's half of the hand-over: its rounds over the queues it serves, and when it may sleep.
//!
//! This is [`crate::worker`] without its runtime, so that loom can check it together with the
//! endpoints; see [`crate::endpoint`] and [`crate::doorbell`] for the other half.

use std::sync::Arc;

use crate::doorbell::Doorbell;
use crate::endpoint::Endpoint;

/// The endpoints that one thread serves. While this value lives, pushers count on that thread.
#[derive(Debug)]
pub struct Rounds {
    bell: Arc<Doorbell>,
    endpoints: Vec<Arc<Endpoint>>,
    served_out: bool,
}

impl Rounds {
    /// Promises to serve these endpoints, all of which ring `bell`. One per bell at a time.
    pub fn begin(bell: Arc<Doorbell>, endpoints: Vec<Arc<Endpoint>>) -> Rounds {
        bell.awake();
        Rounds { bell, endpoints, served_out: false }
    }

    /// The endpoints.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// Serves each endpoint once; tells whether there was anything to do. Waits for no token.
    pub fn serve(&self) -> bool {
        self.endpoints.iter().fold(false, |busy, endpoint| endpoint.serve() | busy)
    }

    /// Whether anything is queued: a cheap look that promises nothing.
    pub fn has_work(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.has_work())
    }

    /// Announces that the worker sleeps. If this is true the worker must wait for the bell, then
    /// call [`Rounds::woken`]; else there is work.
    pub fn may_sleep(&self) -> bool {
        self.bell.sleep();
        let needed = self.endpoints.iter().any(|endpoint| endpoint.needs_service());
        if needed {
            self.bell.awake();
        }
        !needed
    }

    /// The bell was rung.
    pub fn woken(&self) {
        self.bell.awake();
    }

    /// Takes the promise back and serves what was pushed on the strength of it. Waits for the tokens.
    pub fn finish(mut self) {
        self.bell.leave();
        for endpoint in &self.endpoints {
            endpoint.drain();
        }
        self.served_out = true;
    }
}

/// A worker that goes without [`Rounds::finish`], by a panic of a device, leaves no caller waiting:
/// what is queued is answered with all ones.
impl Drop for Rounds {
    fn drop(&mut self) {
        if self.served_out {
            return;
        }
        self.bell.leave();
        for endpoint in &self.endpoints {
            endpoint.discard();
        }
    }
}
