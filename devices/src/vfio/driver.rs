//! What the name of a function's driver on the host says.

/// Whether it gives functions away: vfio-pci, or one of its variants for some devices, all so named.
pub fn gives_away(driver: &str) -> bool {
    driver.contains("vfio")
}

/// Whether it keeps the others of an IOMMU group from being given away. The port drivers of bridges do
/// not: they do no DMA of their own.
pub fn holds_group(driver: &str) -> bool {
    !gives_away(driver) && !matches!(driver, "pcieport" | "pci-stub" | "shpchp")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_are_known_by_their_names() {
        for (driver, gives, holds) in [
            ("vfio-pci", true, false),
            ("nvgrace-gpu-vfio-pci", true, false),
            ("pcieport", false, false),
            ("pci-stub", false, false),
            ("snd_hda_intel", false, true),
        ] {
            assert_eq!((gives_away(driver), holds_group(driver)), (gives, holds), "{driver}");
        }
    }
}
