//! A file in the place of a device's: it has the registers that a test writes into it, and refuses all
//! that is asked of a device only.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicUsize;

use rustix::event::{EventfdFlags, eventfd};
use tracing::span;

use super::{Told, has};
use crate::assigned::backend::{Backend, RegionInfo, Signalled};
use crate::vfio::caps::Header;
use crate::vfio::device::*;
use crate::vfio::region::Learned;
use crate::vfio::reset::Facts;
use crate::vfio::sys::DeviceFile;
use crate::vfio::{Interface, Iommu};

/// A function whose configuration space is the first 4 KiB of a file, and whose BAR 0 does not answer.
fn device(file: &File, told: &Arc<Told>) -> Device {
    let open = File::options().read(true).write(true).open(format!("/proc/self/fd/{}", fd(file))).unwrap();
    let file = DeviceFile::of_cdev(open);
    let region = |offset| FileRegion { fd: Arc::clone(file.fd()), offset, len: 4096 };
    let files = FileDevice::new().with_region(Region::bar(0), region(1 << 20));
    Device {
        name: "stand-in".to_owned(),
        settings: Settings { events: Some(told.clone() as Arc<dyn Events>) },
        regions: vec![RegionInfo::default(); 9],
        kinds: Vec::new(),
        files: files.with_region(Region::CONFIG, region(0)),
        irqs: Irqs { intx: true, msi: 32, msix: 64, msix_grows: true },
        attention: Attention::new(&file).unwrap(),
        facts: Facts::default(),
        method: Method::Function("flr".to_owned()),
        bus_failed: false,
        express: false,
        dead: false,
        asked_back: false,
        refused: Vec::new(),
        lease: None,
        iommu: Iommu::new(Interface::Group),
        function: Function {
            address: "0000:01:00.0".parse().unwrap(),
            file,
            id: None,
            fresh: Arc::new(AtomicBool::new(false)),
        },
    }
}

fn fd(file: &File) -> i32 {
    std::os::fd::AsRawFd::as_raw_fd(file)
}

/// A display adapter's registers.
fn registers() -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(4096).unwrap();
    file.write_all_at(&[0x34, 0x12, 0x11, 0x11, 0, 0, 0x10, 0, 2, 0, 0, 3], 0).unwrap();
    file
}

#[test]
fn a_bar_without_a_place_on_the_host_is_none() {
    let (file, told) = (registers(), Arc::new(Told::default()));
    let device = device(&file, &told);
    // BAR 0 lies somewhere; BAR 1, of ports on the card, reads as zero since the host gave it no place.
    let mut header = [0; 256];
    header[0x10..0x14].copy_from_slice(&0xe000_0000_u32.to_le_bytes());
    let learned = |size| Learned { size, readable: true, writable: true, ..Learned::default() };
    let learned = [learned(4096), learned(128), learned(0)];
    let regions = open::regions(&device.function, &Header(&header), &learned);
    let sizes: Vec<u64> = regions.iter().map(|region| region.size).collect();
    assert_eq!(sizes, [4096, 0, 0]);
}

#[test]
fn one_that_is_gone_is_told_though_the_kernel_still_knows_its_name() {
    let (file, told) = (registers(), Arc::new(Told::default()));
    let mut device = device(&file, &told);
    assert_eq!(device.read(Region::bar(0), 0, Width::B4), Err(Fault::Failed));
    assert!(!device.is_dead() && told.0.lock().is_empty(), "it only decodes nothing");
    // The kernel answers vendor and device from its copy, and asks the device for the rest.
    file.write_all_at(&[0xff; 4092], 4).unwrap();
    assert_eq!(device.read(Region::bar(0), 0, Width::B4), Err(Fault::Failed));
    assert!(device.is_dead());
    assert!(told.0.lock().iter().any(|event| has(event, "does not answer any more")));
}

#[test]
fn a_run_of_bytes_is_written_inside_its_region_only() {
    let (file, told) = (registers(), Arc::new(Told::default()));
    let mut device = device(&file, &told);
    let run: Vec<u8> = (0..200).collect();
    assert_eq!(device.write_bytes(Region::CONFIG, 0x101, &run), Ok(()));
    let mut there = vec![0; 202];
    file.read_exact_at(&mut there, 0x100).unwrap();
    assert_eq!((there[0], &there[1..201], there[201]), (0, &run[..], 0));
    assert_eq!(device.write_bytes(Region::CONFIG, 4000, &run), Err(Fault::NoRegister));
    assert_eq!(device.write_bytes(Region::CONFIG, u64::MAX, &run), Err(Fault::NoRegister));
    assert_eq!(device.write_bytes(Region::VGA, 0xb_8000, &run), Err(Fault::NoRegister));
    assert_eq!(file.metadata().unwrap().len(), 4096);
    device.dead = true;
    assert_eq!(device.write_bytes(Region::CONFIG, 0x101, &run), Err(Fault::Failed));
}

/// Counts what is logged.
#[derive(Clone, Default)]
struct Lines(Arc<AtomicUsize>);

impl tracing::Subscriber for Lines {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Relaxed);
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[test]
fn a_guest_that_asks_again_and_again_for_what_is_refused_fills_no_log() {
    let (file, told) = (registers(), Arc::new(Told::default()));
    let mut device = device(&file, &told);
    let bell: OwnedFd = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
    let lines = Lines::default();
    tracing::subscriber::with_default(lines.clone(), || {
        for _ in 0..100 {
            assert!(device.enable_vectors(Signalled::Msi, 0, &[bell.as_fd()]).is_err());
            assert!(device.enable_vectors(Signalled::Msix, 0, &[bell.as_fd()]).is_err());
            assert!(device.disable_vectors(Signalled::Msi).is_err());
            assert!(device.enable_intx(bell.as_fd(), bell.as_fd()).is_err());
            assert!(device.disable_intx().is_err());
            assert!(device.reset().is_err());
        }
    });
    assert!((1..=5).contains(&lines.0.load(Relaxed)), "{} lines", lines.0.load(Relaxed));
}
