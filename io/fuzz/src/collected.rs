//! Whatever a guest writes, whether the kernel collects it, or it is posted, merged or strict, and whoever
//! drains when: the device sees it once, in the guest's order; ports alone and as wide as they were.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::width;
use arbitrary::{Arbitrary, Result, Unstructured};
use trapline_io::completion::Completions;
use trapline_io::device::{Claim, Claims, Range};
use trapline_io::doorbell::Doorbell;
use trapline_io::endpoint::{Endpoint, Service};
use trapline_io::feed::{Collected, Feed};
use trapline_io::publish::Published;
use trapline_io::queue::CallerId;
use trapline_io::space::{AddressSpace, EndpointId, SpaceBuilder};
use trapline_io::{Access, Address, Device, Fault, Gpa, Op, Port, Region, Span, Trap, Width};

/// What the device saw, and what it was to see: memory in single bytes, a port as it was.
#[derive(Default)]
struct Log(Vec<Access>);

impl Log {
    fn note(&mut self, access: Access) {
        let Op::Write(value) = access.op else { return self.0.push(access) };
        if access.offset < 0x1_0000 {
            return self.0.push(access);
        }
        let bytes = value.to_le_bytes();
        self.note_bytes(access.offset, bytes.get(..access.width.bytes()).unwrap_or(&[]));
    }

    fn note_bytes(&mut self, offset: u64, bytes: &[u8]) {
        let byte = |(at, byte): (u64, &u8)| Access::write(Region::VGA, at, Width::B1, u64::from(*byte));
        self.0.extend((offset..).zip(bytes).map(byte));
    }
}

/// Merges where a bit is set for the 16 bytes around.
struct Merger(Arc<Mutex<Log>>, u64);

fn open<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Device for Merger {
    fn read(&mut self, region: Region, offset: u64, width: Width) -> std::result::Result<u64, Fault> {
        open(&self.0).note(Access::read(region, offset, width));
        Ok(0)
    }
    fn write(
        &mut self,
        region: Region,
        offset: u64,
        width: Width,
        value: u64,
    ) -> std::result::Result<(), Fault> {
        open(&self.0).note(Access::write(region, offset, width, value));
        Ok(())
    }
    fn reset(&mut self) {}
    fn claims(&self) -> Claims {
        Claims::default()
    }
    fn merges(&self, region: Region, offset: u64) -> bool {
        assert!(region == Region::VGA && offset >= 0xa0000, "asked of {region:?} {offset:x}");
        self.1 >> (offset >> 4 & 63) & 1 == 1
    }
    fn write_run(&mut self, region: Region, offset: u64, bytes: &[u8]) -> std::result::Result<(), Fault> {
        assert!(self.merges(region, offset) && bytes.len() > 1);
        assert_eq!(offset >> 12, (offset + bytes.len() as u64 - 1) >> 12, "a run crosses a page");
        open(&self.0).note_bytes(offset, bytes);
        Ok(())
    }
}

/// The kernel's ring.
#[derive(Clone, Default)]
struct Ring(Arc<Mutex<VecDeque<Trap>>>);

impl Collected for Ring {
    fn is_empty(&self) -> bool {
        open(&self.0).is_empty()
    }
    fn pop(&self) -> Option<Trap> {
        open(&self.0).pop_front()
    }
}

impl Ring {
    fn write(&self, access: Access) -> bool {
        let at = match u16::try_from(access.offset) {
            Ok(port) => Address::Port(Port(port)),
            Err(_) => Address::Gpa(Gpa(access.offset)),
        };
        let mut ring = open(&self.0);
        let fits = ring.len() < 169;
        if fits {
            ring.push_back(Trap { at, width: access.width, op: access.op });
        }
        fits
    }
}

/// The window, with or without a seam in it that cuts writes, and the ports.
fn space(seam: Option<u64>) -> Option<AddressSpace> {
    let mut builder = SpaceBuilder::default();
    let mut window = |first, last| {
        let span = Span::new(Gpa(first), Gpa(last))?;
        builder.claim(EndpointId(0), &Claim::region(Range::Memory(span), Region::VGA, first));
        Some(())
    };
    match seam {
        None => window(0xa0000, 0xbffff)?,
        Some(seam) => {
            window(0xa0000, 0xb8000 + seam)?;
            window(0xb8001 + seam, 0xbffff)?;
        }
    }
    let ports = Range::Ports(Span::new(Port(0x3c0), Port(0x3df))?);
    builder.claim(EndpointId(0), &Claim::region(ports, Region::VGA, 0x3c0));
    Some(builder.build())
}

/// A write to the window, mostly behind the last one, or to a port.
fn write(u: &mut Unstructured<'_>, next: &mut u64) -> Result<Access> {
    let width = width(u)?;
    if u.ratio(1, 6)? {
        let width = width.min(Width::B4);
        return Ok(Access::write(Region::VGA, u.int_in_range(0x3c0..=0x3dc)?, width, u64::arbitrary(u)?));
    }
    if u.ratio(1, 5)? {
        *next = *u.choose(&[0xb8000, 0xb8ff0, 0xb8010])? + u.int_in_range(0..=7)?;
    }
    let at = *next;
    *next = (at + width.bytes() as u64).min(0xb_ff00);
    Ok(Access::write(Region::VGA, at, width, u64::arbitrary(u)?))
}

fn act(u: &mut Unstructured<'_>) -> Result<()> {
    let (seen, mut expected) = (Arc::<Mutex<Log>>::default(), Log::default());
    let device = Merger(Arc::clone(&seen), u64::arbitrary(u)?);
    let completions = Completions::new(1);
    let bell = Arc::new(Doorbell::new().map_err(|_| arbitrary::Error::IncorrectFormat)?);
    let service = *u.choose(&[Service::Inline, Service::Adaptive])?;
    let endpoint = Endpoint::new("fuzz", Box::new(device), completions.clone(), Arc::clone(&bell))
        .with_service(service)
        .with_capacity(*u.choose(&[1, 2, 7, 256])?);
    let seam = if bool::arbitrary(u)? { Some(u.int_in_range(0..=31)?) } else { None };
    let space = Published::new(space(seam).ok_or(arbitrary::Error::IncorrectFormat)?);
    let ring = Ring::default();
    let feed = Feed::new(Box::new(ring.clone()), &space, EndpointId(0));
    feed.set_active(true);
    endpoint.feed_from(Arc::new(feed));
    if bool::arbitrary(u)? {
        bell.awake();
    }
    let mut caller = completions.caller(CallerId(0)).ok_or(arbitrary::Error::IncorrectFormat)?;
    let mut next = 0xb8000;
    while !u.is_empty() {
        let step = u.int_in_range(0..=11)?;
        let access = match step {
            0..=8 => write(u, &mut next)?,
            _ => Access::read(Region::VGA, 0x3da, Width::B1),
        };
        if step < 10 {
            expected.note(access);
        }
        match step {
            0..=4 if ring.write(access) => {}
            0..=6 => endpoint.post(access),
            7 | 9 => _ = endpoint.call(&mut caller, access),
            8 => assert!(endpoint.call_admitted(&mut caller, access)),
            10 => _ = endpoint.serve(),
            _ => assert!(endpoint.try_with_device(|_| ()).is_ok()),
        }
        if matches!(step, 7..=9 | 11) {
            assert_eq!(open(&seen).0, expected.0);
        }
    }
    endpoint.drain();
    assert_eq!(open(&seen).0, expected.0);
    assert_eq!(endpoint.faults(), 0);
    Ok(())
}

/// Carries out what `data` says.
pub fn run(data: &[u8]) {
    // The end of the input ends a run early, which is no finding.
    let _ = act(&mut Unstructured::new(data));
}
