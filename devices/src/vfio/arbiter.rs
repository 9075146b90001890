//! The kernel's arbiter of the legacy VGA ranges, `/dev/vga_arbiter` (Linux,
//! Documentation/gpu/vgaarbiter.rst): which card of the host the bridges lead them to.
//!
//! One command is one write. VFIO takes the card's lock for each access to region 8 by itself; a
//! lock that is taken here nests with those, so that nobody else's card gets the ranges in between.
//!
//! `trylock` is never used: its result is the wrong way round in Linux 6.12 to 7.1, and the lock that it
//! takes is lost.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

use crate::pci::PciAddress;

/// The device node.
pub const NODE: &str = "/dev/vga_arbiter";
/// The longest line that the kernel gives.
const LINE: usize = 128;

/// Who decides about the legacy ranges.
pub trait Legacy {
    /// Takes the ranges for the card, and keeps them. Sleeps while somebody else holds them, where no
    /// signal ends it: only for a process that nobody waits for.
    ///
    /// # Errors
    /// The card is gone.
    fn lock(&mut self) -> io::Result<()>;

    /// Lets others have them. They stay with the card until somebody wants them.
    ///
    /// # Errors
    /// The card is gone, or they were not held.
    fn unlock(&mut self) -> io::Result<()>;

    /// Gives them to the host's own console, if that is another card. Not while they are held, since that
    /// would wait for ourselves. Sleeps as [`Legacy::lock`] does.
    ///
    /// # Errors
    /// A card is gone.
    fn hand_over(&mut self) -> io::Result<()>;
}

/// The arbiter, and one card of the host.
#[derive(Debug)]
pub struct Arbiter {
    file: File,
    card: PciAddress,
    /// The host's default card is another one, and decodes the ranges: its text console is not
    /// arbitrated, and shows only while they lead there.
    console: bool,
}

impl Arbiter {
    /// Opens the arbiter at `node` for `card`.
    ///
    /// # Errors
    /// There is none, it may not be opened, or it does not know the card.
    pub fn open(node: &Path, card: PciAddress) -> io::Result<Arbiter> {
        let flags = OFlags::CLOEXEC.bits().cast_signed();
        Arbiter::of(OpenOptions::new().read(true).write(true).custom_flags(flags).open(node)?, card)
    }

    /// The same of a descriptor of it that somebody else opened.
    ///
    /// # Errors
    /// It is none, or does not know the card.
    pub fn of(file: File, card: PciAddress) -> io::Result<Arbiter> {
        let mut arbiter = Arbiter { file, card, console: false };
        // A host without a default card has no console there.
        if arbiter.target("default").is_ok() {
            arbiter.console = is_console(&arbiter.line()?, card);
        }
        arbiter.target_card()?;
        Ok(arbiter)
    }

    /// One that knows nothing.
    #[cfg(test)]
    pub(super) fn blind(file: File, card: PciAddress) -> Arbiter {
        Arbiter { file, card, console: false }
    }

    /// The descriptor, for the process that shall hold it.
    pub fn into_fd(self) -> OwnedFd {
        self.file.into()
    }

    /// What the kernel says of the target.
    fn line(&mut self) -> io::Result<String> {
        let mut line = [0; LINE];
        let read = self.file.read(&mut line)?;
        Ok(String::from_utf8_lossy(line.get(..read).unwrap_or_default()).into_owned())
    }

    fn target_card(&mut self) -> io::Result<()> {
        self.target(&format!("PCI:{}", self.card))
    }

    fn target(&mut self, card: &str) -> io::Result<()> {
        self.say(&format!("target {card}"))
    }

    /// One write, which the kernel takes whole or not at all.
    fn say(&mut self, command: &str) -> io::Result<()> {
        self.file.write(command.as_bytes()).map(drop)
    }
}

impl Legacy for Arbiter {
    fn lock(&mut self) -> io::Result<()> {
        self.say("lock io+mem")
    }

    fn unlock(&mut self) -> io::Result<()> {
        self.say("unlock io+mem")
    }

    fn hand_over(&mut self) -> io::Result<()> {
        if !self.console {
            return Ok(());
        }
        self.target("default")?;
        let moved = self.lock().and_then(|()| self.unlock());
        self.target_card().and(moved)
    }
}

/// Whether what the arbiter says of the host's default card is of another one that decodes the ranges.
fn is_console(line: &str, card: PciAddress) -> bool {
    let fields = || line.trim_end().split(',');
    let decodes = fields().find_map(|field| field.strip_prefix("decodes="));
    let default = fields().find_map(|field| field.strip_prefix("PCI:")?.parse::<PciAddress>().ok());
    default.is_some_and(|default| default != card) && decodes.is_some_and(|what| what != "none")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_card_is_a_console_if_it_is_another_one_that_decodes() {
        let card = "0000:01:00.0".parse().unwrap();
        let line = |address: &str, decodes: &str| {
            format!("count:3,PCI:{address},decodes={decodes},owns=none,locks=none(0:0)\n")
        };
        assert!(is_console(&line("0000:00:01.0", "io+mem"), card));
        assert!(is_console(&line("0000:00:01.0", "mem"), card));
        assert!(!is_console(&line("0000:00:01.0", "none"), card));
        assert!(!is_console(&line("0000:01:00.0", "io+mem"), card));
        assert!(!is_console("invalid", card) && !is_console("", card));
    }
}
