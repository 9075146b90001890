//! Assigned functions over the kernel's VFIO. `TRAPLINE_VFIO` names functions of this host that are
//! bound to vfio-pci and used by nobody else, separated by spaces: QEMU's edu, e1000e or nvme; the laboratory
//! has those.

use std::time::{Duration, Instant};

use trapline_devices::assigned::{Function, Options, Placement};
use trapline_devices::pci::spec;
use trapline_devices::vfio::{Device as VfioDevice, Interface, Iommu, Settings};
use trapline_io::{Device, Region, Width};

#[path = "assigned_card/card.rs"]
mod fake;
use fake::{Host, message};

type Driver = fake::Driver<VfioDevice>;

const BAR: Region = Region::bar(0);
const FEE: u32 = 0xfee0_0000;

fn soon(mut what: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(5) {
        if what() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

fn capability(driver: &mut Driver, id: u8) -> Option<u16> {
    let mut at = driver.get16(spec::CAPABILITIES) & 0xfc;
    while at != 0 {
        let [here, next] = driver.get16(at).to_le_bytes();
        if here == id {
            return Some(at);
        }
        at = next.into();
    }
    None
}

fn set(driver: &mut Driver, offset: u64, value: u32) {
    driver.0.write(BAR, offset, Width::B4, value.into()).unwrap();
}

fn get(driver: &mut Driver, offset: u64) -> u64 {
    driver.0.read(BAR, offset, Width::B4).unwrap()
}

#[test]
fn in_the_lab_functions_interrupt_and_sleep() {
    let Ok(names) = std::env::var("TRAPLINE_VFIO") else {
        println!("skipped: TRAPLINE_VFIO names no function of this host");
        return;
    };
    let iommu = Iommu::new(Interface::Auto);
    for name in names.split_whitespace() {
        let device = VfioDevice::open(name.parse().unwrap(), &iommu, Settings::default()).unwrap();
        let host = Host::new();
        let options = Options { placement: Placement::BehindPort, ..host.options() };
        let mut driver = fake::Driver(Function::open(device, options).unwrap());
        driver.0.allow_dma();
        driver.set32(0x10, 0xe000_0000);
        driver.set16(4, 6);
        assert!(!driver.0.claims().ranges.is_empty());
        match driver.get32(0) {
            0x11e8_1234 => edu(&mut driver, &host),
            0x10d3_8086 => e1000e(&mut driver, &host),
            0x0010_1b36 => nvme(&mut driver, &host),
            // An adapter without interrupts, which is for another test.
            0x1111_1234 => continue,
            other => panic!("{name}: {other:08x} is not known to this test"),
        }
        sleep(&mut driver);
        driver.0.reset();
        assert!(driver.0.claims().ranges.is_empty());
        assert_eq!((driver.get16(4), host.lines(), host.vectors()), (0, 1, 0));
        assert!(driver.0.read(BAR, 0, Width::B4).is_err(), "decode is off at the device too");
        println!("{name}: done");
    }
}

/// Register 60h raises an interrupt, 64h takes it back.
fn edu(driver: &mut Driver, host: &Host) {
    assert_eq!(get(driver, 0), 0x0100_00ed);
    set(driver, 0x60, 1);
    assert!(soon(|| host.asserted()), "INTx");
    host.acknowledge();
    assert!(soon(|| host.asserted()), "INTx, still asserted when acknowledged");
    set(driver, 0x64, 1);
    host.acknowledge();
    std::thread::sleep(Duration::from_millis(50));
    assert!(!host.asserted());
    let msi = capability(driver, spec::CAP_MSI).unwrap();
    driver.set32(msi + 4, FEE);
    driver.set16(msi + 12, 0x41);
    driver.set16(msi + 2, 1);
    set(driver, 0x60, 1);
    let expected = [message(FEE.into(), 0x41)];
    assert!(soon(|| host.delivered() == expected), "MSI");
    set(driver, 0x64, 1);
    driver.set16(msi + 2, 0);
    set(driver, 0x60, 1);
    assert!(soon(|| host.asserted()), "INTx again");
    set(driver, 0x64, 1);
    host.acknowledge();
}

/// Two receive queues with vectors 0 and 2, caused by a write to the cause set register.
fn e1000e(driver: &mut Driver, host: &Host) {
    const CAUSE_SET: u64 = 0xc8;
    const MASK_SET: u64 = 0xd0;
    const VECTORS: u64 = 0xe4;
    const QUEUES: [u32; 2] = [1 << 20, 1 << 21];
    let express = capability(driver, spec::CAP_EXPRESS).unwrap();
    assert_eq!(driver.get16(express + 2) & 0xf0, 0, "an endpoint with a link");
    assert_ne!(driver.get16(express + 0x12) & 0xf, 0);
    assert_eq!(driver.get32(0x100) & 0xffff, 1, "error reporting");
    let msix = capability(driver, spec::CAP_MSIX).unwrap();
    driver.set16(msix + 2, 0xc000);
    driver.set16(msix + 2, 0x8000);
    for (vector, data) in [(0, 0x41), (2, 0x43)] {
        driver.entry(vector, 0, FEE);
        driver.entry(vector, 2, data);
        driver.entry(vector, 3, 0);
    }
    set(driver, VECTORS, 0x8 | 0xa << 4);
    set(driver, MASK_SET, QUEUES[0] | QUEUES[1]);
    for (queue, data) in [(0, 0x41), (1, 0x43)] {
        set(driver, CAUSE_SET, QUEUES[queue]);
        // A cause that is still set may come again with the next.
        let expected = message(FEE.into(), data);
        assert!(soon(|| host.delivered().contains(&expected)), "queue {queue}");
    }
    driver.entry(2, 3, 1);
    set(driver, MASK_SET, QUEUES[1]);
    get(driver, 0xc0);
    set(driver, MASK_SET, QUEUES[1]);
    set(driver, CAUSE_SET, QUEUES[1]);
    assert!(soon(|| driver.pending() == 4), "kept while masked");
    let second = message(FEE.into(), 0x43);
    assert!(!host.delivered().contains(&second));
    driver.entry(2, 3, 0);
    assert!(host.delivered().contains(&second));
    driver.set16(msix + 2, 0);
}

/// A function level reset: the kernel waits 100 ms for it, and the function works after it.
fn nvme(driver: &mut Driver, host: &Host) {
    const VERSION: u64 = 8;
    let express = capability(driver, spec::CAP_EXPRESS).unwrap();
    let msix = capability(driver, spec::CAP_MSIX).unwrap();
    assert_ne!(driver.get32(express + 4) & 1 << 28, 0, "it can be reset");
    let version = get(driver, VERSION);
    driver.set16(msix + 2, 0x8000);
    assert_eq!((host.vectors(), host.lines()), (1, 0));
    let control = driver.get16(express + 8);
    let start = Instant::now();
    driver.set16(express + 8, control | 0x8000);
    assert!(start.elapsed() >= Duration::from_millis(100), "not reset: {:?}", start.elapsed());
    assert_eq!((host.vectors(), host.lines(), driver.get16(4), driver.get32(0x10) & !0xf), (0, 1, 0, 0));
    assert!(driver.0.claims().ranges.is_empty());
    assert!(driver.0.read(BAR, 0, Width::B4).is_err(), "decode is off at the device too");
    driver.set32(0x10, 0xe000_0000);
    driver.set16(4, 6);
    assert_eq!(get(driver, VERSION), version);
    println!("reset in {:?}", start.elapsed());
}

fn sleep(driver: &mut Driver) {
    let Some(power) = capability(driver, spec::CAP_POWER) else { return };
    let first = get(driver, 0);
    driver.set16(power + 4, 3);
    assert_eq!(driver.get16(power + 4) & 3, 3);
    assert!(driver.0.claims().ranges.is_empty());
    assert!(driver.0.read(BAR, 0, Width::B4).is_err(), "asleep");
    driver.set16(power + 4, 0);
    assert_eq!(get(driver, 0), first);
    assert!(!driver.0.claims().ranges.is_empty());
    println!("slept and woke");
}
