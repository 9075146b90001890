//! A ROM beside an untouched image of the same card: whether it is a copy that a firmware has run.
//!
//! A BIOS image that has run keeps its headers and a right checksum, and differs in the variables that it
//! keeps in itself, in its length, and in that no other image follows (`shadow`). A repaired one differs in ids,
//! checksum and the mark of the last image alone.

use std::fmt;
use std::ops::Range;

use super::image::{CodeType, Image, chain};
use super::repair::{self, SPARE};

/// Differing bytes with no more than this many equal ones between them are one place.
const GAP: usize = 16;
/// The most places that are kept.
const PLACES_MOST: usize = 64;
/// An image of which more than one byte in so many differs is another one.
const OTHER: usize = 4;

/// What differs in a ROM from an untouched one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// Bytes that differ, of those that both have.
    pub differing: usize,
    /// Bytes that were compared.
    pub compared: usize,
    /// Where they differ, ascending; the first 64 places.
    pub places: Vec<Difference>,
    /// Whether there are more places.
    pub more: bool,
    /// Blocks that a BIOS would copy, here and of the untouched one, if both have an image for a BIOS.
    pub bios_length: Option<(usize, usize)>,
    /// Images that are there, and that the untouched one has.
    pub images: (usize, usize),
    /// Whether a checksum is wrong that is right in the untouched one.
    pub checksum_wrong: bool,
    /// Whether the first image of both is for the same function and of the same code type.
    pub same_kind: bool,
}

/// A place that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its bytes, counted from the first of the ROM.
    pub range: Range<usize>,
    /// What is there.
    pub area: Area,
}

/// A part of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// The length that a BIOS takes.
    Length,
    /// The ids of the function, or whether it is the last image.
    Ids,
    /// A byte that makes the checksum right.
    Checksum,
    /// The rest of an image for a BIOS: code, data and variables.
    Code,
    /// Another image, or what is behind all of them.
    Beyond,
}

/// What the differences say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// There are none.
    Same,
    /// Only what a repair changes.
    Mended,
    /// A firmware has run it.
    Posted,
    /// It is another image.
    Other,
}

/// Compares the ROM `rom` with the untouched `pristine`, each from its first image on. What fills the
/// space behind the last image of the latter is not compared.
pub fn compare(rom: &[u8], pristine: &[u8]) -> Comparison {
    let (here, there) = (chain(rom).images, chain(pristine).images);
    let end = there.last().map_or(pristine.len(), |last| last.offset.saturating_add(last.length));
    let end = end.min(pristine.len());
    // What does not follow the first image was not copied.
    let own = match (here.len(), there.first()) {
        (1, Some(first)) if there.len() > 1 => first.offset.saturating_add(first.length),
        _ => end,
    };
    let compared = end.min(own).min(rom.len());
    let differs = rom.iter().zip(pristine).take(compared).enumerate().filter(|(_, (a, b))| a != b);
    let mut comparison = Comparison {
        differing: 0,
        compared,
        places: Vec::new(),
        more: false,
        bios_length: bios(&here).zip(bios(&there)).map(|(a, b)| (a.bios_length, b.bios_length)),
        images: (here.len(), there.len()),
        checksum_wrong: here.iter().any(|image| repair::is_wrong(image, rom))
            && !there.iter().any(|image| repair::is_wrong(image, pristine)),
        same_kind: here
            .first()
            .zip(there.first())
            .is_some_and(|(a, b)| (a.code, a.vendor, a.class) == (b.code, b.vendor, b.class)),
    };
    for (at, _) in differs {
        comparison.differing += 1;
        comparison.add(at, area(pristine, &there, at));
    }
    comparison
}

fn bios(images: &[Image]) -> Option<&Image> {
    images.iter().find(|image| image.code == CodeType::Bios)
}

fn area(pristine: &[u8], images: &[Image], at: usize) -> Area {
    let inside = |image: &&Image| (image.offset..image.offset.saturating_add(image.length)).contains(&at);
    let Some(image) = images.iter().find(inside) else { return Area::Beyond };
    let (from_start, from_data) = (at - image.offset, at.checked_sub(image.pcir));
    match (from_start, from_data) {
        _ if repair::spare(pristine, image) == Some(at) || from_start == SPARE => Area::Checksum,
        (_, Some(4..8 | 0x15)) => Area::Ids,
        _ if image.npde.is_some_and(|npde| at == npde.at + super::npde::INDICATOR) => Area::Ids,
        (2, _) if image.code == CodeType::Bios => Area::Length,
        _ if image.code == CodeType::Bios => Area::Code,
        _ => Area::Beyond,
    }
}

impl Comparison {
    fn add(&mut self, at: usize, area: Area) {
        if let Some(last) =
            self.places.last_mut().filter(|last| last.area == area && at <= last.range.end + GAP)
        {
            last.range.end = at + 1;
        } else if self.places.len() < PLACES_MOST {
            self.places.push(Difference { range: at..at + 1, area });
        } else {
            self.more = true;
        }
    }

    /// What the differences say.
    pub fn judgement(&self) -> Judgement {
        let shorter = self.bios_length.is_some_and(|(here, there)| here < there);
        let fewer = self.images.0 < self.images.1;
        // A firmware copies one image and runs that.
        let beyond = self.places.iter().any(|place| place.area == Area::Beyond);
        let mended = |place: &Difference| matches!(place.area, Area::Ids | Area::Checksum);
        match self.differing {
            0 if !fewer => Judgement::Same,
            _ if !self.same_kind || beyond || self.differing > self.compared / OTHER => Judgement::Other,
            _ if !shorter && !self.more && !self.checksum_wrong && self.places.iter().all(mended) => {
                Judgement::Mended
            }
            _ => Judgement::Posted,
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Comparison { differing, compared, .. } = self;
        match self.judgement() {
            Judgement::Same => return f.write_str("it is the untouched image, byte for byte"),
            Judgement::Mended => {
                f.write_str("it differs from the untouched image only in ids, checksum or which images there are")?;
            }
            Judgement::Posted => f.write_str(
                "it differs from the untouched image as a copy does that a firmware has run: a guest's BIOS stays \
                 dark on it, so give the untouched one",
            )?,
            Judgement::Other => f.write_str("it is no copy of that image, but another card's or another version")?,
        }
        write!(
            f,
            " ({differing} of {compared} bytes differ, in {}{} places",
            self.places.len(),
            plus(self.more)
        )?;
        if let Some((here, there)) = self.bios_length.filter(|(here, there)| here != there) {
            write!(f, "; a BIOS takes {here:#x} bytes of it, not {there:#x}")?;
        }
        if self.images.0 != self.images.1 {
            write!(f, "; {} of {} images", self.images.0, self.images.1)?;
        }
        f.write_str(if self.checksum_wrong { "; its checksum is wrong)" } else { ")" })
    }
}

fn plus(more: bool) -> &'static str {
    if more { " or more" } else { "" }
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Area::Length => "the length that a BIOS takes",
            Area::Ids => "ids or the mark of the last image",
            Area::Checksum => "the byte that settles the checksum",
            Area::Code => "code and variables of the BIOS image",
            Area::Beyond => "another image",
        })
    }
}

#[cfg(test)]
mod tests;
