//! The answer about a region: its fixed part, and the list of areas that may be mapped.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Command, MAX_REGION_INFO, Malformed, RegionFlags, RegionInfo, prefix};

/// The capability that lists areas (`VFIO_REGION_INFO_CAP_SPARSE_MMAP`).
const SPARSE_MMAP: u16 = 1;

/// A part of a region that may be mapped.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Area {
    /// Byte offset in the region.
    pub offset: U64,
    /// Bytes.
    pub size: U64,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct CapHeader {
    id: U16,
    version: U16,
    next: U32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Sparse {
    areas: U32,
    reserved: U32,
}

/// The answer to `DEVICE_GET_REGION_INFO`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionReply {
    /// The fixed part. When encoded, `argsz`, `cap_offset` and the `caps` flag are made to fit.
    pub info: RegionInfo,
    /// The areas that may be mapped; `None`: the whole region, if any of it.
    pub areas: Option<Vec<Area>>,
}

impl RegionReply {
    /// The payload, for an asker that takes `argsz` bytes: without the capabilities where they do
    /// not fit, but with the size they need. The flag tells whether all of it is there.
    pub fn encode(&self, argsz: u32) -> (Vec<u8>, bool) {
        let fixed = size_of::<RegionInfo>();
        let caps = self.capabilities();
        let full = fixed + caps.len();
        let fits = caps.is_empty() || full <= argsz as usize;
        let mut info = self.info;
        info.argsz = u32::try_from(full).unwrap_or(u32::MAX).into();
        let flags = RegionFlags::from_bits(info.flags.get()).with_caps(!caps.is_empty());
        info.flags = flags.into_bits().into();
        info.cap_offset = if caps.is_empty() || !fits { 0 } else { 32 }.into();
        let mut payload = info.as_bytes().to_vec();
        if fits {
            payload.extend_from_slice(&caps);
        }
        (payload, fits)
    }

    fn capabilities(&self) -> Vec<u8> {
        let Some(areas) = &self.areas else { return Vec::new() };
        let header = CapHeader { id: SPARSE_MMAP.into(), version: 1.into(), next: 0.into() };
        let count = u32::try_from(areas.len()).unwrap_or(u32::MAX);
        let sparse = Sparse { areas: count.into(), reserved: 0.into() };
        let mut caps = header.as_bytes().to_vec();
        caps.extend_from_slice(sparse.as_bytes());
        caps.extend_from_slice(areas.as_bytes());
        caps
    }

    /// Gives a payload its meaning. Capabilities that are not understood are passed over.
    ///
    /// # Errors
    /// The payload is too short or too long, or its capability list leaves it or goes in circles.
    pub fn decode(payload: &[u8]) -> Result<RegionReply, Malformed> {
        let command = Command::REGION_INFO;
        let (info, _) = prefix::<RegionInfo>(command, payload)?;
        if payload.len() > MAX_REGION_INFO {
            return Err(Malformed::Length { command, have: payload.len(), want: MAX_REGION_INFO });
        }
        if info.argsz.get() as usize > payload.len() {
            return Err(Malformed::Length { command, have: payload.len(), want: info.argsz.get() as usize });
        }
        let mut areas = None;
        let mut next =
            if RegionFlags::from_bits(info.flags.get()).caps() { info.cap_offset.get() } else { 0 };
        let mut behind = size_of::<RegionInfo>();
        while next != 0 {
            let here = next;
            let bad = Malformed::Capability(here);
            let at = here as usize;
            let Some(bytes) = payload.get(at..).filter(|_| at >= behind) else { return Err(bad) };
            let (header, body) = CapHeader::read_from_prefix(bytes).map_err(|_| bad.clone())?;
            if header.id.get() == SPARSE_MMAP {
                areas = Some(sparse(body).ok_or(bad)?);
            }
            behind = at + size_of::<CapHeader>();
            next = header.next.get();
        }
        Ok(RegionReply { info, areas })
    }
}

fn sparse(body: &[u8]) -> Option<Vec<Area>> {
    let (sparse, rest) = Sparse::read_from_prefix(body).ok()?;
    let count = usize::try_from(sparse.areas.get()).ok()?;
    let (areas, _) = <[Area]>::ref_from_prefix_with_elems(rest, count).ok()?;
    Some(areas.to_vec())
}
