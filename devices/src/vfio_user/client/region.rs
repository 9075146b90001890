//! Asking for a region, and mapping what of it may be mapped.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{FsWord, SealFlags, fcntl_get_seals, fstat, fstatfs};
use rustix::mm::{MapFlags, ProtFlags};
use vm_memory::{FileOffset, MmapRegion};

use super::{Client, Error};
use crate::assigned::backend::{Mapping, RegionInfo};
use crate::vfio_user::wire::{self, Command, MAX_REGION_INFO, Malformed, RegionFlags, RegionReply, Request};

/// Mappings end up in memory slots, which have whole pages.
const PAGE: u64 = 4096;
/// How the kernel calls the file system of huge pages (`HUGETLBFS_MAGIC` of linux/magic.h).
const HUGETLBFS: FsWord = 0x9584_58f6;

impl Client {
    pub(super) fn learn_region(&mut self, index: u32) -> Result<RegionInfo, Error> {
        let argsz = u32::try_from(MAX_REGION_INFO).unwrap_or(u32::MAX);
        let question =
            wire::RegionInfo { argsz: argsz.into(), index: index.into(), ..wire::RegionInfo::default() };
        self.call(&Request::RegionInfo(question), &[])?;
        let fds = self.channel.take_fds();
        let reply = match RegionReply::decode(self.channel.payload()) {
            Ok(reply) if reply.info.index.get() == index => reply,
            Ok(_) => {
                let bad = Malformed::Unexpected(Command::REGION_INFO);
                return Err(self.lost(Command::REGION_INFO, bad.into()));
            }
            Err(bad) => return Err(self.lost(Command::REGION_INFO, bad.into())),
        };
        let flags = RegionFlags::from_bits(reply.info.flags.get());
        let mut region = RegionInfo {
            size: reply.info.size.get(),
            readable: flags.read(),
            writable: flags.write(),
            mappings: Vec::new(),
        };
        if flags.mmap() && flags.read() {
            match map(&reply, fds, flags.write()) {
                Ok(mappings) => region.mappings = mappings,
                Err(why) => {
                    tracing::warn!(device = self.settings.name, region = index, "not mapped, slow: {why}");
                }
            }
        }
        Ok(region)
    }
}

/// Why a region is trapped though its server wants it mapped.
#[derive(Debug, thiserror::Error)]
enum Unmapped {
    #[error("no descriptor came with the region")]
    NoDescriptor,
    #[error("its memory is not sealed against shrinking (F_SEAL_SHRINK)")]
    NotSealed,
    #[error("its memory is of huge pages (hugetlbfs), of which none may be free at the first access")]
    HugePages,
    #[error("an area lies outside the region or its memory, is not page-aligned, or overlaps another")]
    Outside,
    #[error("{0}")]
    Map(String),
}

fn map(reply: &RegionReply, fds: Vec<OwnedFd>, writable: bool) -> Result<Vec<Mapping>, Unmapped> {
    let fd = fds.into_iter().next().ok_or(Unmapped::NoDescriptor)?;
    // A file that its owner cuts short would end this process with SIGBUS at the guest's next access.
    let sealed = fcntl_get_seals(&fd).is_ok_and(|seals| seals.contains(SealFlags::SHRINK));
    if !sealed {
        return Err(Unmapped::NotSealed);
    }
    // A huge page is looked for at the first access, and where none is free that is SIGBUS too, whatever is sealed.
    // Pages of other memory files are the kernel's to find.
    let small = fstatfs(&fd).is_ok_and(|system| system.f_type != HUGETLBFS);
    if !small {
        return Err(Unmapped::HugePages);
    }
    let length = fstat(&fd).ok().and_then(|stat| u64::try_from(stat.st_size).ok()).unwrap_or(0);
    let file = Arc::new(File::from(fd));
    let (base, size) = (reply.info.offset.get(), reply.info.size.get());
    let mut areas: Vec<(u64, u64)> = match &reply.areas {
        Some(areas) => areas.iter().map(|area| (area.offset.get(), area.size.get())).collect(),
        None => vec![(0, size)],
    };
    areas.sort_unstable();
    let rights = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
    let mut mappings = Vec::new();
    let mut behind = 0;
    for (offset, len) in areas {
        let end = offset.checked_add(len).filter(|end| len > 0 && offset >= behind && *end <= size);
        let from = base.checked_add(offset);
        let whole = from.and_then(|from| from.checked_add(len)).filter(|whole| *whole <= length);
        let aligned = [offset, len, base].iter().all(|value| value % PAGE == 0);
        let (Some(end), Some(from), Some(_), true) = (end, from, whole, aligned) else {
            return Err(Unmapped::Outside);
        };
        let bytes = usize::try_from(len).map_err(|_| Unmapped::Outside)?;
        let file = FileOffset::from_arc(Arc::clone(&file), from);
        let flags = (MapFlags::SHARED | MapFlags::NORESERVE).bits().cast_signed();
        let memory = MmapRegion::build(Some(file), bytes, rights.bits().cast_signed(), flags)
            .map_err(|error| Unmapped::Map(error.to_string()))?;
        mappings.push(Mapping::whole(offset, Arc::new(memory)));
        behind = end;
    }
    Ok(mappings)
}
