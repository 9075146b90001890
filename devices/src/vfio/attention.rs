//! What a device, or the host about it, tells on its own: that it failed, that it is wanted back.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{EventfdFlags, epoll, eventfd};

use super::irq::{self, Index};
use super::sys::DeviceFile;

/// An eventfd for each kind that the device has, and one descriptor to watch them all.
#[derive(Debug)]
pub(super) struct Attention {
    watch: OwnedFd,
    error: Option<OwnedFd>,
    request: Option<OwnedFd>,
}

/// What was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// The device failed.
    pub error: bool,
    /// The host wants it back.
    pub request: bool,
}

impl Attention {
    /// Connects what there is.
    pub fn new(device: &DeviceFile) -> io::Result<Attention> {
        let watch = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let error = connect(device, Index::Error, &watch)?;
        let request = connect(device, Index::Request, &watch)?;
        Ok(Attention { watch, error, request })
    }

    /// Readable when [`Attention::take`] has something.
    pub fn watch(&self) -> io::Result<OwnedFd> {
        self.watch.try_clone()
    }

    /// Takes what was told. Does not block.
    pub fn take(&self) -> Told {
        Told { error: rang(self.error.as_ref()), request: rang(self.request.as_ref()) }
    }
}

fn connect(device: &DeviceFile, index: Index, watch: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    if irq::count(device, index).0 == 0 {
        return Ok(None);
    }
    let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    irq::connect(device, index, 0, &[bell.as_fd()])?;
    epoll::add(watch, &bell, epoll::EventData::new_u64(index as u64), epoll::EventFlags::IN)?;
    Ok(Some(bell))
}

fn rang(bell: Option<&OwnedFd>) -> bool {
    bell.is_some_and(|bell| rustix::io::read(bell, &mut [0; 8]).is_ok())
}
