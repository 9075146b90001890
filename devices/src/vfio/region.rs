//! The regions of a device, and which parts of them may be mapped.

use std::ops::Range;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::mm::ProtFlags;
use vfio_bindings::bindings::vfio::{
    VFIO_REGION_INFO_CAP_MSIX_MAPPABLE, VFIO_REGION_INFO_CAP_SPARSE_MMAP, VFIO_REGION_INFO_CAP_TYPE,
    VFIO_REGION_INFO_FLAG_CAPS, VFIO_REGION_INFO_FLAG_MMAP, VFIO_REGION_INFO_FLAG_READ,
    VFIO_REGION_INFO_FLAG_WRITE,
};

use super::message::{self, long, put, word};
use super::sys::{DeviceFile, Question, Reservation};
use crate::assigned::backend::Mapping;

/// Pages of the host, and of memory slots.
pub(super) const PAGE: u64 = 4096;
/// Page-table entries are no larger than this.
const LARGEST_PAGE: u64 = 1 << 30;
/// The fixed part of `struct vfio_region_info`.
const FIXED: usize = 32;

/// What the kernel says of a region.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Learned {
    /// Bytes.
    pub size: u64,
    /// Where in the device's file it begins.
    pub offset: u64,
    /// May be read.
    pub readable: bool,
    /// May be written.
    pub writable: bool,
    /// May be mapped, as far as the device goes.
    pub mappable: bool,
    /// The parts that may be mapped, if not all of it.
    pub areas: Option<Vec<Range<u64>>>,
    /// Type and subtype, of a region of some vendor's driver.
    pub kind: Option<(u32, u32)>,
    /// The MSI-X table in it may be mapped too.
    pub msix_mappable: bool,
}

/// Asks about region `index`; `None` if the device has no such region.
///
/// vfio-ioctls makes a list of the regions that answer, in which those behind one that does not move
/// down. So the question is asked here.
pub(super) fn learn(device: &DeviceFile, index: u32) -> Result<Option<Learned>, Errno> {
    let mut question = [0; FIXED];
    put(&mut question, 8, index);
    match message::ask(&question, |message| device.ask(Question::Region, message)) {
        // The kernel knows no such region, or hides it (VGA by `disable_vga`).
        Err(Errno::INVAL) => Ok(None),
        Err(errno) => Err(errno),
        Ok(answer) => Ok(decode(&answer)),
    }
}

/// `struct vfio_region_info` and the capabilities behind it.
fn decode(message: &[u8]) -> Option<Learned> {
    let flags = word(message, 4)?;
    let mut learned = Learned {
        size: long(message, 16)?,
        offset: long(message, 24)?,
        readable: flags & VFIO_REGION_INFO_FLAG_READ != 0,
        writable: flags & VFIO_REGION_INFO_FLAG_WRITE != 0,
        mappable: flags & VFIO_REGION_INFO_FLAG_MMAP != 0,
        areas: None,
        kind: None,
        msix_mappable: false,
    };
    let first = if flags & VFIO_REGION_INFO_FLAG_CAPS != 0 { word(message, 12)? } else { 0 };
    for (id, at) in message::capabilities(message, first, FIXED) {
        match id {
            VFIO_REGION_INFO_CAP_MSIX_MAPPABLE => learned.msix_mappable = true,
            VFIO_REGION_INFO_CAP_TYPE => {
                learned.kind = Some((word(message, at + 8)?, word(message, at + 12)?));
            }
            VFIO_REGION_INFO_CAP_SPARSE_MMAP => learned.areas = Some(sparse(message, at)?),
            _ => {}
        }
    }
    Some(learned)
}

fn sparse(message: &[u8], at: usize) -> Option<Vec<Range<u64>>> {
    let count = word(message, at + 8)? as usize;
    let area = |place: usize| {
        let from = long(message, at + 16 + place * 16)?;
        let len = long(message, at + 24 + place * 16)?;
        Some(from..from.checked_add(len)?)
    };
    // Each area takes room in the message, so that the count cannot be larger than it.
    (0..count).map(area).collect()
}

/// What to map of a region: page-aligned parts, ascending, without overlaps or gaps of nothing.
///
/// `table` is where an MSI-X table lies that must not be touched. A region smaller than a page is
/// mapped as a whole page: the kernel only says that it may be if nothing else is there.
pub(super) fn parts(learned: &Learned, table: Option<Range<u64>>) -> Vec<Range<u64>> {
    if !learned.mappable || !learned.readable || !learned.offset.is_multiple_of(PAGE) {
        return Vec::new();
    }
    let Some(end) = learned.size.checked_next_multiple_of(PAGE) else { return Vec::new() };
    let mut areas = match &learned.areas {
        Some(areas) => areas.clone(),
        None => std::iter::once(0..end).collect(),
    };
    areas.sort_unstable_by_key(|area| (area.start, area.end));
    let hole = table.filter(|_| !learned.msix_mappable).map_or(0..0, |table| {
        let end = table.end.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX);
        table.start / PAGE * PAGE..end
    });
    let mut behind = 0;
    let mut parts = Vec::new();
    for area in areas {
        // What is mapped must be the device's to the last byte, so a page that is not is left out.
        let Some(start) = area.start.max(behind).checked_next_multiple_of(PAGE) else { continue };
        let stop = area.end.min(end) / PAGE * PAGE;
        let cut = [start..stop.min(hole.start), start.max(hole.end)..stop];
        let pieces = if hole.is_empty() { [start..stop, 0..0] } else { cut };
        parts.extend(pieces.into_iter().filter(|part| !part.is_empty()));
        behind = behind.max(stop);
    }
    parts
}

/// The alignment that lets the kernel map `size` bytes of a BAR with its largest pages.
///
/// A BAR's size is a power of two and its address a multiple of it. A mapping uses large page-table
/// entries where host virtual and physical addresses agree below the entry's size.
pub(super) fn alignment(size: u64) -> u64 {
    let lowest = 1u64.checked_shl(size.trailing_zeros()).unwrap_or(LARGEST_PAGE);
    lowest.clamp(PAGE, LARGEST_PAGE)
}

/// Maps `parts` of a region, all of them or none.
pub(super) fn map(
    device: &DeviceFile,
    learned: &Learned,
    parts: &[Range<u64>],
) -> Result<Vec<Mapping>, Errno> {
    if parts.is_empty() {
        return Ok(Vec::new());
    }
    let alignment = alignment(learned.size);
    let size = learned.size.checked_next_multiple_of(PAGE).ok_or(Errno::INVAL)?;
    let whole = size.checked_add(alignment).ok_or(Errno::NOMEM)?;
    let mut reservation = Reservation::new(usize::try_from(whole).map_err(|_| Errno::NOMEM)?)?;
    let address = reservation.address() as u64;
    let first = address.next_multiple_of(alignment) - address;
    let rights = if learned.writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
    let native = |value: u64| usize::try_from(value).map_err(|_| Errno::NOMEM);
    for part in parts {
        let (at, len) = (native(first + part.start)?, native(part.end - part.start)?);
        let offset = learned.offset.checked_add(part.start).ok_or(Errno::INVAL)?;
        reservation = reservation.place(at, len, rights, device, offset)?;
    }
    let memory = reservation.into_memory();
    let mapping = |part: &Range<u64>| Mapping {
        offset: part.start,
        len: part.end - part.start,
        memory: Arc::clone(&memory),
        at: first + part.start,
    };
    Ok(parts.iter().map(mapping).collect())
}

#[cfg(test)]
mod tests;
