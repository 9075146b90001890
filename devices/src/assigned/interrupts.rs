//! How a function interrupts: by its line, by MSI or by MSI-X, whichever its registers ask for.
//!
//! The device always signals in the way that the guest has chosen, never in another that is
//! translated: what acknowledges an interrupt in the device differs between them. A change takes the
//! old way down before it sets the new one up.
//!
//! All of it runs with the function's token held, so after every access that came before.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::backend::{Backend, Irqs, Signalled};
use super::config::Config;
use super::msi::Msi;
use super::msix::Msix;
use super::options::Messages;
use super::registers::Registers;
use super::wire::Wire;
use crate::host::{self, Level};
use crate::pci::{ConfigSpace, Pin, spec};
use crate::seen::{Seen, Signalling};

mod table;

/// A way to interrupt, as the registers ask for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Not at all.
    Off,
    /// By the line of this pin.
    Intx(Pin),
    /// By that many messages.
    Msi(u16),
    /// By the table.
    Msix,
}

/// What is said once of a function, however often it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Intx,
    Messages,
    Fewer,
    Route,
}

/// The ways to interrupt that the guest sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offered {
    /// An INTx pin.
    pub line: bool,
    /// The MSI capability.
    pub msi: bool,
    /// The MSI-X capability.
    pub msix: bool,
}

/// See the module's page.
pub(super) struct Interrupts {
    host: Option<Arc<dyn host::Interrupts>>,
    device: String,
    /// What the guest does with it is noted there.
    seen: Arc<Seen>,
    irqs: Irqs,
    msi: Option<Msi>,
    pub msix: Option<Msix>,
    /// What was asked for last, set up as far as host and device let it be.
    mode: Mode,
    line: Option<Box<dyn Level>>,
    /// MSI's vectors.
    wires: Vec<Wire>,
    /// The host has no more vectors for the table, as far as is known.
    exhausted: bool,
    told: Vec<Trouble>,
}

impl fmt::Debug for Interrupts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interrupts").field("device", &self.device).field("mode", &self.mode).finish()
    }
}

impl Interrupts {
    /// Shows in `config` what of the device's interrupts the host can take. None of it is connected
    /// before [`Interrupts::settle`].
    pub fn new(
        config: &mut Config,
        registers: &Registers,
        backend: &dyn Backend,
        (host, shown): (Option<Arc<dyn host::Interrupts>>, Messages),
        seen: Arc<Seen>,
        bars: &[u64; 6],
    ) -> Interrupts {
        hide(config, registers, shown);
        let irqs = if host.is_some() { backend.irqs() } else { Irqs::default() };
        let device = backend.name().to_owned();
        let msi = config.msi.and_then(|at| Msi::add(config, registers, at, irqs.msi));
        let msix = config.msix.and_then(|at| match Msix::add(config, registers, at, irqs.msix, bars) {
            Ok(msix) => Some(msix),
            Err(why) => {
                if host.is_some() {
                    tracing::warn!(device, "the guest does not see its MSI-X: {why}");
                }
                None
            }
        });
        Interrupts {
            host,
            device,
            seen,
            irqs,
            msi,
            msix,
            mode: Mode::Off,
            line: None,
            wires: Vec::new(),
            exhausted: false,
            told: Vec::new(),
        }
    }

    /// What the guest sees in `space`.
    pub fn offered(&self, space: &ConfigSpace) -> Offered {
        let line = space.byte(spec::INTERRUPT_PIN) != 0;
        Offered { line, msi: self.msi.is_some(), msix: self.msix.is_some() }
    }

    /// Whether a write to the dword at `at` may ask for something else.
    pub fn depend_on(&self, at: u16) -> bool {
        self.msi.is_some_and(|msi| msi.holds(at)) || self.msix.as_ref().is_some_and(|msix| msix.holds(at))
    }

    /// Whether the registers ask for the line: its interrupt is acknowledged by an access to the device, and
    /// unmasked without one.
    pub fn by_line(&self, space: &ConfigSpace) -> bool {
        matches!(self.wanted(space), Mode::Intx(_)) && !space.command().interrupt_disable()
    }

    /// Does what the registers ask for.
    pub fn settle(&mut self, space: &ConfigSpace, backend: &mut dyn Backend) {
        let wanted = self.wanted(space);
        if wanted != self.mode {
            self.disconnect(backend);
            self.mode = wanted;
            match wanted {
                Mode::Off => {}
                Mode::Intx(pin) => self.connect_line(backend, pin),
                Mode::Msi(messages) => self.connect_messages(backend, messages),
                Mode::Msix => self.connect_table(space, backend),
            }
        }
        match wanted {
            Mode::Msi(messages) => self.follow_messages(space, messages),
            Mode::Msix => self.follow_table(space, backend),
            Mode::Off | Mode::Intx(_) => {}
        }
        self.note(space);
    }

    /// Lets the next [`Interrupts::settle`] ask once more for messages of which the device has connected none: the
    /// kernel refuses them while it sleeps.
    pub fn ask_again(&mut self) {
        let refused = match self.mode {
            Mode::Msi(_) => self.wires.is_empty(),
            Mode::Msix => !self.any_connected(),
            Mode::Off | Mode::Intx(_) => false,
        };
        if refused {
            self.mode = Mode::Off;
        }
    }

    /// Notes how the function interrupts, after a write to COMMAND too. One that has had a message unmasked
    /// counts as interrupting by messages until it goes over to another way: a driver may mask them often.
    pub fn note(&self, space: &ConfigSpace) {
        let now = self.seen.signalling();
        self.seen.signals(match self.mode {
            Mode::Intx(_) if self.line.is_some() && self.by_line(space) => Signalling::Line,
            Mode::Msi(_) if now == Signalling::Msi || self.wires.iter().any(Wire::delivers) => {
                Signalling::Msi
            }
            Mode::Msix if now == Signalling::Msix || self.any_delivers() => Signalling::Msix,
            _ => Signalling::Off,
        });
    }

    /// Takes everything down, until the next [`Interrupts::settle`].
    pub fn disconnect(&mut self, backend: &mut dyn Backend) {
        // A device that is gone signals nothing, so a refusal leaves nothing to be done.
        let _ = match std::mem::replace(&mut self.mode, Mode::Off) {
            Mode::Intx(_) if self.line.is_some() => backend.disable_intx(),
            Mode::Msi(_) if !self.wires.is_empty() => backend.disable_vectors(Signalled::Msi),
            Mode::Msix if self.any_connected() => backend.disable_vectors(Signalled::Msix),
            _ => Ok(()),
        };
        self.seen.signals(Signalling::Off);
        self.line = None;
        self.wires.clear();
        self.exhausted = false;
        if let Some(msix) = &mut self.msix {
            msix.disconnect();
        }
    }

    /// Back to power-on, after [`Interrupts::disconnect`].
    pub fn reset(&mut self) {
        if let Some(msix) = &mut self.msix {
            msix.reset();
        }
    }

    /// Brings the pending bits of MSI up to date, before a read of the dword at `at`.
    pub fn refresh(&self, config: &mut Config, at: u16) {
        let Some(place) = self.msi.and_then(Msi::pending).filter(|place| at & !3 == *place & !3) else {
            return;
        };
        let wires = self.wires.iter().enumerate().filter(|(_, wire)| wire.pending());
        let bits = wires.fold(0_u32, |bits, (index, _)| bits | 1 << (index & 31));
        config.space_mut().set(place, trapline_io::Width::B4, bits);
    }

    fn wanted(&self, space: &ConfigSpace) -> Mode {
        if self.msix.as_ref().is_some_and(|msix| msix.enabled(space)) {
            return Mode::Msix;
        }
        match self.msi.map_or(0, |msi| msi.messages(space)) {
            0 => space
                .byte(spec::INTERRUPT_PIN)
                .checked_sub(1)
                .map_or(Mode::Off, |pin| Mode::Intx(Pin::of(pin))),
            messages => Mode::Msi(messages),
        }
    }

    fn connect_line(&mut self, backend: &mut dyn Backend, pin: Pin) {
        let line = match self.host.as_ref().map(|host| host.line(pin)) {
            Some(Ok(line)) => line,
            Some(Err(error)) => return self.tell(Trouble::Intx, &error),
            None => return,
        };
        match backend.enable_intx(line.trigger(), line.resample()) {
            Ok(()) => self.line = Some(line),
            Err(_) => self.tell(Trouble::Intx, &"the device refuses"),
        }
    }

    /// Connects as many messages as host and device have, at most `messages`. A function that has
    /// fewer than it asked for uses the ones it has (PCI 3.0 section 6.8.1.3).
    fn connect_messages(&mut self, backend: &mut dyn Backend, messages: u16) {
        let mut count = messages;
        let mut refusal = "the device refuses".to_owned();
        while count > 0 {
            match self.make(count.into()) {
                Ok(wires) => {
                    let fds: Vec<_> = wires.iter().map(Wire::fd).collect();
                    if backend.enable_vectors(Signalled::Msi, 0, &fds).is_ok() {
                        drop(fds);
                        self.wires = wires;
                        break;
                    }
                }
                Err(error) => refusal = error.to_string(),
            }
            count /= 2;
        }
        match count {
            0 => self.tell(Trouble::Messages, &refusal),
            count if count < messages => {
                self.tell(Trouble::Fewer, &format_args!("{count} of {messages} messages"));
            }
            _ => {}
        }
    }

    fn follow_messages(&mut self, space: &ConfigSpace, messages: u16) {
        let Some(msi) = self.msi else { return };
        let mut failed = None;
        for (index, wire) in (0..).zip(&mut self.wires) {
            let message = msi.message(space, index, messages);
            failed = wire.follow(message).err().or(failed);
        }
        if let Some(error) = failed {
            self.tell(Trouble::Route, &error);
        }
    }

    /// `count` vectors of the host's.
    fn make(&self, count: usize) -> io::Result<Vec<Wire>> {
        let host = self.host.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let vectors = host.vectors(count)?;
        if vectors.len() < count {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        Ok(vectors.into_iter().take(count).map(Wire::new).collect())
    }

    /// Says what a guest's driver will miss, once.
    fn tell(&mut self, what: Trouble, why: &dyn fmt::Display) {
        if self.told.contains(&what) {
            return;
        }
        self.told.push(what);
        let device = &self.device;
        match what {
            Trouble::Intx => tracing::warn!(device, "its INTx cannot be connected: {why}"),
            Trouble::Messages => {
                tracing::warn!(device, "its message signalled interrupts cannot be connected: {why}");
            }
            Trouble::Fewer => {
                tracing::warn!(device, "the host connects fewer interrupts than the guest enabled: {why}");
            }
            Trouble::Route => tracing::warn!(device, "an interrupt of it cannot be routed: {why}"),
        }
    }
}

/// Keeps from the guest what it is not shown.
fn hide(config: &mut Config, registers: &Registers, shown: Messages) {
    if !shown.msi()
        && let Some(at) = config.msi.take()
    {
        Msi::hide(config, registers, at);
    }
    if !shown.msix()
        && let Some(at) = config.msix.take()
    {
        Msix::hide(config, at);
    }
}

/// The eventfds of vectors in their order.
fn eventfds<'a>(wires: impl Iterator<Item = &'a Wire>) -> Vec<BorrowedFd<'a>> {
    wires.map(Wire::fd).collect()
}
