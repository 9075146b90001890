//! What SeaBIOS finds of Intel's integrated graphics: it copies the OpRegion to reserved RAM and writes the address to
//! the adapter's register ASLS, and sets stolen memory aside, whose address goes to BDSM (QEMU's
//! `docs/igd-assign.txt`).

use trapline_devices::assigned::Igd;
use trapline_devices::platform::fw_cfg::{FileError, Items};

/// Adds the files.
///
/// # Errors
/// There are such files.
pub fn add(igd: &Igd, items: &mut Items) -> Result<(), FileError> {
    items.add_file("etc/igd-opregion", igd.opregion.clone())?;
    if igd.stolen_memory > 0 {
        items.add_file("etc/igd-bdsm-size", igd.stolen_memory.to_le_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firmware_finds_both_by_name() {
        let mut items = Items::new();
        add(&Igd { opregion: b"IntelGraphicsMem".to_vec(), stolen_memory: 64 << 20 }, &mut items).unwrap();
        let mut file = |name: &str| {
            let key = items.key_of(name)?;
            Some(items.contents(key).to_vec())
        };
        assert_eq!(file("etc/igd-opregion").unwrap(), b"IntelGraphicsMem");
        assert_eq!(file("etc/igd-bdsm-size").unwrap(), [0, 0, 0, 4, 0, 0, 0, 0]);
    }
}
