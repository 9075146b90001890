//! How the host looks at what an adapter shows.

use std::fs::File;
use std::sync::Arc;

use parking_lot::Mutex;
use trapline_io::endpoint::Endpoint;
use trapline_io::{Region, Width};
use vm_memory::MmapRegion;

/// A write of a region number here copies that region for the host.
pub(super) const CAPTURE: Region = Region(0xf1);

/// The first region that a device may have for itself; the software adapter describes its screen there.
pub const SCREEN: Region = Region(9);

/// The largest region that is copied.
const MAX: u64 = 16 << 20;

/// Where the function puts what it copied. Locked only to move the bytes in or out.
pub(super) type Shared = Arc<Mutex<Option<Vec<u8>>>>;

/// A second handle on a function: the device's description of its screen, and its frame buffer.
#[derive(Clone, Debug)]
pub struct Screen {
    pub(super) captured: Shared,
    pub(super) description: Option<Arc<MmapRegion>>,
    pub(super) frame_buffer: Option<Arc<MmapRegion>>,
}

impl Screen {
    /// The frame buffer, BAR 0, if it is mapped: the same memory that the guest draws into.
    pub fn frame_buffer(&self) -> Option<&Arc<MmapRegion>> {
        self.frame_buffer.as_ref()
    }

    /// The description, if it is mapped: looking at it costs the device nothing.
    pub fn description(&self) -> Option<&Arc<MmapRegion>> {
        self.description.as_ref()
    }

    /// Duplicates of the descriptors of the description and of the frame buffer, where each is a
    /// whole file that is mapped.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn files(&self) -> std::io::Result<Option<(File, File)>> {
        match (file(self.description.as_ref()), file(self.frame_buffer.as_ref())) {
            (Some(description), Some(frame_buffer)) => {
                Ok(Some((description.try_clone()?, frame_buffer.try_clone()?)))
            }
            _ => Ok(None),
        }
    }

    /// Reads the description where it is not mapped: as one message where the device is behind a
    /// socket, in the order of the function's queue. `endpoint` is the one that owns this function.
    /// `None` when the device fails. Waits like any access.
    pub fn capture(&self, endpoint: &Endpoint) -> Option<Vec<u8>> {
        endpoint.with_device(|device| {
            let region = u64::from(SCREEN.0);
            device.write(CAPTURE, 0, Width::B1, region).ok()?;
            self.captured.lock().take()
        })
    }
}

fn file(memory: Option<&Arc<MmapRegion>>) -> Option<&File> {
    let whole = memory?.file_offset().filter(|file| file.start() == 0)?;
    Some(whole.file())
}

/// How many bytes of a region of this size are copied.
pub(super) fn length(size: u64) -> usize {
    usize::try_from(size.min(MAX)).unwrap_or(0)
}
