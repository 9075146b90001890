//! On functions of the host, whose addresses `TRAPLINE_VFIO` gives; they must be bound to vfio-pci. The
//! nested lab has such. Interface: `TRAPLINE_VFIO_INTERFACE=group` or `iommufd`.

use std::os::fd::AsFd;

use parking_lot::{Mutex, MutexGuard};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use trapline_io::ring::{self, Carriage};
use trapline_io::{Gpa, Span};
use vfio_bindings::bindings::vfio::{VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_DATA_NONE};
use vm_memory::MmapRegion;

use super::{Told, has};
use crate::vfio::device::*;
use crate::vfio::region::alignment;
use crate::vfio::{DmaError, Interface};

/// One test at a time has the functions.
static TURN: Mutex<()> = Mutex::new(());

fn interface() -> Interface {
    match std::env::var("TRAPLINE_VFIO_INTERFACE").as_deref() {
        Ok("group") => Interface::Group,
        Ok("iommufd") => Interface::Iommufd,
        _ => Interface::Auto,
    }
}

fn addresses() -> Option<(MutexGuard<'static, ()>, Vec<PciAddress>)> {
    let Ok(text) = std::env::var("TRAPLINE_VFIO") else {
        println!("skipped: TRAPLINE_VFIO names no functions of this host");
        return None;
    };
    let addresses = text.split_whitespace().map(|word| word.parse().unwrap()).collect();
    Some((TURN.lock(), addresses))
}

fn machine(addresses: &[PciAddress]) -> (Arc<Iommu>, Vec<Device>) {
    let iommu = Iommu::new(interface());
    let open = |address: &PciAddress| Device::open(*address, &iommu, Settings::default()).unwrap();
    let devices = addresses.iter().map(open).collect();
    (iommu, devices)
}

#[test]
fn functions_can_be_opened_again_and_again() {
    let Some((_turn, addresses)) = addresses() else { return };
    for _ in 0..3 {
        let (iommu, mut devices) = machine(&addresses);
        assert_ne!(iommu.interface(), Interface::Auto);
        assert!(!iommu.kvm_files().unwrap().is_empty());
        for device in &mut devices {
            let id = device.read(Region::CONFIG, 0, Width::B4).unwrap();
            assert!(id != 0xffff_ffff && device.answers());
            assert_eq!(device.read(Region::CONFIG, 4, Width::B2), Ok(0), "{device:?}");
            let text = Device::open(device.address(), &iommu, Settings::default()).unwrap_err().to_string();
            assert!(text.contains("twice"), "{text}");
            let other = Iommu::new(interface());
            let error = Device::open(device.address(), &other, Settings::default()).unwrap_err();
            assert!(matches!(error, Error::Busy { .. }), "{error}");
        }
    }
}

#[test]
fn bars_are_mapped_as_large_pages_want() {
    let Some((_turn, addresses)) = addresses() else { return };
    let (_iommu, devices) = machine(&addresses);
    for (device, region) in
        devices.iter().flat_map(|device| device.regions().iter().map(move |one| (device, one)))
    {
        for mapping in &region.mappings {
            let host = mapping.memory.as_ptr().addr() as u64 + mapping.at - mapping.offset;
            assert_eq!(host % alignment(region.size), 0, "{device:?} {region:x?}");
            assert!(mapping.at + mapping.len <= mapping.memory.size() as u64);
        }
    }
    let mapped = |device: &Device| device.regions().iter().any(|region| !region.mappings.is_empty());
    assert!(devices.iter().any(mapped), "none of the functions has a BAR that could be mapped");
}

#[test]
fn what_the_kernel_does_not_let_through_does_not_kill() {
    let Some((_turn, addresses)) = addresses() else { return };
    let (_iommu, mut devices) = machine(&addresses);
    for device in &mut devices {
        let memory = (0..6).find(|bar| !device.region(Region::bar(*bar)).mappings.is_empty());
        let Some(bar) = memory.map(Region::bar) else { continue };
        assert_eq!(device.read(bar, 0, Width::B4), Err(Fault::Failed), "memory decode is off");
        device.write(Region::CONFIG, spec::COMMAND.into(), Width::B2, 2).unwrap();
        assert!(device.read(bar, 0, Width::B4).is_ok(), "{device:?}");
        assert_eq!(device.read(bar, device.region(bar).size, Width::B1), Err(Fault::NoRegister));
        if device.region(Region::VGA).size > 0 {
            assert!(device.read(Region::VGA, 0x3cc, Width::B1).is_ok());
            assert_eq!(device.read(Region::VGA, 0x3bc, Width::B1), Err(Fault::Failed), "no VGA port");
        }
        let file = device.file(Region::CONFIG).unwrap();
        assert_eq!(ring::probe(&*file.fd).unwrap(), Carriage::Inline);
        assert!(!device.is_dead());
    }
}

#[test]
fn a_rom_is_read_with_decode_off() {
    let Some((_turn, addresses)) = addresses() else { return };
    let (_iommu, mut devices) = machine(&addresses);
    for device in &mut devices {
        let size = device.region(Region::ROM).size;
        let mut image = vec![0; usize::try_from(size).unwrap()];
        match device.read_bytes(Region::ROM, 0, &mut image) {
            Ok(()) => assert!(image.starts_with(&[0x55, 0xaa]), "{device:?}"),
            Err(fault) => assert!(size == 0 && fault == Fault::NoRegister, "{device:?}: {fault:?}"),
        }
        assert_eq!(device.read(Region::CONFIG, spec::COMMAND.into(), Width::B2), Ok(0));
    }
}

#[test]
fn memory_is_mapped_and_unmapped() {
    let Some((_turn, addresses)) = addresses() else { return };
    let (iommu, devices) = machine(&addresses);
    let size = 64 << 20;
    let memory: Arc<MmapRegion> = Arc::new(MmapRegion::new(size).unwrap());
    let (size, go) = (size as u64, AtomicBool::new(false));
    iommu.map(Gpa(0), &memory, 0, size, &go).unwrap();
    assert!(matches!(iommu.map(Gpa(4096), &memory, 0, 4096, &go), Err(DmaError::Taken(_))));
    assert!(matches!(iommu.unmap(Gpa(0), 4096), Err(DmaError::Cut(_))));
    iommu.unmap(Gpa(0), size).unwrap();
    // Over the addresses of message interrupts.
    iommu.map(Gpa(0xfe00_0000), &memory, 0, size, &go).unwrap();
    iommu.unmap(Gpa(0xfe00_0000), size).unwrap();
    assert!(matches!(iommu.map(Gpa(0), &memory, size, 4096, &go), Err(DmaError::Pages { .. })));
    let far = iommu.ranges().unwrap().last().map(|range| range.last().0 + 1).unwrap();
    assert!(matches!(iommu.map(Gpa(far), &memory, 0, 4096, &go), Err(DmaError::Unreachable { .. })));
    // What was mapped of it before it was stopped, or refused, is not.
    let stop = AtomicBool::new(true);
    assert!(matches!(iommu.map(Gpa(0), &memory, 0, size, &stop), Err(DmaError::Stopped)));
    iommu.map(Gpa(0), &memory, 0, size, &go).unwrap();
    assert_eq!(Arc::strong_count(&memory), 2);
    drop((devices, iommu));
    assert_eq!(Arc::strong_count(&memory), 1);
}

#[test]
fn the_memory_of_a_device_is_reached_by_the_others_while_it_is_there() {
    let Some((_turn, addresses)) = addresses() else { return };
    let (iommu, mut devices) = machine(&addresses);
    if iommu.interface() == Interface::Iommufd {
        println!("skipped: an iommufd maps no BARs");
        return;
    }
    let go = AtomicBool::new(false);
    for device in &mut devices {
        device.write(Region::CONFIG, spec::COMMAND.into(), Width::B2, 2).unwrap();
        let Some(bar) = device.regions().iter().find_map(|region| region.mappings.first()).cloned() else {
            continue;
        };
        iommu.map(Gpa(1 << 32), &bar.memory, bar.at, bar.len, &go).unwrap();
        iommu.unmap(Gpa(1 << 32), bar.len).unwrap();
        iommu.map(Gpa(1 << 32), &bar.memory, bar.at, bar.len, &go).unwrap();
        let last = Span::of_len(Gpa(1 << 32), bar.len).unwrap();
        let again = iommu.map(last.first(), &bar.memory, bar.at, bar.len, &go);
        assert!(matches!(again, Err(DmaError::Taken(_))));
        iommu.forget(&bar.memory);
        iommu.map(Gpa(1 << 32), &bar.memory, bar.at, bar.len, &go).unwrap();
        iommu.unmap(Gpa(1 << 32), bar.len).unwrap();
    }
}

#[test]
fn a_reset_leaves_a_function_that_answers_and_decodes_nothing() {
    let Some((_turn, addresses)) = addresses() else { return };
    let (_iommu, mut devices) = machine(&addresses);
    let mut in_sets = 0;
    for place in 0..devices.len() {
        let device = &mut devices[place];
        device.write(Region::CONFIG, spec::COMMAND.into(), Width::B2, 7).unwrap();
        let fresh = device.function.fresh.load(Relaxed);
        assert!(!fresh, "it was written to");
        assert_eq!(device.resettable(), device.reset().is_ok(), "{device:?} {}", device.method());
        assert_eq!(device.read(Region::CONFIG, spec::COMMAND.into(), Width::B2), Ok(0));
        assert!(!device.is_dead());
        let (Method::Bus(set), false) = (device.method(), device.bus_failed) else { continue };
        let here = device.address();
        for other in devices.iter().filter(|other| other.address() != here) {
            // One reset is enough for all on that bus.
            assert_eq!(other.function.fresh.load(Relaxed), set.contains(&other.address()), "{other:?}");
            in_sets += usize::from(set.contains(&other.address()));
        }
    }
    println!("{in_sets} functions were reset together with others");
}

#[test]
fn interrupts_are_connected_as_far_as_there_are_any() {
    let Some((_turn, addresses)) = addresses() else { return };
    let (_iommu, mut devices) = machine(&addresses);
    let bells: Vec<OwnedFd> = (0..33).map(|_| eventfd(0, EventfdFlags::NONBLOCK).unwrap()).collect();
    let fds: Vec<BorrowedFd<'_>> = bells.iter().map(AsFd::as_fd).collect();
    for device in &mut devices {
        let irqs = device.irqs();
        let done = device.enable_intx(fds[0], fds[1]);
        assert_eq!(done.is_ok(), irqs.intx, "{device:?}");
        if irqs.intx {
            device.disable_intx().unwrap();
        }
        for (kind, most) in [(Signalled::Msi, irqs.msi), (Signalled::Msix, irqs.msix)] {
            let count = usize::from(most).min(32);
            assert_eq!(device.enable_vectors(kind, most, &fds[..1]), Err(Fault::NoRegister));
            if count > 0 {
                device.enable_vectors(kind, 0, &fds[..count]).unwrap();
                // One of them elsewhere, the others as they are.
                device.enable_vectors(kind, most.min(32) - 1, &fds[32..]).unwrap();
                device.disable_vectors(kind).unwrap();
            }
        }
    }
}

#[test]
fn an_error_and_the_hosts_wish_are_told() {
    let Some((_turn, addresses)) = addresses() else { return };
    let iommu = Iommu::new(interface());
    for address in addresses {
        let told = Arc::new(Told::default());
        let events: Arc<dyn Events> = told.clone();
        let mut device = Device::open(address, &iommu, Settings { events: Some(events) }).unwrap();
        let watch = device.attention().unwrap().unwrap();
        let readable = || {
            let mut fds = [PollFd::new(&watch, PollFlags::IN)];
            poll(&mut fds, Some(&rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
        };
        device.attend();
        assert!(!readable() && told.0.lock().is_empty());
        let mut texts = Vec::new();
        for (index, words) in [(Index::Request, "wants it back"), (Index::Error, "cannot recover")] {
            if irq::count(&device.function.file, index).0 == 0 {
                continue;
            }
            // The kernel rings by itself when asked to.
            let ring = [VFIO_IRQ_SET_ACTION_TRIGGER | VFIO_IRQ_SET_DATA_NONE, index as u32, 0, 1];
            for _ in 0..2 {
                device.function.file.ask(Question::SetIrqs, &mut message::message(&ring)).unwrap();
                assert!(readable());
                device.attend();
                assert!(!readable());
            }
            texts.push(words);
        }
        let events = told.0.lock();
        assert_eq!(events.iter().filter(|event| has(event, "wants it back")).count(), 1);
        assert!(texts.iter().all(|text| events.iter().any(|event| has(event, text))), "{events:?}");
        assert!(!device.is_dead());
    }
}

/// Of an adapter of Bochs's kind, whose horizontal resolution keeps what is written (DISPI register 1).
#[test]
fn the_kernel_writes_when_it_is_signalled() {
    let Some((_turn, addresses)) = addresses() else { return };
    let (_iommu, mut devices) = machine(&addresses);
    let bochs =
        |device: &mut Device| device.read(Region::CONFIG, 0, Width::B4).is_ok_and(|id| id == 0x1111_1234);
    let Some(device) = devices.iter_mut().find_map(|device| bochs(device).then_some(device)) else {
        println!("skipped: none of the functions is such an adapter");
        return;
    };
    device.write(Region::CONFIG, spec::COMMAND.into(), Width::B2, 2).unwrap();
    let write = Write { region: Region::bar(2), offset: 0x502, width: Width::B2, value: 800 };
    let before = |device: &mut Device| device.write(write.region, write.offset, write.width, 640);
    let now = |device: &mut Device| device.read(write.region, write.offset, write.width);
    let event = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
    let signal = || rustix::io::write(&event, &1_u64.to_ne_bytes()).unwrap();
    device.connect_write(write, event.as_fd()).unwrap();
    for _ in 0..3 {
        before(device).unwrap();
        assert_eq!(now(device), Ok(640));
        signal();
        // Somebody else's look at its registers may leave the write to a thread.
        let soon = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while now(device) == Ok(640) && std::time::Instant::now() < soon {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert_eq!(now(device), Ok(800));
    }
    device.disconnect_write(write).unwrap();
    before(device).unwrap();
    signal();
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(now(device), Ok(640));
    assert_eq!(device.disconnect_write(write), Err(Fault::Failed));
    for region in [Region::VGA, Region::CONFIG] {
        let elsewhere = Write { region, offset: 0x3d4, ..write };
        assert_eq!(device.connect_write(elsewhere, event.as_fd()), Err(Fault::NoRegister));
    }
}
