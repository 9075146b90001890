//! Opening a function, and learning all about it that does not change.

use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use rustix::fs::OFlags;
use rustix::io::Errno;
use trapline_io::file::{FileDevice, FileRegion};
use trapline_io::{Device, Fault, Region, Width};
use vfio_bindings::bindings::vfio::{VFIO_DEVICE_FLAGS_PCI, VFIO_DEVICE_FLAGS_RESET};

use super::attention::Attention;
use super::caps::Header;
use super::message::{message, word};
use super::owned::{Function, Owned};
use super::region::{self, Learned};
use super::reset::{self, Facts, Method, bonaire};
use super::sys::Question;
use super::{Error, Iommu, bus_reset, irq, sysfs, view};
use crate::assigned::backend::{Irqs, RegionInfo};
use crate::pci::{PciAddress, spec};

/// The regions that a PCI function can have: six BARs, ROM, configuration space, legacy VGA. Those
/// behind them are of types that some vendor's driver gives them; nobody has more than these.
const REGIONS: u8 = 9;
const REGIONS_MOST: u8 = 32;
/// How many bytes one transfer asks for.
const CHUNK: usize = 64 << 10;

/// All that was learned.
pub(super) struct Opened {
    pub regions: Vec<RegionInfo>,
    /// Type and subtype of each region that has them.
    pub kinds: Vec<Option<(u32, u32)>>,
    pub files: FileDevice,
    pub irqs: Irqs,
    pub attention: Attention,
    pub facts: Facts,
    pub method: Method,
    pub express: bool,
}

/// Opens it by the interface of this machine, which the first one settles.
pub(super) fn function(address: PciAddress, iommu: &Iommu) -> Result<Function, Error> {
    sysfs::check(address)?;
    let mut owned = iommu.owned();
    let view = match iommu.view() {
        Ok(view) => view,
        Err(wish) => iommu.settle(view::open(address, wish)?),
    };
    owned.open(address, view)
}

/// Learns about a function that was just opened. It decodes nothing afterwards.
pub(super) fn learn(function: &Function, owned: &Owned) -> Result<Opened, Error> {
    let address = function.address;
    let file = &function.file;
    let step = |what| move |errno: Errno| Error::step(address, what, errno);
    // Before the first use with io_uring, which looks at it once: without the flag writes are reordered.
    let flags = rustix::fs::fcntl_getfl(file.fd()).map_err(step("ask for its file's flags"))?;
    rustix::fs::fcntl_setfl(file.fd(), flags | OFlags::NONBLOCK).map_err(step("set its file's flags"))?;
    let mut info = message(&[0, 0, 0]);
    file.ask(Question::Info, &mut info).map_err(step("ask what it is"))?;
    let flags = word(&info, 4).unwrap_or(0);
    if flags & VFIO_DEVICE_FLAGS_PCI == 0 {
        return Err(Error::step(address, "use it: it is no PCI device to VFIO", Errno::NODEV));
    }
    let mut learned = Vec::new();
    let count = word(&info, 8).and_then(|count| u8::try_from(count).ok()).unwrap_or(REGIONS_MOST);
    for index in 0..count.clamp(REGIONS, REGIONS_MOST) {
        let region = region::learn(file, index.into()).map_err(step("ask for its regions"))?;
        learned.push(region.unwrap_or_default());
    }
    let mut files = learned.iter().zip(0..).filter(|(region, _)| region.size > 0).fold(
        FileDevice::new(),
        |files, (region, index)| {
            let place = FileRegion { fd: file.fd().clone(), offset: region.offset, len: region.size };
            files.with_region(Region(index), place)
        },
    );
    let mut header = [0; 256];
    let config = files.file(Region::CONFIG).cloned();
    let read = config
        .ok_or(Fault::NoRegister)
        .and_then(|config| receive(&config, 0, &mut header, &AtomicBool::new(false)));
    read.map_err(|_| Error::Silent(address))?;
    let header = Header(&header);
    if header.identity() == u32::MAX {
        return Err(Error::Silent(address));
    }
    // With decoding off, whether the kernel lets us touch a BAR can be tried without touching it.
    files
        .write(Region::CONFIG, spec::COMMAND.into(), Width::B2, 0)
        .map_err(|_| Error::step(address, "write its configuration space", Errno::IO))?;
    let regions = regions(function, &header, &learned);
    let facts = Facts {
        kernel: flags & VFIO_DEVICE_FLAGS_RESET != 0,
        methods: sysfs::reset_methods(address),
        flr: header.has_flr(),
        own: bonaire::is_one(header.identity()),
        power: header.has_power_reset(),
    };
    let method = reset::plan(&facts, &bus_reset::affected(file, owned));
    tracing::info!(device = %address, "opened; its reset: {method}");
    if let Method::None(why) = &method {
        tracing::warn!(
            device = %address,
            "it cannot be reset ({why}): the guest finds it in the state in which its last use left it"
        );
    }
    let attention = Attention::new(file)
        .map_err(|source| Error::step(address, "be told of its errors and of the host's wishes", source))?;
    let express = header.is_express();
    let kinds = learned.iter().map(|region| region.kind).collect();
    Ok(Opened { regions, kinds, files, irqs: irq::learn(file), attention, facts, method, express })
}

/// The regions as the rest of the program sees them, BARs mapped where that is allowed.
pub(super) fn regions(function: &Function, header: &Header<'_>, learned: &[Learned]) -> Vec<RegionInfo> {
    let table = header.msix_table();
    let is_virtual = sysfs::is_virtual(function.address);
    let as_seen = |(index, learned): (u8, &Learned)| {
        // A virtual function has no addresses in these registers, so there zero is a kind too.
        if index < 6 && learned.size > 0 && header.bar(index) == 0 && !is_virtual {
            tracing::warn!(
                device = %function.address,
                "the host found no place for BAR {index} ({:#x} bytes), so the guest does not see it: the host's \
                 firmware may offer larger windows (Above 4G Decoding), and its dmesg says more",
                learned.size
            );
            return RegionInfo::default();
        }
        let table = table.clone().filter(|(bar, _)| *bar == index).map(|(_, range)| range);
        let mappings = if index < 6 { mapped(function, index, learned, table) } else { Vec::new() };
        RegionInfo { size: learned.size, readable: learned.readable, writable: learned.writable, mappings }
    };
    (0..).zip(learned).map(as_seen).collect()
}

fn mapped(
    function: &Function,
    index: u8,
    learned: &Learned,
    table: Option<Range<u64>>,
) -> Vec<crate::assigned::backend::Mapping> {
    let parts = region::parts(learned, table);
    let device = function.address;
    region::map(&function.file, learned, &parts).unwrap_or_else(|errno| {
        let held = errno == Errno::BUSY && {
            let place = FileRegion {
                fd: function.file.fd().clone(),
                offset: learned.offset,
                len: learned.size,
            };
            probe(&place) == Err(Errno::BUSY)
        };
        if held {
            tracing::warn!(
                %device,
                "BAR {index} belongs to some other driver of the host, most likely to the firmware's frame buffer \
                 (see /proc/iomem): the guest cannot use it at all; boot the host with \
                 initcall_blacklist=sysfb_init, or with another adapter as its display"
            );
        } else {
            tracing::warn!(%device, "BAR {index} cannot be mapped, so that every access traps: {errno}");
        }
        Vec::new()
    })
}

/// What the kernel says to a read of a memory BAR while the function decodes none: an I/O error, unless
/// it is not even ours to read.
fn probe(place: &FileRegion) -> Result<usize, Errno> {
    rustix::io::pread(&*place.fd, &mut [0; 4], place.offset)
}

/// Fills `bytes` from `offset` of a region on, all of them in the region. A read that is interrupted goes on, unless
/// `stopping`.
pub(super) fn receive(
    place: &FileRegion,
    offset: u64,
    bytes: &mut [u8],
    stopping: &AtomicBool,
) -> Result<(), Fault> {
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let from = offset.checked_add(done as u64).filter(|from| *from < place.len);
        let from = from.ok_or(Fault::NoRegister)?;
        let inside = usize::try_from(place.len - from).unwrap_or(usize::MAX);
        let len = rest.len().min(CHUNK).min(inside);
        let chunk = rest.get_mut(..len).ok_or(Fault::NoRegister)?;
        match rustix::io::pread(&*place.fd, chunk, place.offset.saturating_add(from)) {
            Ok(0) => return Err(Fault::Failed),
            Ok(read) => done += read,
            Err(Errno::INTR) if !stopping.load(Relaxed) => {}
            Err(_) => return Err(Fault::Failed),
        }
    }
    Ok(())
}

/// Writes `bytes` from `offset` of a region on, all of them in the region, by one call as far as the kernel
/// takes it. One that is interrupted goes on, unless `stopping`.
pub(super) fn send(
    place: &FileRegion,
    offset: u64,
    bytes: &[u8],
    stopping: &AtomicBool,
) -> Result<(), Fault> {
    let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= place.len);
    let mut at = end.and_then(|_| place.offset.checked_add(offset)).ok_or(Fault::NoRegister)?;
    let mut left = bytes;
    while !left.is_empty() {
        match rustix::io::pwrite(&*place.fd, left, at) {
            Ok(written) if written > 0 => {
                left = left.get(written..).unwrap_or_default();
                at += written as u64;
            }
            Err(Errno::INTR) if !stopping.load(Relaxed) => {}
            Ok(_) | Err(_) => return Err(Fault::Failed),
        }
    }
    Ok(())
}
