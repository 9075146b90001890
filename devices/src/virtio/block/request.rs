//! A request as the driver puts it into a chain (section 5.2.6): a header, data, and a byte for the
//! status.

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
};
use vm_memory::GuestMemoryMmap;
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::super::queue::Chain;
use super::SECTOR;

/// What a request begins with.
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Header {
    kind: U32,
    _reserved: U32,
    sector: U64,
}

/// Bytes of the header.
pub(super) const HEADER: u64 = size_of::<Header>() as u64;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// From the disk into the buffers.
    Read {
        /// Bytes from the start of the disk.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// From the buffers to the disk.
    Write {
        /// Bytes from the start of the disk.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// What was written is to reach the medium.
    Flush,
    /// Who the disk is.
    Identify,
    /// The request makes no sense, or goes beyond the end.
    Refused,
    /// The device does not know such requests.
    Unknown,
}

/// The chain has no header or no status: there is no way to answer it.
#[derive(Debug)]
pub(super) struct NoRequest;

impl Work {
    /// What `chain` asks of a disk of `sectors`.
    pub(super) fn of(chain: &Chain, memory: &GuestMemoryMmap, sectors: u64) -> Result<Work, NoRequest> {
        let mut bytes = [0; size_of::<Header>()];
        chain.readable.read(memory, 0, &mut bytes).map_err(|_| NoRequest)?;
        let header = Header::read_from_bytes(&bytes).map_err(|_| NoRequest)?;
        let given = chain.readable.len().checked_sub(HEADER).ok_or(NoRequest)?;
        let room = chain.writable.len().checked_sub(1).ok_or(NoRequest)?;
        let at = |len: u64| {
            let offset = header.sector.get().checked_mul(SECTOR.into())?;
            let end = offset.checked_add(len)?;
            let fits = len.is_multiple_of(SECTOR.into()) && end <= sectors.saturating_mul(SECTOR.into());
            fits.then_some(offset)
        };
        Ok(match header.kind.get() {
            VIRTIO_BLK_T_IN => at(room).map_or(Work::Refused, |offset| Work::Read { offset, len: room }),
            VIRTIO_BLK_T_OUT => at(given).map_or(Work::Refused, |offset| Work::Write { offset, len: given }),
            VIRTIO_BLK_T_FLUSH => Work::Flush,
            VIRTIO_BLK_T_GET_ID => Work::Identify,
            _ => Work::Unknown,
        })
    }
}
