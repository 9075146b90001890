//! What is measured: each case a few instructions that the guest repeats.

use trapline_io::Width;

use super::payload::{Code, Reg};
use super::script;

/// The text window of a colour adapter.
const TEXT: u32 = 0xb_8000;
/// Bytes of a row of 80 cells, and of the first 25 rows.
const ROW: u32 = 160;
const SCREEN: u32 = 25 * ROW;
/// Index ports of the CRTC, which has the cursor's place, and of the graphics controller.
const CRTC: u16 = 0x3d4;
const GRAPHICS: u16 = 0x3ce;
/// Reads the miscellaneous output register, without any effect.
const MISC_READ: u16 = 0x3cc;
/// PCI's configuration mechanism.
const CONFIG_ADDRESS: u16 = 0xcf8;
const CONFIG_DATA: u16 = 0xcfc;

/// Where in the guest things of the device lie; `None` for what it has not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// It owns legacy VGA.
    pub vga: bool,
    /// What the configuration mechanism's address register says for its dword 0.
    pub config: Option<u32>,
    /// A dword of a BAR that always traps.
    pub trapped: Option<u32>,
    /// The same, if it may be written without harm.
    pub trapped_write: Option<u32>,
    /// A dword of a BAR that the guest gets mapped.
    pub mapped: Option<u32>,
    /// The same, if it may be written without harm.
    pub mapped_write: Option<u32>,
    /// The vector control of the first entry of its MSI-X table.
    pub msix: Option<u32>,
}

/// What a case needs of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// No device at all.
    Nothing,
    /// Legacy VGA.
    Vga,
    /// A function on the bus.
    Config,
    /// A BAR that traps.
    Trapped,
    /// One that may be written.
    TrappedWrite,
    /// A BAR that is mapped.
    Mapped,
    /// One that may be written.
    MappedWrite,
    /// MSI-X.
    Msix,
}

impl Needs {
    /// Why a case is not available with a device that has only `places`.
    pub fn missing(self, places: &Places) -> Option<&'static str> {
        let (there, reason) = match self {
            Needs::Nothing => (true, ""),
            Needs::Vga => (places.vga, "the device does not own legacy VGA"),
            Needs::Config => (places.config.is_some(), "the device is no PCI function"),
            Needs::Trapped => (places.trapped.is_some(), "no BAR of the device always traps"),
            Needs::TrappedWrite => (
                places.trapped_write.is_some(),
                "no trapped BAR of the device is memory to write without harm",
            ),
            Needs::Mapped => (places.mapped.is_some(), "no BAR of the device can be mapped"),
            Needs::MappedWrite => {
                (places.mapped_write.is_some(), "no mapped BAR of the device is memory to write without harm")
            }
            Needs::Msix => (places.msix.is_some(), "the device has no MSI-X"),
        };
        (!there).then_some(reason)
    }
}

/// Which region of the device a case reads or writes, for a baseline that does nothing but that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// None.
    Nothing,
    /// Legacy VGA: ports and window.
    Vga,
    /// The trapped BAR.
    Trapped,
}

/// A case.
#[derive(Clone, Copy)]
pub struct Case {
    /// What it is called, in reports and by `--only`.
    pub name: &'static str,
    /// What is measured, for people: figures are of one such thing.
    pub what: &'static str,
    /// How many of them one repetition of the code is.
    pub times: u32,
    /// How many accesses one of them is.
    pub accesses: u32,
    /// What it needs.
    pub needs: Needs,
    /// What it reaches.
    pub reach: Reach,
    /// Writes one repetition.
    pub code: fn(&mut Code, &Places),
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// How often a single access stands in a row.
const ROW_OF: u32 = 64;

/// All cases. What moves a device to other phases (BARs) comes after what must not find it there.
pub const CASES: [Case; 23] = [
    one("nop", "an empty instruction", Needs::Nothing, Reach::Nothing, |c, _| in_a_row(c, |c, _| c.nop())),
    one("exit", "out to a port of no device", Needs::Nothing, Reach::Nothing, |c, _| {
        c.set(Reg::Edx, script::NOBODY.into());
        in_a_row(c, |c, _| c.port_out(Width::B1));
    }),
    one("port-in", "in al, 3cc", Needs::Vga, Reach::Vga, |c, _| {
        c.set(Reg::Edx, MISC_READ.into());
        in_a_row(c, |c, _| c.port_in(Width::B1));
    }),
    one("port-out", "out 3d4, al: CRTC index", Needs::Vga, Reach::Vga, |c, _| index(c, CRTC, 0x0e)),
    one("port-out-gfx", "out 3ce, al: graphics index", Needs::Vga, Reach::Vga, |c, _| index(c, GRAPHICS, 8)),
    one("window-write-1", "1 byte to b8000", Needs::Vga, Reach::Vga, |c, _| writes(c, Width::B1)),
    one("window-write-2", "2 bytes to b8000", Needs::Vga, Reach::Vga, |c, _| writes(c, Width::B2)),
    one("window-write-4", "4 bytes to b8000", Needs::Vga, Reach::Vga, |c, _| writes(c, Width::B4)),
    one("window-write-8", "8 bytes to b8000", Needs::Vga, Reach::Vga, |c, _| writes(c, Width::B8)),
    one("window-read-1", "1 byte from b8000", Needs::Vga, Reach::Vga, |c, _| reads(c, Width::B1)),
    one("window-read-2", "2 bytes from b8000", Needs::Vga, Reach::Vga, |c, _| reads(c, Width::B2)),
    one("window-read-4", "4 bytes from b8000", Needs::Vga, Reach::Vga, |c, _| reads(c, Width::B4)),
    one("window-read-8", "8 bytes from b8000", Needs::Vga, Reach::Vga, |c, _| reads(c, Width::B8)),
    whole("rep-stos", "rep stosw of a screen", 2000, |c, _| {
        c.set(Reg::Edi, TEXT);
        c.set(Reg::Eax, 0x0720);
        c.fill(Width::B2, SCREEN / 2);
    }),
    whole("text-line", "80 cells and the cursor", 84, |c, _| text_line(c)),
    whole("scroll", "24 rows up, rep movsd", 1920, |c, _| scroll(c)),
    whole("mode-set", "registers of text mode 3", 84, |c, _| mode_set(c)),
    one("config-read", "in eax, cfc", Needs::Config, Reach::Nothing, |c, places| {
        c.out(Width::B4, CONFIG_ADDRESS, places.config.unwrap_or_default());
        c.set(Reg::Edx, CONFIG_DATA.into());
        in_a_row(c, |c, _| c.port_in(Width::B4));
    }),
    one("bar-read-trapped", "4 bytes from a BAR", Needs::Trapped, Reach::Trapped, |c, places| {
        c.set(Reg::Esi, places.trapped.unwrap_or_default());
        in_a_row(c, |c, _| c.load(Width::B4, Reg::Esi, 0));
    }),
    one("bar-write-trapped", "4 bytes to a BAR", Needs::TrappedWrite, Reach::Trapped, |c, places| {
        c.set(Reg::Edi, places.trapped_write.unwrap_or_default());
        in_a_row(c, |c, _| c.store(Width::B4, Reg::Edi, 0));
    }),
    one("bar-read-mapped", "4 bytes from a mapped BAR", Needs::Mapped, Reach::Nothing, |c, places| {
        c.set(Reg::Esi, places.mapped.unwrap_or_default());
        in_a_row(c, |c, _| c.load(Width::B4, Reg::Esi, 0));
    }),
    one("bar-write-mapped", "4 bytes to a mapped BAR", Needs::MappedWrite, Reach::Nothing, |c, places| {
        c.set(Reg::Edi, places.mapped_write.unwrap_or_default());
        in_a_row(c, |c, _| c.store(Width::B4, Reg::Edi, 0));
    }),
    one("msix-mask", "masking an MSI-X vector", Needs::Msix, Reach::Nothing, |c, places| {
        c.set(Reg::Edi, places.msix.unwrap_or_default());
        c.set(Reg::Eax, 1);
        in_a_row(c, |c, _| c.store(Width::B4, Reg::Edi, 0));
    }),
];

/// A case that is a single access, many times in a row.
const fn one(
    name: &'static str,
    what: &'static str,
    needs: Needs,
    reach: Reach,
    code: fn(&mut Code, &Places),
) -> Case {
    Case { name, what, times: ROW_OF, accesses: 1, needs, reach, code }
}

/// A case that is many accesses to legacy VGA.
const fn whole(name: &'static str, what: &'static str, accesses: u32, code: fn(&mut Code, &Places)) -> Case {
    Case { name, what, times: 1, accesses, needs: Needs::Vga, reach: Reach::Vga, code }
}

/// The case of this name, and its number.
pub fn named(name: &str) -> Option<usize> {
    CASES.iter().position(|case| case.name == name)
}

/// What the guest does before the first case.
pub fn first(code: &mut Code, places: &Places) {
    if places.vga {
        mode_set(code);
    }
}

fn in_a_row(code: &mut Code, one: impl Fn(&mut Code, u32)) {
    (0..ROW_OF).for_each(|place| one(code, place));
}

/// An index register, again and again.
fn index(code: &mut Code, port: u16, value: u32) {
    code.set(Reg::Edx, port.into());
    code.set(Reg::Eax, value);
    in_a_row(code, |c, _| c.port_out(Width::B1));
}

/// Accesses to ascending addresses of the text window.
fn writes(code: &mut Code, width: Width) {
    code.set(Reg::Edi, TEXT);
    in_a_row(code, |c, place| c.store(width, Reg::Edi, place * bytes(width)));
}

fn reads(code: &mut Code, width: Width) {
    code.set(Reg::Esi, TEXT);
    in_a_row(code, |c, place| c.load(width, Reg::Esi, place * bytes(width)));
}

fn bytes(width: Width) -> u32 {
    u32::try_from(width.bytes()).unwrap_or(1)
}

/// A row of text and the cursor behind it; another character each time. Not a loop of stores: that would
/// be many instructions for few accesses.
fn text_line(code: &mut Code) {
    code.set(Reg::Edi, TEXT + 3 * ROW);
    code.copy(Reg::Eax, Reg::Ecx);
    code.fill(Width::B2, 80);
    for (index, value) in [(0x0e, 1), (0x0f, 0x40)] {
        code.out(Width::B1, CRTC, index);
        code.out(Width::B1, CRTC + 1, value);
    }
}

/// All rows but the first go up by one, as a console without hardware scrolling does it.
fn scroll(code: &mut Code) {
    code.set(Reg::Esi, TEXT + ROW);
    code.set(Reg::Edi, TEXT);
    code.moves(Width::B4, (SCREEN - ROW) / 4);
}

/// The registers of 80 x 25 text at b8000, 9 dots of a character (IBM's VGA, mode 3).
mod mode3 {
    pub const MISC: u32 = 0x67;
    pub const SEQUENCER: [u32; 4] = [0x00, 0x03, 0x00, 0x02];
    pub const CRTC: [u32; 25] = [
        0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00, 0x4f, 0x0d, 0x0e, 0x00, 0x00, 0x00, 0x00, 0x9c,
        0x0e, 0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff,
    ];
    pub const GRAPHICS: [u32; 9] = [0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x0e, 0x00, 0xff];
    pub const ATTRIBUTE: [u32; 20] = [
        0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x0c,
        0x00, 0x0f, 0x08,
    ];
}

/// Index and value in one write of 16 bits, as firmware does it; the attribute controller has one port
/// for both, with a flip-flop that a read of 3da sets to the index.
fn mode_set(code: &mut Code) {
    const SEQUENCER: u16 = 0x3c4;
    const ATTRIBUTE: u16 = 0x3c0;
    let pair = |code: &mut Code, port: u16, index: u32, value: u32| {
        code.out(Width::B2, port, index | value << 8);
    };
    // In synchronous reset while the clocks change.
    pair(code, SEQUENCER, 0, 1);
    code.out(Width::B1, 0x3c2, mode3::MISC);
    for (index, value) in (1..).zip(mode3::SEQUENCER) {
        pair(code, SEQUENCER, index, value);
    }
    pair(code, SEQUENCER, 0, 3);
    // Registers 0 to 7 are open to writing when bit 7 of this one is clear.
    pair(code, CRTC, 0x11, 0x0e);
    for (index, value) in (0..).zip(mode3::CRTC) {
        pair(code, CRTC, index, value);
    }
    for (index, value) in (0..).zip(mode3::GRAPHICS) {
        pair(code, GRAPHICS, index, value);
    }
    code.set(Reg::Edx, 0x3da);
    code.port_in(Width::B1);
    for (index, value) in (0..).zip(mode3::ATTRIBUTE) {
        code.out(Width::B1, ATTRIBUTE, index);
        code.out(Width::B1, ATTRIBUTE, value);
    }
    // The palette is the adapter's again, and the screen on.
    code.out(Width::B1, ATTRIBUTE, 0x20);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::payload;

    #[test]
    fn names_are_one_of_a_kind() {
        for (number, case) in CASES.iter().enumerate() {
            assert_eq!(named(case.name), Some(number), "{}", case.name);
        }
        assert_eq!(named("no such case"), None);
    }

    #[test]
    fn all_cases_fit_one_image() {
        let places = Places { vga: true, ..Places::default() };
        let codes: Vec<_> = CASES.iter().map(|case| move |c: &mut Code| (case.code)(c, &places)).collect();
        let codes = codes.iter().map(|code| code as &dyn Fn(&mut Code));
        let image = payload::image(|c| first(c, &places), codes).unwrap();
        assert_eq!(image.entries.len(), CASES.len());
    }

    #[test]
    fn what_a_device_lacks_is_said() {
        let all = Places {
            vga: true,
            config: Some(1),
            trapped: Some(1),
            trapped_write: Some(1),
            mapped: Some(1),
            mapped_write: Some(1),
            msix: Some(1),
        };
        for case in CASES {
            assert_eq!(case.needs.missing(&all), None, "{case:?}");
            let missing = case.needs.missing(&Places::default());
            assert_eq!(missing.is_some(), case.needs != Needs::Nothing, "{case:?}");
        }
    }

    /// What the table says of accesses is what the code makes: ports are counted in the code's bytes.
    #[test]
    fn a_mode_set_makes_as_many_accesses_as_the_table_says() {
        let mut code = Code::default();
        mode_set(&mut code);
        let pairs = 2 + mode3::SEQUENCER.len() + 1 + mode3::CRTC.len() + mode3::GRAPHICS.len();
        let attribute = 1 + 2 * mode3::ATTRIBUTE.len() + 1;
        let accesses = pairs + 1 + attribute;
        assert_eq!(CASES[named("mode-set").unwrap()].accesses as usize, accesses);
    }
}
