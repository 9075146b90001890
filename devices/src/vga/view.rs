//! The screen of an adapter, in this process or another.

use std::sync::Arc;

use vm_memory::{MmapRegion, VolatileMemory, VolatileSlice};

use super::scanout::{self, Frame, Text};
use super::snapshot::{Malformed, Snapshot};
use super::spec::VRAM_SIZE;
use super::{Adapter, SCREEN_SIZE};

/// The two memories of an adapter: looking at the screen costs the adapter nothing.
#[derive(Clone, Debug)]
pub struct View {
    screen: Arc<MmapRegion>,
    framebuffer: Arc<MmapRegion>,
}

impl View {
    /// The screen of an adapter in this process.
    pub fn of(adapter: &Adapter) -> View {
        let memory = |shared: &super::Shared| Arc::clone(shared.memory());
        View { screen: memory(adapter.screen()), framebuffer: memory(adapter.framebuffer()) }
    }

    /// The screen of an adapter in another process, by its region [`SCREEN`](super::SCREEN) and its
    /// BAR 0, as they are mapped here. `None` if the sizes are not those of an adapter.
    pub fn new(screen: Arc<MmapRegion>, framebuffer: Arc<MmapRegion>) -> Option<View> {
        (screen.size() == SCREEN_SIZE && framebuffer.size() == VRAM_SIZE)
            .then_some(View { screen, framebuffer })
    }

    /// The registers now.
    ///
    /// # Errors
    /// The other process did not leave a valid snapshot there.
    pub fn snapshot(&self) -> Result<Snapshot, Malformed> {
        Snapshot::from_page(self.screen.as_volatile_slice())
    }

    /// The characters on the screen; `None` in graphics modes and while it is off.
    ///
    /// # Errors
    /// The other process did not leave a valid snapshot there.
    pub fn text(&self) -> Result<Option<Text>, Malformed> {
        Ok(scanout::text(&self.snapshot()?, self.vram()))
    }

    /// The picture on the screen.
    ///
    /// # Errors
    /// The other process did not leave a valid snapshot there.
    pub fn frame(&self) -> Result<Frame, Malformed> {
        Ok(scanout::frame(&self.snapshot()?, self.vram()))
    }

    fn vram(&self) -> VolatileSlice<'_> {
        self.framebuffer.as_volatile_slice()
    }
}
