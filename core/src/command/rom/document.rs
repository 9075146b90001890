//! A ROM as JSON, for programs: what `trapline rom check --json` prints.
//!
//! Names and forms stay; new names may come. Numbers are bytes.
//!
//! | name | what |
//! |---|---|
//! | `name`, `size` | of the file; the address, if it is a function's |
//! | `start` | where in it the ROM starts; other offsets count from there |
//! | `bios`, `uefi` | what becomes of it: `image`, the offset of the one that runs, or `null` and `reason` |
//! | `images` | a list, each with the names below |
//! | `offset`, `length`, `bios_length` | the last is what a BIOS copies |
//! | `code_type` | 0 for a BIOS, 3 for UEFI |
//! | `vendor`, `device`, `devices` | four hexadecimal digits |
//! | `class` | six hexadecimal digits |
//! | `last`, `reached` | whether it says that it is the last; whether firmware comes to it |
//! | `checksum` | what its bytes add up to, zero if right; `null` if it has none |
//! | `tables`, `efi` | in words |
//! | `remarks` | `code`, `severity` (`note`, `warning`, `stops`), `image` (an offset or `null`), `text` |
//! | `differences` | of `--against`: `judgement`, `bytes`, `places` with `start` and `end` (behind the last byte) |

use serde::Serialize;
use trapline_devices::rom::check::{Firmware, Part, Report, Severity};
use trapline_devices::rom::compare::{Comparison, Difference, Judgement};

use super::source::Found;

#[derive(Serialize)]
struct Document<'a> {
    name: &'a str,
    size: usize,
    start: usize,
    bios: Verdict,
    uefi: Verdict,
    images: Vec<Image>,
    remarks: Vec<Remark<'a>>,
    differences: Option<Differences>,
}

#[derive(Serialize)]
struct Verdict {
    image: Option<usize>,
    reason: Option<String>,
}

#[derive(Serialize)]
struct Image {
    offset: usize,
    length: usize,
    bios_length: usize,
    code_type: u8,
    vendor: String,
    device: String,
    devices: Vec<String>,
    class: String,
    last: bool,
    reached: bool,
    checksum: Option<u8>,
    tables: Option<String>,
    efi: Option<String>,
}

#[derive(Serialize)]
struct Remark<'a> {
    code: &'static str,
    severity: &'static str,
    image: Option<usize>,
    text: &'a str,
}

#[derive(Serialize)]
struct Differences {
    judgement: &'static str,
    bytes: usize,
    places: Vec<Place>,
}

#[derive(Serialize)]
struct Place {
    start: usize,
    end: usize,
}

/// The document, with a line's end.
pub(super) fn json(
    found: &Found,
    report: &Report,
    comparison: Option<&Comparison>,
) -> serde_json::Result<String> {
    let remarks = report.remarks.iter().map(|remark| Remark {
        code: remark.code,
        severity: match remark.severity {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Stops => "stops",
        },
        image: remark.image,
        text: &remark.text,
    });
    let document = Document {
        name: &found.name,
        size: report.size,
        start: report.start,
        bios: verdict(report, Firmware::Bios),
        uefi: verdict(report, Firmware::Uefi),
        images: report.parts.iter().map(image).collect(),
        remarks: remarks.collect(),
        differences: comparison.map(differences),
    };
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

fn verdict(report: &Report, firmware: Firmware) -> Verdict {
    match report.verdict(firmware) {
        Ok(at) => Verdict { image: Some(at), reason: None },
        Err(why) => Verdict { image: None, reason: Some(why) },
    }
}

fn image(part: &Part) -> Image {
    let image = &part.image;
    let id = |id: u16| format!("{id:04x}");
    Image {
        offset: image.offset,
        length: image.length,
        bios_length: image.bios_length,
        code_type: image.code.number(),
        vendor: id(image.vendor),
        device: id(image.device),
        devices: image.devices.iter().map(|device| id(*device)).collect(),
        class: format!("{:06x}", image.class),
        last: image.last,
        reached: part.reached,
        checksum: part.checksum,
        tables: part.tables.as_ref().map(ToString::to_string),
        efi: part.efi.map(|efi| efi.to_string()),
    }
}

fn differences(comparison: &Comparison) -> Differences {
    let place = |place: &Difference| Place { start: place.range.start, end: place.range.end };
    Differences {
        judgement: match comparison.judgement() {
            Judgement::Same => "same",
            Judgement::Mended => "mended",
            Judgement::Posted => "posted",
            Judgement::Other => "other",
        },
        bytes: comparison.differing,
        places: comparison.places.iter().map(place).collect(),
    }
}
