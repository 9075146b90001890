//! Files taken for firmware.

use std::cell::RefCell;

use super::Named;
use trapline::firmware::image::firmware;

thread_local! {
    static FILE: RefCell<Option<Named>> = const { RefCell::new(None) };
}

/// Firmware comes in units of 64 KiB: the input is repeated up to one, or taken as it is.
fn inputs(data: &[u8]) -> [Vec<u8>; 2] {
    let whole = data.iter().copied().cycle().take(if data.is_empty() { 0 } else { 64 << 10 });
    [data.to_vec(), whole.collect()]
}

/// Carries out what `data` says.
pub fn run(data: &[u8]) {
    FILE.with_borrow_mut(|file| {
        let file = file.get_or_insert_with(|| Named::new().expect("a file in memory"));
        for bytes in inputs(data) {
            let path = file.fill(&bytes).expect("a file in memory");
            if let Ok(image) = firmware(Some(&path)) {
                assert!(!image.bytes.is_empty() && image.bytes.len().is_multiple_of(64 << 10));
            }
        }
    });
}
