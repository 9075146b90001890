//! The interrupt of a virtio function: the ISR status register and the INTx line that follows it
//! (section 4.1.4.5).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::SeqCst};

use crate::host::IrqLine;

/// ISR: the queue has used buffers.
pub(super) const QUEUE: u8 = 1;
/// ISR: the configuration or the device status changed.
pub(super) const CONFIG: u8 = 2;

/// Raised by the task, acknowledged by the guest, without a lock between them.
pub(super) struct Interrupt {
    isr: AtomicU8,
    /// The COMMAND register keeps INTx off.
    disabled: AtomicBool,
    line: Arc<dyn IrqLine>,
}

impl Interrupt {
    pub(super) fn new(line: Arc<dyn IrqLine>) -> Interrupt {
        Interrupt { isr: AtomicU8::new(0), disabled: AtomicBool::new(false), line }
    }

    /// Sets `causes`, [`QUEUE`] or [`CONFIG`].
    pub(super) fn raise(&self, causes: u8) {
        // With a cause pending, whoever set it sees to the line.
        if self.isr.fetch_or(causes, SeqCst) == 0 {
            self.follow();
        }
    }

    /// Gives the causes and clears them.
    pub(super) fn acknowledge(&self) -> u8 {
        let causes = self.isr.swap(0, SeqCst);
        if causes != 0 {
            self.follow();
        }
        causes
    }

    /// Whether a cause is pending, on the line or not.
    pub(super) fn is_pending(&self) -> bool {
        self.isr.load(SeqCst) != 0
    }

    /// Keeps the line low, or lets it follow the causes again.
    pub(super) fn set_disabled(&self, disabled: bool) {
        if self.disabled.swap(disabled, SeqCst) != disabled {
            self.follow();
        }
    }

    fn level(&self) -> bool {
        self.is_pending() && !self.disabled.load(SeqCst)
    }

    /// Sets the line to what it should be. Two threads may be here at once, and the one that looked
    /// first may set last: so each looks again after it has set, until nothing has changed.
    fn follow(&self) {
        loop {
            let level = self.level();
            self.line.set(level);
            if self.level() == level {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::testing::Line;

    #[test]
    fn the_line_follows_causes_and_mask() {
        let line = Arc::new(Line::default());
        let interrupt = Interrupt::new(line.clone());
        interrupt.raise(QUEUE);
        assert!(line.level());
        interrupt.set_disabled(true);
        assert!(!line.level() && interrupt.is_pending());
        interrupt.set_disabled(false);
        assert!(line.level());
        assert_eq!(interrupt.acknowledge(), QUEUE);
        assert!(!line.level());
        assert_eq!(interrupt.acknowledge(), 0);
    }

    #[test]
    fn two_threads_leave_the_line_as_the_causes_are() {
        let line = Arc::new(Line::default());
        let interrupt = Interrupt::new(line.clone());
        for _ in 0..2000 {
            std::thread::scope(|scope| {
                scope.spawn(|| interrupt.raise(QUEUE));
                interrupt.acknowledge();
            });
            assert_eq!(line.level(), interrupt.is_pending());
            interrupt.acknowledge();
        }
    }
}
