//! A ROM that firmware takes, made from a file that has one in it.
//!
//! What stands before and behind the images is cut off, images may be chosen, ids and checksums are put right as
//! [`mod@repair`](mod@super::repair) does it, and the last image alone says that it is the last. What is right stays
//! as it is, byte for byte. What is missing cannot be made up: then there is an error and no ROM.

use std::fmt;

use super::check::{self, About, Firmware, Size};
use super::image::{self, CodeType, Image, chain};
use super::repair::{Finding, Ids, Repair, examine, repair};

/// What to make of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// The function that the ROM is to be for; without it ids stay as they are.
    pub ids: Option<Ids>,
    /// The images to keep; all if none is named.
    pub keep: Vec<CodeType>,
}

/// A ROM and how it came to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// The ROM: its images one behind another.
    pub rom: Vec<u8>,
    /// What was changed, in its order.
    pub done: Vec<Done>,
}

/// One thing that was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// So many bytes before the first image were cut off.
    Before(usize),
    /// So many bytes behind the last image were cut off.
    Behind(usize),
    /// The image that was at this offset was left out.
    LeftOut(usize, CodeType),
    /// The image at this offset says now whether it is the last.
    Marked(usize, bool),
    /// An image is for this function now, or its checksum is right.
    Repaired(Finding),
}

/// Why there is no ROM to be made of a file. The text fits behind the name of the file and a colon.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfixable {
    /// There is no image in it.
    #[error("{0}")]
    NoRom(String),
    /// Images were asked for that it does not have.
    #[error("it has none of the images that are to be kept; it has {0}")]
    NothingKept(String),
    /// The file ends before an image that is to be kept.
    #[error(
        "the image at {image:#x} goes on to {end:#x}, but the file ends at {have:#x}: what is missing cannot be made up"
    )]
    Cut {
        /// The image.
        image: usize,
        /// Where it ends.
        end: usize,
        /// Where the file ends.
        have: usize,
    },
    /// Something else that no change of ours puts right.
    #[error("{0}")]
    Stays(String),
}

/// Makes a ROM of `file` as `wish` has it. It keeps the order of the images. An image for a BIOS in it is one that
/// a BIOS runs.
///
/// # Errors
/// See [`Unfixable`].
pub fn fix(file: &[u8], wish: &Wish) -> Result<Fixed, Unfixable> {
    let report = check::check(file, About::default());
    let from_start = file.get(report.start..).unwrap_or_default();
    let chain = chain(from_start);
    if chain.images.is_empty() {
        let why = report.remarks.into_iter().next().map(|remark| remark.text);
        return Err(Unfixable::NoRom(why.unwrap_or_else(|| "it has no image".to_owned())));
    }
    let mut done = Vec::new();
    done.extend((report.start > 0).then_some(Done::Before(report.start)));
    let end = chain.images.last().map_or(0, |last| last.offset.saturating_add(last.length));
    let rest = from_start.len().saturating_sub(end);
    done.extend((rest > 0).then_some(Done::Behind(rest)));
    let mut rom = Vec::new();
    for image in &chain.images {
        if !wish.keep.is_empty() && !wish.keep.contains(&image.code) {
            done.push(Done::LeftOut(image.offset, image.code));
            continue;
        }
        rom.extend_from_slice(whole(from_start, image)?);
    }
    if rom.is_empty() {
        let mut names: Vec<String> = chain.images.iter().map(|image| image.code.to_string()).collect();
        names.dedup();
        return Err(Unfixable::NothingKept(names.join(", ")));
    }
    let images = mark(&mut rom, &mut done)?;
    put_right(&mut rom, images, wish.ids, &mut done)?;
    Ok(Fixed { rom, done })
}

fn whole<'a>(rom: &'a [u8], image: &Image) -> Result<&'a [u8], Unfixable> {
    let end = image.offset.saturating_add(image.length);
    let have = rom.len();
    rom.get(image.offset..end).ok_or(Unfixable::Cut { image: image.offset, end, have })
}

/// Lets each image say whether it is the last, and gives back how many there are.
fn mark(rom: &mut [u8], done: &mut Vec<Done>) -> Result<usize, Unfixable> {
    let mut images = Vec::new();
    let mut at = 0;
    while at < rom.len() {
        let image = image::read(rom, at);
        let image =
            image.map_err(|broken| Unfixable::Stays(format!("the chain of images is broken: {broken}")))?;
        at += image.length;
        images.push(image);
    }
    if images.first().is_some_and(|image| image.own) {
        return Err(Unfixable::Stays(
            "an image of NVIDIA's own would be the first, which firmware does not find".into(),
        ));
    }
    for (image, marks) in images.iter().zip(image::marks(&images)) {
        let before = image::marked(image);
        image::mark(rom, image, marks);
        if image::read(rom, image.offset).is_ok_and(|now| image::marked(&now) != before) {
            done.push(Done::Marked(image.offset, marks.0));
        }
    }
    Ok(images.len())
}

fn put_right(rom: &mut [u8], images: usize, ids: Option<Ids>, done: &mut Vec<Done>) -> Result<(), Unfixable> {
    let repairs = repair(rom, ids, Repair::All).into_iter();
    let repairs = repairs
        .filter(|finding| matches!(finding, Finding::IdChanged { .. } | Finding::ChecksumChanged { .. }));
    done.extend(repairs.map(Done::Repaired));
    // Images of which one reaches into another may undo each other's repair.
    let left = examine(rom, ids).into_iter().find(|finding| *finding != Finding::NoBios);
    if let Some(finding) = left {
        return Err(Unfixable::Stays(finding.to_string()));
    }
    let report = check::check(rom, About { ids, shadow: false });
    // So may the marks.
    let lost = report.parts.len() != images;
    let has_bios = report.parts.iter().any(|part| part.image.code == CodeType::Bios);
    let refused = report.verdict(Firmware::Bios).err().filter(|_| has_bios);
    let images: Vec<Image> = report.parts.into_iter().map(|part| part.image).collect();
    let mut marks = images.iter().zip(image::marks(&images));
    let unmarked = marks.any(|(image, (pcir, npde))| {
        image.pcir_last != pcir || image.npde.is_some_and(|structure| structure.last != npde)
    });
    match refused {
        Some(why) => Err(Unfixable::Stays(why)),
        None if unmarked || lost => Err(Unfixable::Stays("its images reach into each other".to_owned())),
        None => Ok(()),
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Done::Before(bytes) => write!(f, "cut off {} before the first image", Size(*bytes)),
            Done::Behind(bytes) => write!(f, "cut off {} behind the last image", Size(*bytes)),
            Done::LeftOut(at, code) => write!(f, "left out the {code} image that was at {at:#x}"),
            Done::Marked(at, true) => write!(f, "marked the image at {at:#x} as the last"),
            Done::Marked(at, false) => write!(f, "marked the image at {at:#x} as one that another follows"),
            Done::Repaired(Finding::IdChanged { image, was, wanted }) => {
                write!(f, "made the image at {image:#x}, of {was}, one for {wanted}")
            }
            Done::Repaired(Finding::ChecksumChanged { image }) => {
                write!(f, "made the checksum of the image at {image:#x} right")
            }
            Done::Repaired(finding) => finding.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests;
