//! The single things that are said of a ROM.

use super::super::SIGNATURE;
use super::super::compare::{Comparison, Judgement};
use super::super::efi::{Body, Graphics};
use super::super::image::{Broken, CodeType};
use super::super::repair::{Finding, examine};
use super::super::shadow;
use super::{About, Part, Size};

/// Base class of display controllers.
const DISPLAY: u32 = 0x03;
/// What NVIDIA's flash starts with, before the first image.
const NVIDIA_FLASH: &[u8] = b"NVGI";
/// Where a firmware puts the ROMs that it copies: at multiples of this.
const SHADOW_ALIGN: usize = 2048;

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It is good to know.
    Note,
    /// Something may not work.
    Warning,
    /// Firmware does not run the image, or shows nothing if it does.
    Stops,
}

/// One thing that is said of a ROM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// How much it matters.
    pub severity: Severity,
    /// The offset of the image that it is about; `None` if it is about all of it.
    pub image: Option<usize>,
    /// A name for programs; it stays.
    pub code: &'static str,
    /// What was found and what that means, without a full stop.
    pub text: String,
}

impl Remark {
    fn of(image: usize, severity: Severity, code: &'static str, text: String) -> Remark {
        Remark { severity, image: Some(image), code, text: format!("the image at {image:#x} {text}") }
    }

    fn all(severity: Severity, code: &'static str, text: String) -> Remark {
        Remark { severity, image: None, code, text }
    }

    /// Whether it says that the image is for another function.
    pub(super) fn is_of_another(&self) -> bool {
        ["other-device", "other-vendor"].contains(&self.code)
    }
}

/// Of a file in which no ROM starts.
pub(super) fn no_rom(file: &[u8]) -> Remark {
    let blank = file.first().filter(|first| file.iter().all(|byte| byte == *first));
    let (code, text) = match (file, blank) {
        ([], _) => ("empty", "it is empty: the ROM was not read at all".to_owned()),
        (_, Some(0xff)) => (
            "blank",
            "it is all ones: when it was read the device slept, did not decode, or has no ROM of its own"
                .to_owned(),
        ),
        (_, Some(byte)) => ("blank", format!("it is {byte:#04x} throughout: this is no ROM")),
        _ => ("no-rom", "no image with 55 aa and a PCI data structure (PCIR) is anywhere in it".to_owned()),
    };
    Remark::all(Severity::Stops, code, text)
}

/// Of a ROM with `before` in front of it in its file.
pub(super) fn remarks(before: &[u8], rom: &[u8], parts: &[Part], about: About) -> Vec<Remark> {
    let mut found = Vec::new();
    if !before.is_empty() {
        let what = if before.starts_with(NVIDIA_FLASH) { "NVIDIA's flash header" } else { "other data" };
        let text = format!(
            "{what} of {:#x} bytes stands before the first image, so that firmware finds none (rom fix cuts it off)",
            before.len()
        );
        found.push(Remark::all(Severity::Stops, "data-before", text));
    }
    if about.shadow {
        let text = "it is the copy that the host's firmware has already run, not the card's own: a guest's BIOS stays \
                    dark on it (read it while another adapter is the boot adapter)";
        found.push(Remark::all(Severity::Stops, "shadow", text.to_owned()));
    }
    found.extend(examine(rom, about.ids).into_iter().map(Remark::from));
    for part in parts {
        sizes(part, &mut found);
        uefi(part, &mut found);
        contents(part, &mut found);
    }
    behind(rom, parts, &mut found);
    // Those of NVIDIA's own are for nobody else.
    let seen = parts.iter().rposition(|part| !part.image.own).unwrap_or(0);
    let hidden = parts.iter().take(seen).find(|part| part.image.pcir_last);
    found.extend(hidden.map(|part| {
        let text = "is the last by its PCI data structure, and not by NVIDIA's: firmware does not see what follows \
                    (rom fix shows it)";
        Remark::of(part.image.offset, Severity::Note, "hidden-images", text.to_owned())
    }));
    if !parts.is_empty() && parts.iter().all(|part| part.image.code != CodeType::Efi) {
        let text =
            "it has no image for UEFI (GOP): OVMF has no screen on this adapter, a BIOS does not need one";
        found.push(Remark::all(Severity::Note, "no-uefi", text.to_owned()));
    }
    found
}

/// What a BIOS copies and what the chain says.
fn sizes(part: &Part, found: &mut Vec<Remark>) {
    let image = &part.image;
    if image.code != CodeType::Bios {
        return;
    }
    let (bios, chain) = (image.bios_length, image.length);
    let sizes = format!("{} by its third byte, {} by its PCI data structure", Size(bios), Size(chain));
    let (severity, code, means) = match bios.cmp(&chain) {
        _ if bios == 0 => (Severity::Stops, "no-size", "a BIOS copies nothing of it"),
        std::cmp::Ordering::Equal => return,
        std::cmp::Ordering::Less => (
            Severity::Warning,
            "runtime-size",
            "one that has run often leaves less; then this is no untouched image, and a BIOS may stay dark on it",
        ),
        std::cmp::Ordering::Greater => {
            (Severity::Warning, "size-beyond", "a BIOS copies, and adds up, what follows it as well")
        }
    };
    found.push(Remark::of(image.offset, severity, code, format!("is {sizes}: {means}")));
}

/// What UEFI would make of it.
fn uefi(part: &Part, found: &mut Vec<Remark>) {
    if part.image.code != CodeType::Efi {
        return;
    }
    let mut say =
        |severity, code, text: String| found.push(Remark::of(part.image.offset, severity, code, text));
    let Some(efi) = part.efi else {
        let text = "has no header for UEFI (0x0ef1), so that UEFI does not load it".to_owned();
        return say(Severity::Stops, "no-efi-header", text);
    };
    if !efi.machine.runs_on_x64() {
        say(
            Severity::Stops,
            "efi-machine",
            format!("is for {}, which a UEFI of x64 does not load", efi.machine),
        );
    }
    if !efi.subsystem.is_driver() {
        let text = format!("is no driver but {}: UEFI may not start it", efi.subsystem);
        say(Severity::Warning, "efi-subsystem", text);
    }
    match efi.body {
        Body::Damaged => say(
            Severity::Stops,
            "efi-damaged",
            "has no program in it that UEFI could load: it is cut or damaged".into(),
        ),
        Body::Unknown(number) => say(
            Severity::Stops,
            "efi-compression",
            format!("is compressed by method {number:#x}, which UEFI does not know: it is not loaded"),
        ),
        Body::Plain | Body::Compressed => {}
    }
    match (efi.body, efi.graphics) {
        // Whatever it would offer, UEFI gets none of it.
        (Body::Damaged, _) => {}
        _ if !is_display(part) => {}
        (_, Graphics::Hidden) => say(
            Severity::Note,
            "gop-hidden",
            "cannot be looked into: whether it has a graphics output protocol (GOP) is not known".into(),
        ),
        (_, Graphics::Absent) => say(
            Severity::Warning,
            "no-gop",
            "does not name the graphics output protocol (GOP): UEFI has no screen by it".into(),
        ),
        (_, Graphics::Named) => {}
    }
}

/// What drivers would miss.
fn contents(part: &Part, found: &mut Vec<Remark>) {
    let (image, mut say) = (&part.image, |code, text: String| {
        found.push(Remark::of(part.image.offset, Severity::Note, code, text));
    });
    if !matches!(image.code, CodeType::Bios | CodeType::Efi) {
        return;
    }
    if !is_display(part) {
        return say("not-display", format!("is of class {:06x}, which is no display adapter", image.class));
    }
    let wanted = match image.vendor {
        super::NVIDIA => "no BIT or BMP table of NVIDIA's",
        super::AMD => "no ATOM table of AMD's (cards before R500 have none)",
        _ => return,
    };
    if image.code == CodeType::Bios && part.tables.is_none() {
        say(
            "no-tables",
            format!("has {wanted}: drivers that look for it find nothing, and it may be damaged"),
        );
    }
}

/// Whether it is for a display adapter. One that names no class, as those of QEMU's adapters, may be.
fn is_display(part: &Part) -> bool {
    part.image.class >> 16 == DISPLAY || part.image.class == 0
}

/// What lies behind the last image.
fn behind(rom: &[u8], parts: &[Part], found: &mut Vec<Remark>) {
    let Some(last) = parts.last().map(|part| &part.image).filter(|image| image.last) else { return };
    let end = last.offset.saturating_add(last.length);
    let Some(rest) = rom.get(end..) else { return };
    let Some(first) = rest.first() else { return };
    let size = Size(rest.len());
    let mut places = rom.chunks(SHADOW_ALIGN).skip(end.div_ceil(SHADOW_ALIGN));
    if rom.len() == shadow::SIZE && places.any(|bytes| bytes.starts_with(&SIGNATURE)) {
        let text = "it is as long as the area at c0000 and has another ROM behind it, as where a firmware keeps what \
                    it runs: if it was read there, a guest's BIOS stays dark on it";
        found.push(Remark::all(Severity::Warning, "shadow-like", text.to_owned()));
    } else if rest.iter().all(|byte| byte == first) {
        let text = format!("behind its last image are {size} of {first:#04x}, which nobody needs");
        found.push(Remark::all(Severity::Note, "blank-behind", text));
    } else {
        let text = format!("behind its last image are {size} of other data, which firmware does not look at");
        found.push(Remark::all(Severity::Note, "data-behind", text));
    }
}

impl From<Finding> for Remark {
    /// What a repair finds says what it is; here it says what it means as well.
    fn from(finding: Finding) -> Remark {
        let means = match finding {
            Finding::OtherDevice { .. } => {
                ": firmware passes over it (a run gives the guest one with its own id; rom fix changes a file)"
            }
            Finding::Truncated { .. } => ": firmware refuses it, or runs into nothing",
            Finding::Broken(Broken::NoSignature(0) | Broken::NoData(0) | Broken::NoLength(0)) => {
                "; no firmware runs it from a card"
            }
            Finding::Broken(_) => "; firmware sees nothing of what is there",
            Finding::IdChanged { .. }
            | Finding::OtherVendor { .. }
            | Finding::ChecksumChanged { .. }
            | Finding::ChecksumWrong { .. }
            | Finding::NoBios => "",
        };
        let (severity, image, code) = match finding {
            Finding::IdChanged { image, .. } => (Severity::Warning, Some(image), "id-changed"),
            Finding::OtherDevice { image, .. } => (Severity::Stops, Some(image), "other-device"),
            Finding::OtherVendor { image, .. } => (Severity::Stops, Some(image), "other-vendor"),
            Finding::ChecksumChanged { image } => (Severity::Warning, Some(image), "checksum-changed"),
            Finding::ChecksumWrong { image } => (Severity::Stops, Some(image), "checksum"),
            Finding::Truncated { image, .. } => (Severity::Stops, Some(image), "truncated"),
            Finding::NoBios => (Severity::Warning, None, "no-bios"),
            // With no image before it there is none at all.
            Finding::Broken(Broken::NoSignature(0) | Broken::NoData(0) | Broken::NoLength(0)) => {
                (Severity::Stops, None, "broken-chain")
            }
            Finding::Broken(_) => (Severity::Warning, None, "broken-chain"),
        };
        Remark { severity, image, code, text: format!("{finding}{means}") }
    }
}

impl From<&Comparison> for Remark {
    fn from(comparison: &Comparison) -> Remark {
        let (severity, code) = match comparison.judgement() {
            Judgement::Same => (Severity::Note, "pristine"),
            Judgement::Mended => (Severity::Note, "mended"),
            Judgement::Posted => (Severity::Stops, "posted"),
            Judgement::Other => (Severity::Warning, "other-image"),
        };
        Remark::all(severity, code, comparison.to_string())
    }
}
