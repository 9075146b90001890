//! The thread that serves posted writes and what else is asynchronous.

use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;

use crate::doorbell::Doorbell;
use crate::endpoint::Endpoint;

/// A future that a worker drives on its tokio-uring runtime until it ends or the worker stops. It is
/// made on the worker's thread, so it need not be `Send`.
pub type Task = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// An endpoint that a worker serves.
#[derive(Debug)]
pub struct Served {
    /// Whose queue it drains when the doorbell rings.
    pub endpoint: Arc<Endpoint>,
    /// A descriptor to watch: readable means [`crate::Device::attend`] is called.
    pub attention: Option<OwnedFd>,
}

/// A worker thread.
#[derive(Debug)]
pub struct Worker {}

impl Worker {
    /// Starts a thread called `name` that serves these endpoints, all rung by `bell`, and drives
    /// these tasks.
    ///
    /// # Errors
    /// The thread or its ring could not be made.
    pub fn start(
        _name: &str,
        _bell: Arc<Doorbell>,
        _served: Vec<Served>,
        _tasks: Vec<Task>,
    ) -> std::io::Result<Worker> {
        Ok(Worker {})
    }

    /// Drains what is queued, drops the tasks and joins the thread.
    pub fn stop(self) {}
}
