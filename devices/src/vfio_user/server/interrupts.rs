//! The eventfds of a client, for the device to signal.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::IrqType;
use crate::vfio_user::wire::{IrqSet, IrqSetFlags};

/// Most interrupts of one type: what MSI-X has.
const MAX_VECTORS: u32 = 2048;

/// Where the interrupts of a device go: nowhere until a client gives eventfds. Clones are the same.
#[derive(Clone, Debug)]
pub struct Interrupts(Arc<Mutex<Vec<Vec<Option<OwnedFd>>>>>);

impl Interrupts {
    pub(super) fn new(types: &[IrqType]) -> Interrupts {
        let slots = types.iter().map(|kind| {
            let count = kind.count.min(MAX_VECTORS);
            (0..count).map(|_| None).collect()
        });
        Interrupts(Arc::new(Mutex::new(slots.collect())))
    }

    /// Signals an interrupt; false where no client listens for it. Never blocks for long.
    pub fn trigger(&self, kind: usize, vector: usize) -> bool {
        let types = self.0.lock();
        let eventfd = types.get(kind).and_then(|slots| slots.get(vector)).and_then(Option::as_ref);
        eventfd.is_some_and(signal)
    }

    /// Drops the eventfds of a client that is gone.
    pub(super) fn forget(&self) {
        for slot in self.0.lock().iter_mut().flatten() {
            *slot = None;
        }
    }

    /// Carries out `DEVICE_SET_IRQS`.
    pub(super) fn set(&self, set: &IrqSet, bools: &[u8], fds: Vec<OwnedFd>) -> Result<(), Errno> {
        let flags = IrqSetFlags::from_bits(set.flags.get());
        let data = [flags.none(), flags.bools(), flags.eventfds()];
        let actions = [flags.mask(), flags.unmask(), flags.trigger()];
        if [data, actions].iter().any(|bits| bits.iter().filter(|bit| **bit).count() != 1) {
            return Err(Errno::INVAL);
        }
        if !flags.trigger() {
            return Err(Errno::OPNOTSUPP);
        }
        let (start, count) = (set.start.get() as usize, set.count.get() as usize);
        let mut types = self.0.lock();
        let slots = types.get_mut(set.index.get() as usize).ok_or(Errno::INVAL)?;
        if flags.none() && (start, count) == (0, 0) {
            slots.fill_with(|| None);
            return Ok(());
        }
        let end = start.checked_add(count).ok_or(Errno::INVAL)?;
        let slots = slots.get_mut(start..end).ok_or(Errno::INVAL)?;
        if flags.eventfds() {
            if !fds.is_empty() && fds.len() != count {
                return Err(Errno::INVAL);
            }
            let mut fds = fds.into_iter();
            slots.fill_with(|| fds.next());
            return Ok(());
        }
        for (place, slot) in slots.iter().enumerate() {
            let wanted = flags.none() || bools.get(place).is_some_and(|byte| *byte != 0);
            if let (true, Some(fd)) = (wanted, slot) {
                signal(fd);
            }
        }
        Ok(())
    }
}

/// Adds one to the eventfd; false where it took nothing. A client may give a descriptor on which a
/// write would wait for ever, such as an eventfd at its limit: asked first. Its file is the client's
/// too, so that it is not for this side to make it non-blocking.
fn signal(eventfd: &OwnedFd) -> bool {
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut asked = [PollFd::new(eventfd, PollFlags::OUT)];
    let ready = poll(&mut asked, Some(&at_once)) == Ok(1) && asked[0].revents() == PollFlags::OUT;
    ready && rustix::io::write(eventfd, &1u64.to_ne_bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{EventfdFlags, eventfd};

    fn eventfd_count(fd: &OwnedFd) -> Option<u64> {
        let mut bytes = [0; 8];
        rustix::io::read(fd, &mut bytes).ok().map(|_| u64::from_ne_bytes(bytes))
    }

    fn set(flags: IrqSetFlags, start: u32, count: u32) -> IrqSet {
        IrqSet {
            argsz: 20.into(),
            flags: flags.into_bits().into(),
            index: 1.into(),
            start: start.into(),
            count: count.into(),
        }
    }

    #[test]
    fn a_trigger_reaches_the_eventfd_of_its_vector() {
        let types = [IrqType::default(), IrqType { count: 3, ..IrqType::default() }];
        let interrupts = Interrupts::new(&types);
        assert!(!interrupts.trigger(1, 2));
        let mine = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        let assign = IrqSetFlags::new().with_eventfds(true).with_trigger(true);
        interrupts.set(&set(assign, 2, 1), &[], vec![mine.try_clone().unwrap()]).unwrap();
        assert!(interrupts.trigger(1, 2));
        assert!(!interrupts.trigger(1, 1));
        assert!(!interrupts.trigger(7, 7));
        assert_eq!(eventfd_count(&mine), Some(1));
        let bools = IrqSetFlags::new().with_bools(true).with_trigger(true);
        interrupts.set(&set(bools, 1, 2), &[1, 0], vec![]).unwrap();
        assert_eq!(eventfd_count(&mine), None);
        interrupts.forget();
        assert!(!interrupts.trigger(1, 2));
    }

    #[test]
    fn a_descriptor_that_cannot_be_written_holds_nobody_up() {
        let types = [IrqType::default(), IrqType { count: 1, ..IrqType::default() }];
        let interrupts = Interrupts::new(&types);
        // Blocks at the next write: a client's own doing.
        let full = eventfd(0, EventfdFlags::empty()).unwrap();
        rustix::io::write(&full, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        let assign = IrqSetFlags::new().with_eventfds(true).with_trigger(true);
        interrupts.set(&set(assign, 0, 1), &[], vec![full]).unwrap();
        let (done, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let bools = IrqSetFlags::new().with_bools(true).with_trigger(true);
            let by_client = interrupts.set(&set(bools, 0, 1), &[1], vec![]);
            done.send((interrupts.trigger(1, 0), by_client)).unwrap();
        });
        let answer = told.recv_timeout(std::time::Duration::from_secs(20));
        assert_eq!(answer, Ok((false, Ok(()))));
    }

    #[test]
    fn an_impossible_set_is_refused() {
        let interrupts = Interrupts::new(&[IrqType::default(), IrqType { count: 3, ..IrqType::default() }]);
        let assign = IrqSetFlags::new().with_eventfds(true).with_trigger(true);
        assert_eq!(interrupts.set(&set(assign, 2, 2), &[], vec![]), Err(Errno::INVAL));
        assert_eq!(interrupts.set(&set(assign, u32::MAX, u32::MAX), &[], vec![]), Err(Errno::INVAL));
        assert_eq!(interrupts.set(&set(IrqSetFlags::new(), 0, 1), &[], vec![]), Err(Errno::INVAL));
        let mask = IrqSetFlags::new().with_none(true).with_mask(true);
        assert_eq!(interrupts.set(&set(mask, 0, 1), &[], vec![]), Err(Errno::OPNOTSUPP));
    }
}
