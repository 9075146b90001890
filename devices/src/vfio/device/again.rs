//! Bringing a device back to the state of power-on.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use trapline_io::Fault;

use super::Device;
use crate::pci::spec::Command;
use crate::vfio::bus_reset;
use crate::vfio::owned::Owned;
use crate::vfio::reset::{self, Bus, Method, bonaire};

/// How long a device may take to answer after the kernel found that it was reset.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at it.
const PAUSE: Duration = Duration::from_millis(10);

impl Device {
    /// Resets by the best way there is now, and sees that it worked.
    pub(super) fn start_again(&mut self) -> Result<(), Fault> {
        // The bus was reset for one of the others, and this one was not touched since.
        if self.function.fresh.swap(false, Relaxed) {
            return Ok(());
        }
        self.set_command(Command::new()).map_err(|fault| self.look_after(fault))?;
        if self.way(&self.iommu.owned()) == Method::Own {
            match bonaire::reset(self) {
                Ok(()) => return self.verify(&Method::Own),
                Err(why) => {
                    tracing::warn!(device = self.name, "its own controller cannot reset it: {why}");
                    self.facts.own = false;
                }
            }
        }
        let mut method = self.reset_now();
        if let Err((Method::Bus(_), errno)) = method {
            // A device that cannot be reset is used all the same, so one whose bus cannot be is too.
            let rest =
                if self.facts.kernel { "only its power state is changed" } else { "it keeps its state" };
            tracing::warn!(device = self.name, "its bus could not be reset ({errno}), so from now on {rest}");
            self.bus_failed = true;
            method = if self.facts.kernel { self.reset_now() } else { Ok(self.way(&self.iommu.owned())) };
        }
        let method = method.map_err(|(method, errno)| {
            self.refuses("be reset", || format!("its reset failed ({method}): {errno}"));
            self.look_after(Fault::Failed)
        })?;
        tracing::debug!(device = self.name, "reset: {method}");
        self.verify(&method)
    }

    /// The best way there is now: what is ours may have become more since the device was opened.
    pub(super) fn way(&self, owned: &Owned) -> Method {
        match &self.method {
            Method::Function(_) => self.method.clone(),
            _ if self.bus_failed => reset::plan(&self.facts, &Bus::Impossible),
            _ => reset::plan(&self.facts, &bus_reset::affected(&self.function.file, owned)),
        }
    }

    fn reset_now(&self) -> Result<Method, (Method, Errno)> {
        // Kept for the whole of it: two resets of one bus at a time would help nobody.
        let mut owned = self.iommu.owned();
        let method = self.way(&owned);
        if let Err(errno) = self.reset_by(&method, &owned) {
            return Err((method, errno));
        }
        if let Method::Bus(all) = &method {
            owned.refreshed(all.iter().copied().filter(|address| *address != self.function.address));
        }
        Ok(method)
    }

    fn reset_by(&self, method: &Method, owned: &Owned) -> Result<(), Errno> {
        let file = &self.function.file;
        let start = Instant::now();
        loop {
            let done = match method {
                Method::Function(_) | Method::Power => file.reset(),
                Method::Bus(_) => bus_reset::carry_out(file, owned),
                Method::Own | Method::None(_) => Err(Errno::OPNOTSUPP),
            };
            match done {
                // Somebody looks at it in sysfs.
                Err(Errno::AGAIN) if start.elapsed() < PATIENCE => std::thread::sleep(PAUSE),
                Err(Errno::INTR) => {}
                done => return done,
            }
        }
    }

    /// Waits for the device to answer, decoding nothing.
    fn verify(&mut self, method: &Method) -> Result<(), Fault> {
        let start = Instant::now();
        loop {
            let answers = self.answers();
            let decodes =
                self.command().map(|command| command.io() || command.memory() || command.bus_master());
            if answers && decodes == Ok(false) {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                let text = if answers {
                    "decodes addresses after its reset, which it should not".to_owned()
                } else {
                    format!(
                        "does not come back from its reset ({method}): a power cycle of the host may be needed"
                    )
                };
                self.die(&text);
                return Err(Fault::Failed);
            }
            std::thread::sleep(PAUSE);
        }
    }
}
