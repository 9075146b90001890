//! The chipset's devices under anything a guest can do: no panic, no claim that the host could not
//! map, and the state of power-on after a reset.

use std::sync::Arc;

use proptest::prelude::*;
use trapline_devices::host::{Event, Events, Gsis};
use trapline_devices::pci::Link;
use trapline_devices::q35::{HostBridge, Lpc, Pirqs, Ram, RootPort};
use trapline_io::device::Range;
use trapline_io::{Device, Region, Width};
use vm_memory::MmapRegion;

struct Nobody;

impl Gsis for Nobody {
    fn set(&self, _gsi: u32, _level: bool) {}
}

impl Events for Nobody {
    fn report(&self, _event: Event) {}
}

fn devices() -> Vec<Box<dyn Device>> {
    let ram = Ram::new(4 << 30).unwrap();
    let firmware = Arc::new(MmapRegion::new(0x4_0000).unwrap());
    vec![
        Box::new(HostBridge::new(ram, firmware).unwrap()),
        Box::new(Lpc::new(Pirqs::new(Arc::new(Nobody)), Arc::new(Nobody))),
        Box::new(RootPort::new(Link { speed: 4, lanes: 16 })),
    ]
}

#[derive(Clone, Debug)]
struct Step {
    region: Region,
    offset: u64,
    width: Width,
    value: u64,
}

fn width() -> impl Strategy<Value = Width> {
    prop_oneof![Just(Width::B1), Just(Width::B2), Just(Width::B4), Just(Width::B8)]
}

fn step() -> impl Strategy<Value = Step> {
    let region = prop_oneof![4 => Just(7), 2 => 0..9_u8, 1 => any::<u8>()];
    let offset = prop_oneof![4 => 0..0x100_u64, 2 => 0..0x4010_u64, 1 => any::<u64>()];
    let value = prop_oneof![any::<u64>(), Just(u64::MAX), Just(0)];
    (region, offset, width(), value).prop_map(|(region, offset, width, value)| Step {
        region: Region(region),
        offset,
        width,
        value,
    })
}

/// Claims that memory slots can be made of: whole pages, inside their mapping, apart from each other.
fn check_claims(device: &dyn Device) {
    let mut direct = Vec::new();
    for claim in device.claims().ranges {
        let (Range::Memory(span), Some(mapped)) = (claim.range, claim.direct) else { continue };
        assert_eq!(span.first().0 % 4096, 0, "{span:?}");
        assert_eq!(mapped.offset % 4096, 0, "{span:?}");
        assert_eq!(span.extent() % 4096, 4095, "{span:?}");
        assert!(mapped.offset + span.extent() < mapped.memory.size() as u64, "{span:?}");
        assert!(direct.iter().all(|other| !span.overlaps(*other)), "{span:?}");
        direct.push(span);
    }
}

/// Configuration space as a guest reads it.
fn config(device: &mut dyn Device) -> Vec<u64> {
    (0..1024).map(|dword| device.read(Region::CONFIG, dword * 4, Width::B4).unwrap()).collect()
}

proptest! {
    #[test]
    fn whatever_the_guest_does(steps in proptest::collection::vec(step(), 1..60)) {
        for mut device in devices() {
            let device = &mut *device;
            let (registers, claims) = (config(device), device.claims());
            for Step { region, offset, width, value } in &steps {
                // A fault is an answer too.
                let _ = device.write(*region, *offset, *width, *value);
                if let Ok(value) = device.read(*region, *offset, *width) {
                    prop_assert_eq!(value & !width.all_ones(), 0);
                }
                check_claims(device);
            }
            device.reset();
            prop_assert_eq!(config(device), registers);
            prop_assert_eq!(device.claims().bridge, claims.bridge);
            prop_assert_eq!(device.claims().ranges, claims.ranges);
        }
    }
}
