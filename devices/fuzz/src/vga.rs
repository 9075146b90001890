//! The software adapter under any accesses, and the picture that comes of them.

use super::{CONFIG, Place, Step, drive};
use trapline_devices::vga::scanout::{self, MAX_HEIGHT, MAX_WIDTH};
use trapline_devices::vga::{Adapter, DISPI, Snapshot, View};
use trapline_io::{Device, Region, Width};

const PLACES: [Place; 12] = [
    CONFIG[0],
    CONFIG[1],
    (Region::VGA, 0x3b0, 0x30),
    (Region::VGA, 0x3c0, 0x20),
    (Region::VGA, 0xa_0000, 0x2_0000),
    (Region::VGA, 0xb_fff0, 0x20),
    (Region::bar(0), 0, 0x4_0000),
    (Region::bar(0), 0xff_fff0, 0x20),
    (Region::bar(2), 0x400, 0x20),
    (Region::bar(2), 0x500, 0x18),
    (Region::bar(2), 0x5f8, 0x18),
    (DISPI, 0, 4),
];

#[derive(arbitrary::Arbitrary, Debug)]
enum Stage {
    /// An indexed register: sequencer, graphics, CRT controller, Bochs.
    Indexed(u8, u8, u8),
    Dispi(u8, u16),
    Attribute(u8, u8),
    Steps(Vec<Step>),
}

fn act(adapter: &mut Adapter, stage: Stage) {
    let mut put = |region, offset, width, value| {
        let _ = adapter.write(region, offset, width, value);
    };
    match stage {
        Stage::Indexed(group, index, value) => {
            let port = [0x3c4, 0x3ce, 0x3d4, 0x3b4][usize::from(group & 3)];
            put(Region::VGA, port, Width::B2, u64::from(value) << 8 | u64::from(index & 0x1f));
        }
        Stage::Dispi(index, value) => {
            put(Region::bar(2), 0x500 + 2 * u64::from(index % 12), Width::B2, value.into());
        }
        Stage::Attribute(index, value) => {
            let _ = adapter.read(Region::VGA, 0x3da, Width::B1);
            for byte in [index & 0x3f, value] {
                let _ = adapter.write(Region::VGA, 0x3c0, Width::B1, byte.into());
            }
        }
        Stage::Steps(steps) => drive(adapter, &PLACES, &steps),
    }
}

/// Carries out what `data` says.
pub fn run(data: &[u8]) {
    let Some(stages) = super::input::<Vec<Stage>>(data) else { return };
    let mut adapter = Adapter::new(Some(vec![0x55; 1000])).expect("video memory");
    for stage in stages {
        act(&mut adapter, stage);
    }
    let snapshot = Snapshot::of(&adapter);
    let frame = scanout::frame(&snapshot, adapter.framebuffer().bytes());
    assert!(frame.width <= MAX_WIDTH && frame.height <= MAX_HEIGHT);
    assert_eq!(frame.rgb.len(), frame.width * frame.height * 3);
    // Whoever has the two descriptors sees the same. (A read may move an index that shows nothing.)
    assert!(View::of(&adapter).frame().expect("nobody writes") == frame);
    if let Some(text) = scanout::text(&snapshot, adapter.framebuffer().bytes()) {
        assert!(text.rows().count() <= MAX_HEIGHT && !format!("{text}").contains('\0'));
    }
}
