//! A thread that sleeps until somebody calls it, ends when it is told to, and is waited for, but not for ever.
//!
//! ```text
//!   whoever calls -- Thread::unpark --> the thread: until StopFlag::is_set { work; park }, farewell
//!   StoppableThread, dropped -- set, unpark, wait for so long -------^
//! ```

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

/// By which a thread is told to end.
#[derive(Clone, Debug, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// Whether the thread is to end. It looks between two pieces of work, and each time that it wakes.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// How long a thread may take to end, and what is told of one that takes longer.
#[derive(Clone, Copy, Debug)]
pub struct Farewell {
    /// The longest wait for it.
    pub longest: Duration,
    /// Told as an error if it does not end.
    pub hangs: &'static str,
}

/// The thread. Dropping this has it end, and waits for that as long as its [`Farewell`] says.
#[derive(Debug)]
pub struct StoppableThread {
    thread: Thread,
    /// Taken when it is waited for.
    handle: Option<JoinHandle<()>>,
    stop: StopFlag,
    /// Closed when the thread has ended.
    ended: Receiver<()>,
    farewell: Farewell,
}

impl StoppableThread {
    /// Starts a thread of this name that does `work`.
    ///
    /// # Errors
    /// The system refuses the thread.
    pub fn start(
        name: &str,
        farewell: Farewell,
        work: impl FnOnce(&StopFlag) + Send + 'static,
    ) -> io::Result<StoppableThread> {
        let stop = StopFlag::default();
        let flag = stop.clone();
        let (running, ended) = channel();
        let handle = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            // Closed by a panic too.
            let _running = running;
            work(&flag);
        })?;
        let thread = handle.thread().clone();
        Ok(StoppableThread { thread, handle: Some(handle), stop, ended, farewell })
    }

    /// By which it is called: [`Thread::unpark`].
    #[must_use]
    pub fn thread(&self) -> &Thread {
        &self.thread
    }
}

impl Drop for StoppableThread {
    fn drop(&mut self) {
        let Some(handle) = self.handle.take() else { return };
        self.stop.0.store(true, Ordering::Release);
        self.thread.unpark();
        let name = self.thread.name().unwrap_or_default();
        match self.ended.recv_timeout(self.farewell.longest) {
            Err(RecvTimeoutError::Timeout) => {
                tracing::error!("the thread {name} does not end: {}", self.farewell.hangs);
            }
            _ if handle.join().is_err() => tracing::error!("the thread {name} panicked"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const LONG: Farewell = Farewell { longest: Duration::from_secs(60), hangs: "a test" };

    #[test]
    fn it_works_when_it_is_called_and_ends_with_its_last_word() {
        let (tell, told) = channel();
        let thread = StoppableThread::start("called", LONG, move |stop| {
            while !stop.is_set() {
                std::thread::park();
                tell.send(std::thread::current().name() == Some("called")).unwrap();
            }
            // Somebody who is waited for may take his time.
            std::thread::sleep(Duration::from_millis(50));
            tell.send(false).unwrap();
        });
        let thread = thread.unwrap();
        assert!(told.recv_timeout(Duration::from_millis(20)).is_err(), "nobody has called");
        thread.thread().unpark();
        assert_eq!(told.recv_timeout(LONG.longest), Ok(true));
        drop(thread);
        assert_eq!(told.iter().last(), Some(false), "it was not waited for");
    }

    #[test]
    fn one_that_hangs_is_waited_for_so_long_and_no_longer() {
        let (free, wait) = channel::<()>();
        let farewell = Farewell { longest: Duration::from_millis(50), ..LONG };
        let thread = StoppableThread::start("hangs", farewell, move |_| {
            let _ = wait.recv();
        })
        .unwrap();
        let begun = Instant::now();
        drop(thread);
        assert!((farewell.longest..LONG.longest).contains(&begun.elapsed()));
        drop(free);
    }

    #[test]
    fn one_that_panicked_hinders_nobody() {
        let thread = StoppableThread::start("panics", LONG, |_| panic!("on purpose")).unwrap();
        let begun = Instant::now();
        drop(thread);
        assert!(begun.elapsed() < LONG.longest);
    }
}
