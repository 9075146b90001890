//! Opens PCI functions of the host by VFIO and shows what trapline finds and does: regions, mappings,
//! interrupts, resets, the ROM, legacy VGA, mapping memory for DMA.
//!
//! `vfio_probe [--iommufd|--group] [--watch SECONDS] [--memory MiB] ADDRESS...`: the functions of one
//! machine. They must be bound to vfio-pci and used by nobody else. Each is reset. With `--watch` what
//! the devices and the host tell of them is waited for.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use rustix::event::{EventfdFlags, eventfd};
use trapline_devices::assigned::Backend;
use trapline_devices::assigned::backend::Signalled;
use trapline_devices::vfio::{Address, Device, DmaError, Interface, Iommu, Settings};
use trapline_io::{Gpa, Region, Width};
use vm_memory::MmapRegion;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).without_time().init();
    let mut interface = Interface::Auto;
    let (mut watch, mut memory) = (0, 64);
    let mut addresses = Vec::new();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--iommufd" => interface = Interface::Iommufd,
            "--group" => interface = Interface::Group,
            "--watch" => watch = words.next().unwrap_or_default().parse()?,
            "--memory" => memory = words.next().unwrap_or_default().parse()?,
            address => addresses.push(address.parse::<Address>()?),
        }
    }
    for round in 1..=2 {
        println!("ROUND {round}");
        let done = machine(interface, memory, watch, &addresses);
        if let Err(error) = done {
            println!("ERROR {error}");
        }
    }
    Ok(())
}

fn machine(interface: Interface, memory: u64, watch: u64, addresses: &[Address]) -> Outcome {
    let iommu = Iommu::new(interface);
    let mut devices = Vec::new();
    for address in addresses {
        let start = Instant::now();
        devices.push(Device::open(*address, &iommu, Settings::default())?);
        println!("{address}: opened in {:?}", start.elapsed());
    }
    println!("interface {:?}, ranges {:x?}", iommu.interface(), iommu.ranges()?);
    for device in &mut devices {
        show(device)?;
    }
    map(&iommu, memory)?;
    for device in &mut devices {
        let done = device.reset();
        println!("{}: reset {done:?}", device.name());
        connect(device)?;
    }
    let first = addresses.first().map(|address| Device::open(*address, &iommu, Settings::default()));
    if let Some(Err(error)) = first {
        println!("again: {error}");
    }
    println!("for KVM: {:?}", iommu.kvm_files()?);
    let start = Instant::now();
    while start.elapsed().as_secs() < watch {
        std::thread::sleep(std::time::Duration::from_millis(100));
        for device in &mut devices {
            device.attend();
        }
    }
    for device in &mut devices {
        let id = device.read(Region::CONFIG, 0, Width::B4);
        println!("{}: dead {}, id {id:x?}", device.name(), device.is_dead());
    }
    Ok(())
}

fn show(device: &mut Device) -> Outcome {
    let name = device.name().to_owned();
    println!("{name}: resettable {}, {}", device.resettable(), device.method());
    println!("{name}: {:?}, no VGA: {:x?}", device.irqs(), device.no_vga());
    for (index, region) in device.regions().iter().enumerate().filter(|(_, region)| region.size > 0) {
        let rights = (region.readable, region.writable);
        println!("{name}: region {index} size {:#x} {rights:?}", region.size);
        for mapping in &region.mappings {
            let host = mapping.memory.as_ptr().addr() as u64 + mapping.at;
            println!("    mapped {:#x} + {:#x} at host {host:#x}", mapping.offset, mapping.len);
        }
    }
    let id = device.read(Region::CONFIG, 0, Width::B4);
    let command = device.read(Region::CONFIG, 4, Width::B2);
    println!("{name}: id {id:x?} command {command:x?}");
    let rom = device.region(Region::ROM).size;
    let mut image = vec![0; usize::try_from(rom)?];
    let read = device.read_bytes(Region::ROM, 0, &mut image);
    let sum = image.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    println!("{name}: ROM {rom:#x} {read:?} starts {:x?} sum {sum:#x}", image.get(..2));
    println!("{name}: command {:x?}", device.read(Region::CONFIG, 4, Width::B2));
    println!("{name}: BAR 0 without decode: {:x?}", device.read(Region::bar(0), 0, Width::B4));
    println!("{name}: {:?}", device.write(Region::CONFIG, 4, Width::B2, 3));
    println!("{name}: BAR 0 with decode: {:x?}", device.read(Region::bar(0), 0, Width::B4));
    println!("{name}: 3cc {:x?}", device.read(Region::VGA, 0x3cc, Width::B1));
    println!("{name}: b8000 {:x?}", device.read(Region::VGA, 0xb8000, Width::B8));
    println!("{name}: {:?}", device.write(Region::VGA, 0xb8000, Width::B2, 0x1e41));
    println!("{name}: b8000 {:x?}", device.read(Region::VGA, 0xb8000, Width::B2));
    println!("{name}: 3bc {:x?}", device.read(Region::VGA, 0x3bc, Width::B1));
    println!(
        "{name}: ring {:?}",
        device.file(Region::CONFIG).map(|file| trapline_io::ring::probe(&*file.fd))
    );
    Ok(())
}

fn map(iommu: &Iommu, mib: u64) -> Outcome {
    let size = mib << 20;
    let memory: Arc<MmapRegion> = Arc::new(MmapRegion::new(usize::try_from(size)?)?);
    let go = AtomicBool::new(false);
    let start = Instant::now();
    iommu.map(Gpa(0), &memory, 0, size, &go)?;
    println!("{mib} MiB mapped in {:?}", start.elapsed());
    let told = |done: Result<(), DmaError>| done.map_err(|error| error.to_string());
    println!("again: {:?}", told(iommu.map(Gpa(1 << 20), &memory, 0, 4096, &go)));
    println!("part: {:?}", told(iommu.unmap(Gpa(0), 1 << 20)));
    iommu.unmap(Gpa(0), size)?;
    // Over the addresses of message interrupts, and far out.
    println!("across: {:?}", told(iommu.map(Gpa(0xfe00_0000), &memory, 0, size, &go)));
    println!("unmapped: {:?}", told(iommu.unmap(Gpa(0xfe00_0000), size)));
    println!("far: {:?}", told(iommu.map(Gpa(1 << 50), &memory, 0, 4096, &go)));
    iommu.map(Gpa(0), &memory, 0, size, &go)?;
    Ok(())
}

fn connect(device: &mut Device) -> Outcome {
    let name = device.name().to_owned();
    let bells: Vec<_> = (0..40).map(|_| eventfd(0, EventfdFlags::NONBLOCK)).collect::<Result<_, _>>()?;
    let fds: Vec<_> = bells.iter().map(AsFd::as_fd).collect();
    let irqs = device.irqs();
    if irqs.intx {
        println!("{name}: INTx {:?} {:?}", device.enable_intx(fds[0], fds[1]), device.disable_intx());
    }
    for (kind, count) in [(Signalled::Msi, irqs.msi), (Signalled::Msix, irqs.msix)] {
        let count = usize::from(count).min(fds.len());
        if count > 0 {
            let all = device.enable_vectors(kind, 0, &fds[..count]);
            let one = device.enable_vectors(kind, u16::try_from(count - 1)?, &fds[..1]);
            println!("{name}: {kind:?} {all:?} {one:?} {:?}", device.disable_vectors(kind));
        }
    }
    println!("{name}: too many {:?}", device.enable_vectors(Signalled::Msi, 30, &fds));
    Ok(())
}
