//! The guest of a benchmark: a firmware image of our own, assembled here.
//!
//! It lies where a PC's firmware lies, ends at 4 GiB, and goes from the reset vector to 32-bit code with
//! flat segments and no paging, where an access of any width to any address is one instruction. There it
//! asks at the [ports](super::script) what to do next, for ever.
//!
//! A KVM that runs 64-bit guests of one kind only emulates this code instruction by instruction, which
//! shows in the report as the time of an empty instruction. So the cases have few instructions beside
//! their accesses: runs of accesses are not loops.
//!
//! ```text
//!  ffff0000  32-bit code: the loop, then the cases
//!  ffffff80  descriptors
//!  ffffffb0  16-bit code
//!  fffffff0  the reset vector
//! ```

use trapline_io::Width;

use super::script;

/// Bytes of the image.
pub const SIZE: usize = 0x1_0000;
/// Where it lies in the guest.
pub const ORIGIN: u32 = 0xffff_0000;
/// Offset of the descriptors.
const DESCRIPTORS: usize = 0xff80;
/// Offset of the 16-bit code.
const START: usize = 0xffb0;
/// Offset of the reset vector.
const RESET: usize = 0xfff0;
/// The stack grows down from here, in RAM.
const STACK: u32 = 0x7000;

/// The processor's registers, with the numbers that instructions give them. `Ecx` counts what a case
/// repeats, `Esp` is the stack's: both are left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reg {
    /// What is read and written.
    Eax = 0,
    /// Counts of inner loops, and `rep`.
    Ecx = 1,
    /// Ports.
    Edx = 2,
    /// Free.
    Ebx = 3,
    /// Where a copy comes from.
    Esi = 6,
    /// Where stores go.
    Edi = 7,
}

/// Code that is being written. Jumps are near.
#[derive(Clone, Debug, Default)]
pub struct Code {
    bytes: Vec<u8>,
}

impl Code {
    /// How much there is, in bytes.
    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    fn with_number(&mut self, opcode: &[u8], number: u32) {
        self.raw(opcode);
        self.raw(&number.to_le_bytes());
    }

    /// mov register, number
    pub fn set(&mut self, register: Reg, value: u32) {
        self.with_number(&[0xb8 | register as u8], value);
    }

    /// mov to, from
    pub fn copy(&mut self, to: Reg, from: Reg) {
        self.raw(&[0x89, 0xc0 | (from as u8) << 3 | to as u8]);
    }

    /// Loads eax (its lower part, for fewer bytes), or mm0 for 8 bytes, from `[from + offset]`.
    pub fn load(&mut self, width: Width, from: Reg, offset: u32) {
        self.raw(match width {
            Width::B1 => &[0x8a],
            Width::B2 => &[0x66, 0x8b],
            Width::B4 => &[0x8b],
            Width::B8 => &[0x0f, 0x6f],
        });
        self.with_number(&[0x80 | from as u8], offset);
    }

    /// Stores eax, or mm0 for 8 bytes, to `[to + offset]`.
    pub fn store(&mut self, width: Width, to: Reg, offset: u32) {
        self.raw(match width {
            Width::B1 => &[0x88],
            Width::B2 => &[0x66, 0x89],
            Width::B4 => &[0x89],
            Width::B8 => &[0x0f, 0x7f],
        });
        self.with_number(&[0x80 | to as u8], offset);
    }

    /// nop
    pub fn nop(&mut self) {
        self.raw(&[0x90]);
    }

    /// in eax, dx
    pub fn port_in(&mut self, width: Width) {
        match width {
            Width::B1 => self.raw(&[0xec]),
            Width::B2 => self.raw(&[0x66, 0xed]),
            Width::B4 | Width::B8 => self.raw(&[0xed]),
        }
    }

    /// out dx, eax
    pub fn port_out(&mut self, width: Width) {
        match width {
            Width::B1 => self.raw(&[0xee]),
            Width::B2 => self.raw(&[0x66, 0xef]),
            Width::B4 | Width::B8 => self.raw(&[0xef]),
        }
    }

    /// mov edx, port; mov eax, value; out dx, eax
    pub fn out(&mut self, width: Width, port: u16, value: u32) {
        self.set(Reg::Edx, port.into());
        self.set(Reg::Eax, value);
        self.port_out(width);
    }

    /// rep stos, `count` times what is in eax to `[edi]` and on; keeps ecx.
    pub fn fill(&mut self, width: Width, count: u32) {
        self.string(width, 0xaa, count);
    }

    /// rep movs, `count` times from `[esi]` to `[edi]` and on; keeps ecx.
    pub fn moves(&mut self, width: Width, count: u32) {
        self.string(width, 0xa4, count);
    }

    /// A repeated string instruction; `bytes` is the one for bytes.
    fn string(&mut self, width: Width, bytes: u8, count: u32) {
        self.raw(&[0x51]); // push ecx
        self.set(Reg::Ecx, count);
        match width {
            Width::B1 => self.raw(&[0xf3, bytes]),
            Width::B2 => self.raw(&[0x66, 0xf3, bytes | 1]),
            Width::B4 | Width::B8 => self.raw(&[0xf3, bytes | 1]),
        }
        self.raw(&[0x59]); // pop ecx
    }

    /// Carries out `body`, then counts the register down and repeats until it is zero.
    pub fn repeat(&mut self, register: Reg, body: impl FnOnce(&mut Code)) {
        let start = self.len();
        body(self);
        self.raw(&[0x48 | register as u8]); // dec register
        self.jump(&[0x0f, 0x85], start); // jnz start
    }

    /// ret
    pub fn ret(&mut self) {
        self.raw(&[0xc3]);
    }

    /// A jump back, by its opcode.
    fn jump(&mut self, opcode: &[u8], target: usize) {
        self.raw(opcode);
        let distance = number(target).wrapping_sub(number(self.len()) + 4);
        self.raw(&distance.to_le_bytes());
    }
}

/// An offset in the image; the image ends long before the numbers do.
fn number(offset: usize) -> u32 {
    u32::try_from(offset).unwrap_or(u32::MAX)
}

/// An image, and where its cases begin.
#[derive(Clone, Debug)]
pub struct Image {
    /// [`SIZE`] bytes.
    pub bytes: Vec<u8>,
    /// The guest's address of each case, in the order in which they were given.
    pub entries: Vec<u32>,
}

/// Why there is no image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the benchmark's guest code of {0} bytes does not fit its image")]
pub struct TooLong(usize);

/// Puts cases into an image. Each repeats its code as often as ecx says; `first` runs once before all.
///
/// # Errors
/// They are too long.
pub fn image<'a>(
    first: impl FnOnce(&mut Code),
    cases: impl IntoIterator<Item = &'a dyn Fn(&mut Code)>,
) -> Result<Image, TooLong> {
    let mut code = Code::default();
    begin(&mut code);
    first(&mut code);
    ask(&mut code);
    let mut entries = Vec::new();
    for case in cases {
        entries.push(ORIGIN + number(code.len()));
        code.repeat(Reg::Ecx, case);
        code.ret();
    }
    let mut bytes = code.bytes;
    if bytes.len() > DESCRIPTORS {
        return Err(TooLong(bytes.len()));
    }
    // Where nothing is written the processor stops, which the deadline finds.
    bytes.resize(SIZE, 0xf4);
    put(&mut bytes, DESCRIPTORS, &descriptors());
    put(&mut bytes, START, &start());
    // jmp START: in 16-bit code, so that the distance wraps at 64 KiB.
    put(&mut bytes, RESET, &[0xe9]);
    put(&mut bytes, RESET + 1, &distance(START, RESET + 3));
    Ok(Image { bytes, entries })
}

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    for (place, byte) in image.iter_mut().skip(at).zip(bytes) {
        *place = *byte;
    }
}

/// The distance of a 16-bit jump.
fn distance(target: usize, behind: usize) -> [u8; 2] {
    let [low, high, ..] = number(target).wrapping_sub(number(behind)).to_le_bytes();
    [low, high]
}

/// The null descriptor, flat code, flat data, and what `lgdt` takes. All are marked as accessed: the
/// processor could not mark them in ROM.
fn descriptors() -> Vec<u8> {
    let mut table = vec![0; 8];
    table.extend([0xff, 0xff, 0, 0, 0, 0x9b, 0xcf, 0]);
    table.extend([0xff, 0xff, 0, 0, 0, 0x93, 0xcf, 0]);
    table.extend(23_u16.to_le_bytes());
    table.extend((ORIGIN + number(DESCRIPTORS)).to_le_bytes());
    table
}

/// 16-bit code: protected mode, and to the start of the image.
fn start() -> Vec<u8> {
    let [low, high, ..] = number(DESCRIPTORS + 24).to_le_bytes();
    let mut code = vec![0xfa, 0xfc, 0x2e, 0x66, 0x0f, 0x01, 0x16, low, high]; // cli; cld; o32 lgdt cs:[..]
    code.extend([0x0f, 0x20, 0xc0]); // mov eax, cr0
    code.extend([0x66, 0x25, 0xff, 0xff, 0xff, 0x9f]); // and eax, caches on
    code.extend([0x66, 0x83, 0xc8, 0x01]); // or eax, PE
    code.extend([0x0f, 0x22, 0xc0]); // mov cr0, eax
    code.extend([0x66, 0xea]); // jmp 8:ORIGIN
    code.extend(ORIGIN.to_le_bytes());
    code.extend([8, 0]);
    code
}

/// Segments and the stack.
fn begin(code: &mut Code) {
    code.set(Reg::Eax, 0x10);
    code.raw(&[0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0]); // mov ds, ax; mov es, ax; mov ss, ax
    code.with_number(&[0xbc], STACK); // mov esp, STACK
}

/// The loop: which case, how often; begin; the case; end.
fn ask(code: &mut Code) {
    let again = code.len();
    code.set(Reg::Edx, script::NEXT.into());
    code.port_in(Width::B4);
    code.copy(Reg::Ebx, Reg::Eax);
    code.set(Reg::Edx, script::COUNT.into());
    code.port_in(Width::B4);
    code.copy(Reg::Ecx, Reg::Eax);
    code.raw(&[0x85, 0xc9]); // test ecx, ecx
    code.jump(&[0x0f, 0x84], again); // jz again
    code.set(Reg::Edx, script::BEGIN.into());
    code.port_out(Width::B1);
    code.raw(&[0xff, 0xd3]); // call ebx
    code.set(Reg::Edx, script::END.into());
    code.port_out(Width::B1);
    code.jump(&[0xe9], again);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(write: impl FnOnce(&mut Code)) -> Vec<u8> {
        let mut code = Code::default();
        write(&mut code);
        code.bytes
    }

    /// The bytes are those that an assembler makes.
    #[test]
    fn instructions_have_their_bytes() {
        assert_eq!(code(|c| c.set(Reg::Edi, 0xb8000)), [0xbf, 0, 0x80, 0x0b, 0]);
        assert_eq!(code(|c| c.copy(Reg::Ebx, Reg::Eax)), [0x89, 0xc3]);
        assert_eq!(code(|c| c.load(Width::B1, Reg::Esi, 5)), [0x8a, 0x86, 5, 0, 0, 0]);
        assert_eq!(code(|c| c.load(Width::B8, Reg::Esi, 0)), [0x0f, 0x6f, 0x86, 0, 0, 0, 0]);
        assert_eq!(code(|c| c.store(Width::B2, Reg::Edi, 2)), [0x66, 0x89, 0x87, 2, 0, 0, 0]);
        assert_eq!(code(|c| c.store(Width::B4, Reg::Ebx, 0)), [0x89, 0x83, 0, 0, 0, 0]);
        let out = [0xba, 0xd4, 3, 0, 0, 0xb8, 0x0e, 0, 0, 0, 0xee];
        assert_eq!(code(|c| c.out(Width::B1, 0x3d4, 0x0e)), out);
        let fill = [0x51, 0xb9, 3, 0, 0, 0, 0x66, 0xf3, 0xab, 0x59];
        assert_eq!(code(|c| c.fill(Width::B2, 3)), fill);
        assert_eq!(code(|c| c.moves(Width::B4, 3)), [0x51, 0xb9, 3, 0, 0, 0, 0xf3, 0xa5, 0x59]);
    }

    #[test]
    fn a_loop_goes_back_to_its_start() {
        let looped = code(|c| {
            c.port_in(Width::B1);
            c.repeat(Reg::Ecx, |c| c.port_out(Width::B1));
        });
        // in; out; dec ecx; jnz -8
        assert_eq!(looped, [0xec, 0xee, 0x49, 0x0f, 0x85, 0xf8, 0xff, 0xff, 0xff]);
    }

    #[test]
    fn an_image_begins_at_the_reset_vector_and_knows_its_cases() {
        let (one, two) = (|c: &mut Code| c.port_in(Width::B1), |c: &mut Code| c.port_out(Width::B1));
        let image = image(|_| {}, [&one as &dyn Fn(&mut Code), &two]).unwrap();
        assert_eq!(image.bytes.len(), SIZE);
        // e9 and a distance from the byte behind it, modulo 64 KiB.
        assert_eq!(image.bytes[RESET..RESET + 3], [0xe9, 0xbd, 0xff]);
        let at = |entry: u32| image.bytes[(entry - ORIGIN) as usize];
        assert_eq!(image.entries.iter().map(|entry| at(*entry)).collect::<Vec<_>>(), [0xec, 0xee]);
        assert_eq!(image.entries[1] - image.entries[0], 9, "in, dec, jnz, ret");
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let long = |c: &mut Code| (0..0x1_0000).for_each(|_| c.port_in(Width::B1));
        let error = image(long, []).unwrap_err();
        assert!(error.to_string().contains("does not fit"));
    }
}
