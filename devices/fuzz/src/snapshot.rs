//! A snapshot of any content with video memory of any size, as another process may offer them.

use std::sync::OnceLock;

use trapline_devices::vga::scanout::{self, MAX_HEIGHT, MAX_WIDTH};
use trapline_devices::vga::{Adapter, Snapshot};
use vm_memory::VolatileSlice;

/// Bytes of a snapshot before the registers.
const HEAD: usize = 16;

/// A snapshot of an adapter at power-on.
fn good() -> &'static Vec<u8> {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| Snapshot::of(&Adapter::new(None).expect("video memory")).to_bytes().to_vec())
}

/// Carries out what `data` says.
pub fn run(data: &[u8]) {
    let Some(input) = super::input::<(bool, u8, &[u8])>(data) else { return };
    let (headed, size, data) = input;
    let mut bytes = good().clone();
    let from = if headed { HEAD } else { 0 };
    for (byte, fuzzed) in bytes[from..].iter_mut().zip(data) {
        *byte = *fuzzed;
    }
    if !headed {
        bytes.truncate(data.len());
    }
    let Ok(snapshot) = Snapshot::from_bytes(&bytes) else { return };
    let size = [0, 1, 4095, 256 << 10, 300_001, 1 << 20][usize::from(size % 6)];
    let rest = data.get(Snapshot::SIZE..).filter(|rest| !rest.is_empty()).unwrap_or(&[0x41, 0x1f]);
    let mut memory: Vec<u8> = rest.iter().copied().cycle().take(size).collect();
    let memory = VolatileSlice::from(memory.as_mut_slice());

    let frame = scanout::frame(&snapshot, memory);
    assert!(frame.width <= MAX_WIDTH && frame.height <= MAX_HEIGHT);
    assert_eq!(frame.rgb.len(), frame.width * frame.height * 3);
    assert_eq!(frame.pixel(frame.width, 0), None);
    if let Some(text) = scanout::text(&snapshot, memory) {
        assert!(text.rows().count() <= MAX_HEIGHT);
    }
}
