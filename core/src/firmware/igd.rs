//! What SeaBIOS finds of Intel's integrated graphics: it copies the OpRegion to reserved RAM and writes the address to
//! the adapter's register ASLS, and sets stolen memory aside, whose address goes to BDSM (QEMU's
//! `docs/igd-assign.txt`).

use trapline_devices::assigned::Igd;
use trapline_devices::platform::fw_cfg::{FileError, Items};
use trapline_devices::q35::RamSplit;

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

/// The RAM that is left to a kernel and its RAM disk where an adapter has stolen memory, which SeaBIOS sets aside
/// directly below its own tables at the end of low RAM.
#[must_use]
pub fn without_stolen(ram: RamSplit, igd: Option<&Igd>) -> RamSplit {
    let stolen = igd.map_or(0, |igd| igd.stolen_memory.next_multiple_of(1 << 20));
    RamSplit { low: ram.low.saturating_sub(stolen), ..ram }
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

    #[test]
    fn a_ram_disk_does_not_lie_in_stolen_memory() {
        let igd = Igd { opregion: Vec::new(), stolen_memory: 64 << 20 };
        let ram = RamSplit::of(4 << 30);
        assert_eq!(without_stolen(ram, None), ram);
        assert_eq!(without_stolen(ram, Some(&igd)), RamSplit { low: ram.low - (64 << 20), ..ram });
        assert_eq!(without_stolen(RamSplit::of(32 << 20), Some(&igd)).low, 0);
    }
}
