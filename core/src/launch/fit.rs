//! How wide the guest's physical addresses are, and whether everything fits into them.
//!
//! The width is what the processor can address, or what the IOMMU does if that is less: firmware puts large
//! BARs at the end of what it is told, and a BAR that the IOMMU does not reach is none that other functions
//! reach. Of the widths up to there one is taken that firmware believes; if the functions do not fit with it,
//! a narrower one.

use anyhow::{Context, Result, bail, ensure};
use trapline_devices::q35::{HIGH_RAM, RamSplit};
use trapline_io::{Gpa, Span};
use trapline_vcpu::cpuid::Cpuid;

use crate::config::PHYS_BITS;
use crate::firmware::placement::{self, Function, Guest, Misfit, Plan, Vendor, Version};

/// What bounds the guest's addresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds<'a> {
    /// How many bits the host's processors have for a guest.
    pub(super) processor: u8,
    /// Whose they are.
    pub(super) vendor: Vendor,
    /// What functions of the host reach by DMA, ascending; empty where none is given.
    pub(super) reach: &'a [Span<Gpa>],
    /// What a person asked for.
    pub(super) wish: Option<u8>,
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fit {
    /// How many bits of a physical address the guest is told.
    pub(super) phys_bits: u8,
    /// What the memory map is to reserve above 4 GiB.
    pub(super) reserved: Vec<Span<Gpa>>,
    /// Where everything will be, if the firmware is one that is known.
    pub(super) plan: Option<Plan>,
}

impl<'a> Bounds<'a> {
    /// Those of this processor.
    pub(super) fn new(cpuid: &Cpuid, reach: &'a [Span<Gpa>], wish: Option<u8>) -> Bounds<'a> {
        Bounds { processor: cpuid.phys_bits(), vendor: Vendor::of(cpuid.vendor()), reach, wish }
    }

    /// How many bits the IOMMU has, if it matters.
    fn iommu(&self) -> Option<u8> {
        let last = self.reach.last()?.last().0;
        let bits = last.checked_add(1).map_or(u64::BITS, u64::ilog2);
        u8::try_from(bits).ok()
    }

    /// The widths to be tried, best first.
    fn widths(&self) -> Result<Vec<u8>> {
        let processor = self.processor;
        if let Some(wish) = self.wish {
            ensure!(
                wish <= processor,
                "--phys-bits {wish}: this host's processors have {processor}; give {processor} or less"
            );
            return Ok(vec![wish]);
        }
        let most = self.iommu().map_or(processor, |iommu| iommu.min(processor));
        let believed = |bits: &u8| placement::is_believed(*bits, self.vendor);
        let widths = (*PHYS_BITS.start()..=most).rev().filter(believed);
        Ok(widths.chain((!believed(&most)).then_some(most)).collect())
    }

    /// The gaps in what the IOMMU reaches, above 4 GiB and below addresses of so many bits.
    fn gaps(&self, bits: u8) -> Vec<Span<Gpa>> {
        let all = Span::of_len(Gpa(HIGH_RAM), (1 << bits) - HIGH_RAM);
        let pairs = self.reach.iter().zip(self.reach.iter().skip(1));
        let gap = |(before, after): (&Span<Gpa>, &Span<Gpa>)| {
            Span::new(Gpa(before.last().0.checked_add(1)?), Gpa(after.first().0.checked_sub(1)?))
        };
        pairs.filter_map(|pair| all?.intersection(gap(pair)?)).collect()
    }

    /// An error if functions of the host do not reach all of the guest's RAM.
    fn reaches(&self, ram: RamSplit) -> Result<()> {
        let pieces = ram.pieces().filter_map(|(at, len)| Span::of_len(at, len));
        for high in pieces.filter(|piece| piece.first() >= Gpa(HIGH_RAM)) {
            let holds = |range: &Span<Gpa>| range.contains(high.first()) && range.contains(high.last());
            ensure!(
                self.reach.is_empty() || self.reach.iter().any(holds),
                "--memory: the guest's memory at {high:?} lies where this host's IOMMU reaches only {:?}; give the guest less",
                self.reach
            );
        }
        Ok(())
    }
}

/// Takes the largest width there is, for a machine whose registers `plan` places: it is given the width, and
/// what no function of the host reaches.
///
/// # Errors
/// Theirs, and RAM that functions of the host do not reach.
pub(super) fn fit_as(
    ram: RamSplit,
    bounds: Bounds<'_>,
    plan: impl FnOnce(u8, &[Span<Gpa>]) -> Result<Plan>,
) -> Result<Fit> {
    bounds.reaches(ram)?;
    let phys_bits = bounds.widths()?.into_iter().max().context("guest physical addresses have no width")?;
    let reserved = bounds.gaps(phys_bits);
    let plan = plan(phys_bits, &reserved)?;
    Ok(Fit { phys_bits, reserved, plan: Some(plan) })
}

/// Finds a width with which everything fits; `firmware` is the version of SeaBIOS, if it is one.
///
/// # Errors
/// There is none: the sum that does not fit, and the way out.
pub(super) fn fit(
    functions: &[Function],
    ram: RamSplit,
    firmware: Option<Version>,
    bounds: Bounds<'_>,
) -> Result<Fit> {
    bounds.reaches(ram)?;
    let mut first = None;
    for phys_bits in bounds.widths()? {
        let reserved = bounds.gaps(phys_bits);
        let Some(version) = firmware else {
            placement::holds(ram, phys_bits)?;
            return Ok(Fit { phys_bits, reserved, plan: None });
        };
        let guest = Guest { functions, ram, phys_bits, vendor: bounds.vendor, reserved: &reserved, floor: 0 };
        match placement::place(version, &guest) {
            Ok(plan) => return Ok(Fit { phys_bits, reserved, plan: Some(plan) }),
            Err(misfit) => first = first.or(Some((misfit, version))),
        }
    }
    let Some((misfit, version)) = first else { bail!("guest physical addresses have no width") };
    bail!("{misfit} (as SeaBIOS {version} places it{})", way_out(&misfit, bounds));
}

/// What bounds the width, where that is what is too small.
fn way_out(misfit: &Misfit, bounds: Bounds<'_>) -> String {
    let processor = bounds.processor;
    match (misfit, bounds.iommu(), bounds.wish) {
        (Misfit::High { .. } | Misfit::Ram { .. }, _, Some(wish)) if wish < processor => {
            format!("; --phys-bits can be up to {processor} here")
        }
        (Misfit::High { .. }, Some(iommu), None) if iommu < processor => format!(
            "; the processor has {processor} bits and the IOMMU {iommu}: --phys-bits {processor} goes past it, and \
             functions then do not reach each other's memory"
        ),
        (Misfit::High { .. } | Misfit::Ram { .. }, ..) => format!("; the processor has {processor} bits"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use trapline_devices::pci::{Bar, BarKind, Devfn};

    use super::*;

    const GIB: u64 = 1 << 30;
    const VERSION: Option<Version> = Some(Version(1, 16, 3));

    fn span(first: u64, last: u64) -> Span<Gpa> {
        Span::new(Gpa(first), Gpa(last)).unwrap()
    }

    /// What VT-d reaches with so many bits.
    fn vt_d(bits: u8) -> Vec<Span<Gpa>> {
        vec![span(0, 0xfedf_ffff), span(0xfef0_0000, (1 << bits) - 1)]
    }

    fn bounds(processor: u8, vendor: Vendor, reach: &[Span<Gpa>]) -> Bounds<'_> {
        Bounds { processor, vendor, reach, wish: None }
    }

    fn adapters(gib: &[u64]) -> Vec<Function> {
        let bar = |gib: u64| Bar { kind: BarKind::Memory64 { prefetchable: true }, size: gib * GIB };
        let functions = (1..).zip(gib).map(|(device, gib)| Function {
            name: format!("adapter{}", device - 1),
            parent: None,
            devfn: Devfn::new(device, 0).unwrap(),
            class: 0x0300,
            bars: [Some(bar(*gib)), None, None, None, None, None, None],
            bridge: None,
        });
        functions.collect()
    }

    fn bits(bounds: Bounds<'_>) -> u8 {
        fit(&adapters(&[1]), RamSplit::of(8 * GIB), VERSION, bounds).unwrap().phys_bits
    }

    #[test]
    fn the_width_is_what_processor_and_iommu_have_and_firmware_believes() {
        assert_eq!(bits(bounds(46, Vendor::Intel, &[])), 46);
        assert_eq!(bits(bounds(46, Vendor::Intel, &vt_d(39))), 39);
        assert_eq!(bits(bounds(39, Vendor::Intel, &vt_d(48))), 39);
        assert_eq!(bits(bounds(40, Vendor::Intel, &[])), 39);
        assert_eq!(bits(bounds(40, Vendor::Amd, &[])), 40);
        assert_eq!(bits(bounds(48, Vendor::Amd, &vt_d(39))), 39);
        assert_eq!(bits(bounds(52, Vendor::Other, &[span(0, u64::MAX)])), 52);
        assert_eq!(bits(Bounds { wish: Some(40), ..bounds(46, Vendor::Intel, &[]) }), 40);
    }

    #[test]
    fn a_wish_past_the_processor_is_refused() {
        let wish = Bounds { wish: Some(47), ..bounds(46, Vendor::Intel, &[]) };
        let error = fit(&[], RamSplit::of(GIB), VERSION, wish).unwrap_err().to_string();
        assert_eq!(error, "--phys-bits 47: this host's processors have 46; give 46 or less");
    }

    #[test]
    fn what_the_iommu_leaves_out_is_reserved() {
        let amd = [span(0, 0xfedf_ffff), span(0xfef0_0000, 0xfc_ffff_ffff), span(1 << 40, u64::MAX)];
        let found =
            fit(&adapters(&[256, 128]), RamSplit::of(4 * GIB), VERSION, bounds(40, Vendor::Amd, &amd));
        let found = found.unwrap();
        assert_eq!(found.reserved, [span(0xfd_0000_0000, 0xff_ffff_ffff)]);
        assert_eq!(found.plan.unwrap().high, Some(span(0x40_0000_0000, 0x9f_ffff_ffff)));
        let error = fit(&[], RamSplit::of(1100 * GIB), VERSION, bounds(48, Vendor::Amd, &amd)).unwrap_err();
        assert!(error.to_string().starts_with("--memory: "), "{error}");
    }

    #[test]
    fn what_does_not_fit_is_told_with_the_way_out() {
        let ram = RamSplit::of(4 * GIB);
        let error = |bounds| fit(&adapters(&[256, 128]), ram, VERSION, bounds).unwrap_err().to_string();
        let narrow = vt_d(39);
        let text = error(bounds(46, Vendor::Intel, &narrow));
        assert!(text.contains("end at 0xa000000000, and with 39 bits"), "{text}");
        assert!(
            text.contains("SeaBIOS 1.16.3") && text.contains("the IOMMU 39: --phys-bits 46 goes past"),
            "{text}"
        );
        let text = error(bounds(39, Vendor::Intel, &[]));
        assert!(text.ends_with("; the processor has 39 bits)"), "{text}");
        let text = error(Bounds { wish: Some(39), ..bounds(46, Vendor::Intel, &[]) });
        assert!(text.ends_with("; --phys-bits can be up to 46 here)"), "{text}");
    }

    #[test]
    fn other_firmware_is_not_told_beforehand() {
        let found = fit(&adapters(&[256]), RamSplit::of(GIB), None, bounds(36, Vendor::Intel, &[])).unwrap();
        assert_eq!(found, Fit { phys_bits: 36, reserved: Vec::new(), plan: None });
        let large = fit(&[], RamSplit::of(65 * GIB), None, bounds(36, Vendor::Intel, &[])).unwrap_err();
        assert!(large.to_string().contains("it ends at 0x10c0000000"), "{large}");
    }
}
