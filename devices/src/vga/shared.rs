//! Memory with a descriptor, so that another process, or a guest, can have it too.

use std::fs::File;
use std::io;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, ftruncate, memfd_create};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{FileOffset, MmapRegion, VolatileMemory, VolatileSlice};

/// A mapped memory file whose size is sealed: whoever maps it can rely on it.
#[derive(Clone, Debug)]
pub struct Shared {
    file: Arc<File>,
    memory: Arc<MmapRegion>,
}

impl Shared {
    /// `size` zero bytes that every holder of the descriptor may write.
    ///
    /// # Errors
    /// What the system says to making or mapping the file.
    pub fn new(name: &str, size: usize) -> io::Result<Shared> {
        Shared::sealed(name, size, SealFlags::empty())
    }

    /// `size` zero bytes that only this value can write: the descriptor gives read-only mappings.
    ///
    /// # Errors
    /// What the system says to making or mapping the file.
    pub fn new_published(name: &str, size: usize) -> io::Result<Shared> {
        Shared::sealed(name, size, SealFlags::FUTURE_WRITE)
    }

    /// Maps what another process sent, to be read only.
    ///
    /// # Errors
    /// The file is no memory file, its size is not sealed or not `size`, or it cannot be mapped.
    pub fn open(file: File, size: usize) -> io::Result<Shared> {
        let invalid = |text: &str| io::Error::new(io::ErrorKind::InvalidData, text.to_owned());
        let seals = fcntl_get_seals(&file).map_err(|_| invalid("not a memory file"))?;
        if !seals.contains(SealFlags::SHRINK) {
            return Err(invalid("memory file that can shrink"));
        }
        if file.metadata()?.len() != u64::try_from(size).unwrap_or(u64::MAX) {
            return Err(invalid("memory file of another size"));
        }
        Shared::map(file, size, rustix::mm::ProtFlags::READ)
    }

    /// The file; a copy of its descriptor can be sent to another process.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// The mapping.
    pub fn memory(&self) -> &Arc<MmapRegion> {
        &self.memory
    }

    /// The bytes. Others may change them at any time.
    pub fn bytes(&self) -> VolatileSlice<'_> {
        self.memory.as_volatile_slice()
    }

    fn sealed(name: &str, size: usize, more: SealFlags) -> io::Result<Shared> {
        let file = File::from(memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
        ftruncate(&file, u64::try_from(size).unwrap_or(u64::MAX))?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW)?;
        let shared = Shared::map(file, size, rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE)?;
        fcntl_add_seals(&*shared.file, more | SealFlags::SEAL)?;
        Ok(shared)
    }

    fn map(file: File, size: usize, protection: rustix::mm::ProtFlags) -> io::Result<Shared> {
        let file = Arc::new(file);
        let flags = rustix::mm::MapFlags::SHARED | rustix::mm::MapFlags::NORESERVE;
        let memory = MmapRegionBuilder::new(size)
            .with_file_offset(FileOffset::from_arc(Arc::clone(&file), 0))
            .with_mmap_prot(protection.bits().cast_signed())
            .with_mmap_flags(flags.bits().cast_signed())
            .build()
            .map_err(io::Error::other)?;
        Ok(Shared { file, memory: Arc::new(memory) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::Bytes;

    #[test]
    fn a_second_mapping_sees_what_is_written() {
        let shared = Shared::new("test", 4096).unwrap();
        let other = Shared::open(shared.file().try_clone().unwrap(), 4096).unwrap();
        shared.bytes().write_obj(0x1234_5678_u32, 100).unwrap();
        assert_eq!(other.bytes().read_obj::<u32>(100).unwrap(), 0x1234_5678);
    }

    #[test]
    fn the_size_is_sealed_and_checked() {
        let shared = Shared::new("test", 4096).unwrap();
        assert!(shared.file().set_len(0).is_err());
        assert!(shared.file().set_len(8192).is_err());
        assert!(Shared::open(shared.file().try_clone().unwrap(), 8192).is_err());
        assert!(Shared::open(tempfile::tempfile().unwrap(), 0).is_err());
        let open = File::from(memfd_create("test", MemfdFlags::ALLOW_SEALING).unwrap());
        open.set_len(4096).unwrap();
        assert!(Shared::open(open, 4096).is_err());
    }

    #[test]
    fn a_published_page_cannot_be_written_by_others() {
        let shared = Shared::new_published("test", 4096).unwrap();
        shared.bytes().write_obj(7_u8, 0).unwrap();
        let file = shared.file().try_clone().unwrap();
        assert!(MmapRegion::<()>::from_file(FileOffset::new(file.try_clone().unwrap(), 0), 4096).is_err());
        assert_eq!(Shared::open(file, 4096).unwrap().bytes().read_obj::<u8>(0).unwrap(), 7);
    }
}
