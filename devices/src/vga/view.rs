//! The screen of an adapter, in this process or another.

use std::fs::File;
use std::io;

use super::scanout::{self, Frame, Text};
use super::snapshot::{Malformed, Snapshot};
use super::spec::VRAM_SIZE;
use super::{Adapter, Shared, adapter};

/// The two memory files of an adapter, mapped: looking at the screen costs the adapter nothing.
#[derive(Clone, Debug)]
pub struct View {
    screen: Shared,
    framebuffer: Shared,
}

impl View {
    /// The screen of an adapter in this process.
    pub fn of(adapter: &Adapter) -> View {
        View { screen: adapter.screen().clone(), framebuffer: adapter.framebuffer().clone() }
    }

    /// The screen of an adapter in another process, by the descriptors of its region
    /// [`SCREEN`](super::SCREEN) and its BAR 0.
    ///
    /// # Errors
    /// The files are not what an adapter offers, or cannot be mapped.
    pub fn open(screen: File, framebuffer: File) -> io::Result<View> {
        let screen = Shared::open(screen, adapter::SCREEN_SIZE)?;
        Ok(View { screen, framebuffer: Shared::open(framebuffer, VRAM_SIZE)? })
    }

    /// The registers now.
    ///
    /// # Errors
    /// The other process did not leave a valid snapshot there.
    pub fn snapshot(&self) -> Result<Snapshot, Malformed> {
        Snapshot::from_page(self.screen.bytes())
    }

    /// The characters on the screen; `None` in graphics modes and while it is off.
    ///
    /// # Errors
    /// The other process did not leave a valid snapshot there.
    pub fn text(&self) -> Result<Option<Text>, Malformed> {
        Ok(scanout::text(&self.snapshot()?, self.framebuffer.bytes()))
    }

    /// The picture on the screen.
    ///
    /// # Errors
    /// The other process did not leave a valid snapshot there.
    pub fn frame(&self) -> Result<Frame, Malformed> {
        Ok(scanout::frame(&self.snapshot()?, self.framebuffer.bytes()))
    }
}
