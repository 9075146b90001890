//! The calls on VFIO's descriptors that no crate makes, or not in a way that tells of errors.
//!
//! All of VFIO's questions about a device begin with a size, `argsz`, and the kernel touches no byte
//! behind it; so one call serves them all. The types of descriptors are kept apart, since the same
//! number means another call on each of them.

// UNSAFETY: an ioctl and a mapping take bare addresses. vfio-ioctls neither gives out a group, which
// a bus reset needs, nor connects single interrupts, nor places a mapping.
#![expect(unsafe_code)]

use std::ffi::{CStr, c_void};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl, opcode};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use vfio_bindings::bindings::vfio::{VFIO_BASE, VFIO_TYPE};
use vfio_ioctls::{VfioContainer, VfioError, VfioIommufd};
use vm_memory::MmapRegion;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A question about a device, or an order to it, whose message begins with its size.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(super) enum Question {
    /// `VFIO_DEVICE_GET_INFO`
    Info = 7,
    /// `VFIO_DEVICE_GET_REGION_INFO`
    Region = 8,
    /// `VFIO_DEVICE_GET_IRQ_INFO`
    Irq = 9,
    /// `VFIO_DEVICE_SET_IRQS`
    SetIrqs = 10,
    /// `VFIO_DEVICE_GET_PCI_HOT_RESET_INFO`
    HotResetInfo = 12,
    /// `VFIO_DEVICE_PCI_HOT_RESET`
    HotReset = 13,
    /// `VFIO_DEVICE_IOEVENTFD`
    Ioeventfd = 16,
    /// `VFIO_DEVICE_BIND_IOMMUFD`
    BindIommufd = 18,
    /// `VFIO_DEVICE_ATTACH_IOMMUFD_PT`
    Attach = 19,
    /// `VFIO_DEVICE_DETACH_IOMMUFD_PT`
    Detach = 20,
}

const GROUP_GET_STATUS: u32 = 3;
const GROUP_SET_CONTAINER: u32 = 4;
const SET_IOMMU: u32 = 2;
const GROUP_GET_DEVICE_FD: u32 = 6;
const DEVICE_RESET: u32 = 11;
const IOMMU_GET_INFO: u32 = 12;
/// `IOMMU_IOAS_IOVA_RANGES` (linux/iommufd.h): type and number.
const IOAS_IOVA_RANGES: (u8, u8) = (b';', 0x84);

/// An ioctl whose argument is a number or an address.
struct Call {
    opcode: Opcode,
    argument: *mut c_void,
}

impl Call {
    fn vfio(number: u32, argument: *mut c_void) -> Call {
        let number = u8::try_from(VFIO_BASE + number).unwrap_or(0);
        Call { opcode: opcode::none(VFIO_TYPE, number), argument }
    }
}

// SAFETY: `as_ptr` gives the argument for the opcode unchanged, and the kernel is taken to write
// through it; whether that is right for the two together is said where a `Call` is used.
unsafe impl Ioctl for Call {
    type Output = u32;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.opcode
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.argument
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> rustix::io::Result<u32> {
        u32::try_from(out).map_err(|_| Errno::INVAL)
    }
}

/// Makes a call whose argument is a message that begins with its size.
fn ask(fd: BorrowedFd<'_>, number: u32, message: &mut [u8]) -> Result<u32, Errno> {
    let size = message.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    if size < 8 || size as usize > message.len() {
        return Err(Errno::INVAL);
    }
    let call = Call::vfio(number, message.as_mut_ptr().cast());
    // SAFETY: the kernel reads and writes as many bytes as the message says in its first four, which
    // lie in it, and no message holds an address that the kernel would write to.
    unsafe { ioctl(fd, call) }
}

/// An IOMMU group, `/dev/vfio/N`.
#[derive(Debug)]
pub(super) struct Group(OwnedFd);

impl Group {
    /// Opens it, which only one process can.
    pub fn open(number: u32) -> io::Result<Group> {
        let file = OpenOptions::new().read(true).write(true).open(format!("/dev/vfio/{number}"))?;
        Ok(Group(file.into()))
    }

    /// `VFIO_GROUP_FLAGS_*`.
    pub fn status(&self) -> Result<u32, Errno> {
        let mut message = [8, 0, 0, 0, 0, 0, 0, 0];
        ask(self.0.as_fd(), GROUP_GET_STATUS, &mut message)?;
        let [_, _, _, _, flags @ ..] = message;
        Ok(u32::from_le_bytes(flags))
    }

    /// Puts it into a container.
    pub fn join(&self, container: &VfioContainer) -> Result<(), Errno> {
        let mut container = container.as_raw_fd();
        let call = Call::vfio(GROUP_SET_CONTAINER, (&raw mut container).cast());
        // SAFETY: the kernel reads one number at the address, which outlives the call.
        unsafe { ioctl(self, call) }.map(drop)
    }

    /// The device of this name.
    pub fn device(&self, name: &CStr) -> Result<DeviceFile, Errno> {
        let call = Call::vfio(GROUP_GET_DEVICE_FD, name.as_ptr().cast_mut().cast());
        // SAFETY: the kernel reads a string with an end at the address, which outlives the call.
        let fd = unsafe { ioctl(self, call) }?;
        let fd = i32::try_from(fd).map_err(|_| Errno::BADF)?;
        // SAFETY: the kernel has just made this descriptor, for us alone.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(DeviceFile(Arc::new(fd)))
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A device.
#[derive(Clone, Debug)]
pub(super) struct DeviceFile(Arc<OwnedFd>);

impl DeviceFile {
    /// A `/dev/vfio/devices/vfioN` that was opened.
    pub fn of_cdev(file: File) -> DeviceFile {
        DeviceFile(Arc::new(file.into()))
    }

    /// The descriptor, for transfers.
    pub fn fd(&self) -> &Arc<OwnedFd> {
        &self.0
    }

    /// Asks `question`; the answer is in place of it.
    pub fn ask(&self, question: Question, message: &mut [u8]) -> Result<u32, Errno> {
        ask(self.0.as_fd(), question as u32, message)
    }

    /// `VFIO_DEVICE_RESET`. Waits for the device, as long as the kernel finds right.
    pub fn reset(&self) -> Result<(), Errno> {
        let call = Call::vfio(DEVICE_RESET, std::ptr::null_mut());
        // SAFETY: the call has no argument.
        unsafe { ioctl(&*self.0, call) }.map(drop)
    }
}

/// Says how a container with a group maps memory.
pub(super) fn set_iommu(container: &VfioContainer, kind: u32) -> Result<(), Errno> {
    let call = Call::vfio(SET_IOMMU, std::ptr::without_provenance_mut(kind as usize));
    // SAFETY: the container is open as long as it is borrowed.
    let fd = unsafe { BorrowedFd::borrow_raw(container.as_raw_fd()) };
    // SAFETY: the argument is a number.
    unsafe { ioctl(fd, call) }.map(drop)
}

/// `VFIO_IOMMU_GET_INFO`.
pub(super) fn iommu_info(container: &VfioContainer, message: &mut [u8]) -> Result<(), Errno> {
    // SAFETY: the container is open as long as it is borrowed.
    let fd = unsafe { BorrowedFd::borrow_raw(container.as_raw_fd()) };
    ask(fd, IOMMU_GET_INFO, message).map(drop)
}

/// Addresses that devices can reach, both ends included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct IovaRange {
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
}

/// `struct iommu_ioas_iova_ranges`.
#[repr(C)]
struct IoasRanges {
    size: u32,
    ioas: u32,
    count: u32,
    reserved: u32,
    ranges: u64,
    alignment: u64,
}

/// The addresses that the devices of an I/O address space can reach.
pub(super) fn ioas_ranges(view: &VfioIommufd) -> Result<Vec<IovaRange>, Errno> {
    // SAFETY: the descriptor is open as long as `view` is borrowed.
    let iommufd = unsafe { BorrowedFd::borrow_raw(view.iommufd().as_raw_fd()) };
    let ioas = view.ioas().id();
    let mut ranges = vec![IovaRange::default(); 16];
    loop {
        let mut question = IoasRanges {
            size: u32::try_from(size_of::<IoasRanges>()).unwrap_or(0),
            ioas,
            count: u32::try_from(ranges.len()).unwrap_or(0),
            reserved: 0,
            ranges: ranges.as_mut_ptr().expose_provenance() as u64,
            alignment: 0,
        };
        let (group, number) = IOAS_IOVA_RANGES;
        let call = Call { opcode: opcode::none(group, number), argument: (&raw mut question).cast() };
        // SAFETY: the kernel writes the question and at most `count` ranges, which the vector has.
        let done = unsafe { ioctl(iommufd, call) };
        let count = question.count as usize;
        match done {
            Err(Errno::MSGSIZE) if count > ranges.len() => ranges.resize(count, IovaRange::default()),
            Err(errno) => return Err(errno),
            Ok(_) => {
                ranges.truncate(count);
                return Ok(ranges);
            }
        }
    }
}

/// What maps memory for devices: the one way or the other.
pub(super) enum View {
    /// A container with groups.
    Container(VfioContainer),
    /// An I/O address space of an iommufd.
    Iommufd(VfioIommufd),
}

impl View {
    /// Lets devices reach `len` bytes of `memory` from `offset` on, at `at`. The pages stay theirs
    /// until [`View::unmap`], even where `memory` is gone before.
    pub fn map(&self, at: u64, memory: &MmapRegion, offset: u64, len: u64) -> Result<(), Errno> {
        let outside = |_| Errno::INVAL;
        let offset = usize::try_from(offset).map_err(outside)?;
        let size = usize::try_from(len).map_err(outside)?;
        if offset.checked_add(size).is_none_or(|end| end > memory.size()) {
            return Err(Errno::INVAL);
        }
        let host = memory.as_ptr().wrapping_add(offset);
        let done = match self {
            // SAFETY: the range lies in the mapping, of which nobody has a Rust reference: whoever
            // uses a `MmapRegion` does it by volatile accesses.
            View::Container(container) => unsafe { container.vfio_dma_map(at, size, host) },
            // SAFETY: as above.
            View::Iommufd(iommufd) => unsafe { iommufd.vfio_dma_map(at, size, host) },
        };
        done.map_err(|error| errno(&error))
    }

    /// Takes back exactly what one call of [`View::map`] gave.
    pub fn unmap(&self, at: u64, len: u64) -> Result<(), Errno> {
        let size = usize::try_from(len).map_err(|_| Errno::INVAL)?;
        let done = match self {
            View::Container(container) => container.vfio_dma_unmap(at, size),
            View::Iommufd(iommufd) => iommufd.vfio_dma_unmap(at, size),
        };
        done.map_err(|error| errno(&error))
    }
}

/// The number in an error of vfio-ioctls.
pub(super) fn errno(error: &VfioError) -> Errno {
    use iommufd_ioctls::IommufdError;
    let number = match error {
        VfioError::IommuDmaMap(error)
        | VfioError::IommuDmaUnmap(error)
        | VfioError::IommufdIoctlError(
            IommufdError::IommuIoasMap(error) | IommufdError::IommuIoasUnmap(error),
        ) => error.errno(),
        VfioError::OpenContainer(error) | VfioError::OpenDeviceCdev(error) => {
            return Errno::from_io_error(error).unwrap_or(Errno::IO);
        }
        _ => return Errno::INVAL,
    };
    Errno::from_raw_os_error(number)
}

/// Address space without memory, in which parts of a device are placed. It owns them: where it ends,
/// they end.
#[derive(Debug)]
pub(super) struct Reservation(MmapRegion);

impl Reservation {
    /// `size` bytes, a whole number of pages, that nobody can touch yet.
    pub fn new(size: usize) -> Result<Reservation, Errno> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // vm-memory passes the bits on; rustix has no name for this one, which it adds by itself.
        let anonymous = 0x20;
        let flags = flags.bits().cast_signed() | anonymous;
        MmapRegion::build(None, size, ProtFlags::empty().bits().cast_signed(), flags)
            .map(Reservation)
            .map_err(|_| Errno::NOMEM)
    }

    /// Its address.
    pub fn address(&self) -> usize {
        self.0.as_ptr().addr()
    }

    /// Puts `len` bytes of a device, `offset` bytes into its file, at byte `at` of the reservation, in
    /// place of whatever is there.
    pub fn place(
        self,
        at: usize,
        len: usize,
        rights: ProtFlags,
        device: &DeviceFile,
        offset: u64,
    ) -> Result<Reservation, Errno> {
        if len == 0 || at.checked_add(len).is_none_or(|end| end > self.0.size()) {
            return Err(Errno::INVAL);
        }
        // A mapping that is refused may leave a hole in an older kernel's reservation. So the first
        // try is somewhere else.
        // SAFETY: the kernel chooses the place, where nothing is.
        let trial = unsafe { mmap(std::ptr::null_mut(), len, rights, MapFlags::SHARED, &*device.0, offset) }?;
        // SAFETY: this is what was just mapped, and nobody knows of it.
        unsafe { munmap(trial, len) }?;
        let to = self.0.as_ptr().wrapping_add(at).cast();
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: the range lies in this mapping, which nobody but us knows of yet, and a kernel that
        // finds an address that is not page-aligned refuses.
        let placed = unsafe { mmap(to, len, rights, flags, &*device.0, offset) };
        match placed {
            Ok(_) => Ok(self),
            Err(errno) => {
                // Somebody else's mapping may be in the hole by now: it must not end with this one.
                std::mem::forget(self);
                Err(errno)
            }
        }
    }

    /// The whole of it, as memory.
    pub fn into_memory(self) -> Arc<MmapRegion> {
        Arc::new(self.0)
    }
}
