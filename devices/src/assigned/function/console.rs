//! The host's console, on a card that is shared with it in time.

use trapline_io::{Fault, Region, Width};

use super::Function;
use super::regions;
use crate::assigned::backend::Backend;
use crate::legacy::picture::Picture;
use crate::pci::spec::{self, Command};

impl<B: Backend> Function<B> {
    /// Keeps what stands on the screen. A card that can be reset was, and shows nothing.
    pub(super) fn take_picture(&mut self) {
        if self.backend.resettable() {
            return;
        }
        let bochs = self.quirks.has(regions::DISPI);
        let taken = self.decoding(|card| Picture::take(card, bochs));
        match taken {
            Ok(picture) => self.picture = picture,
            Err(_) => {
                tracing::warn!(device = self.backend.name(), "what stands on its screen cannot be read")
            }
        }
        let kept = self.picture.is_some();
        tracing::debug!(device = self.backend.name(), kept, "the text of the host's console");
    }

    /// Puts back what stood on the screen.
    pub(super) fn picture_back(&mut self) {
        let Some(picture) = self.picture.take().filter(|_| !self.backend.is_dead()) else { return };
        let bochs = self.quirks.has(regions::DISPI);
        if self.decoding(|card| picture.put_back(card, bochs)).is_err() {
            tracing::warn!(device = self.backend.name(), "the host's text cannot be put back on its screen");
        }
    }

    /// Does something while the device decodes ports and memory; its COMMAND register is written anew behind it.
    fn decoding<T>(&mut self, work: impl FnOnce(&mut B) -> Result<T, Fault>) -> Result<T, Fault> {
        let command = Command::new().with_io(true).with_memory(true);
        let command = u64::from(command.into_bits());
        self.backend.write(Region::CONFIG, spec::COMMAND.into(), Width::B2, command)?;
        let done = work(&mut self.backend);
        self.forward_command().and(done)
    }
}
