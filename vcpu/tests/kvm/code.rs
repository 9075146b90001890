//! Guest code, assembled by hand: just the instructions that the tests need.

/// A piece of code that will lie at a known address.
pub struct Code {
    bytes: Vec<u8>,
    at: u32,
    wide: bool,
}

/// A place in the code that a jump can lead back to.
#[derive(Clone, Copy)]
pub struct Label(usize);

/// The instructions in the order of the manual; the names are those of the assembler, with the
/// operands behind.
impl Code {
    /// Real-mode code for this address.
    pub fn real(at: u32) -> Code {
        Code { bytes: Vec::new(), at, wide: false }
    }

    /// 32-bit code for this address.
    pub fn wide(at: u32) -> Code {
        Code { bytes: Vec::new(), at, wide: true }
    }

    /// Where it lies, and its bytes.
    pub fn done(self) -> (u32, Vec<u8>) {
        (self.at, self.bytes)
    }

    pub fn raw(mut self, bytes: &[u8]) -> Code {
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub fn here(&self) -> Label {
        Label(self.bytes.len())
    }

    /// The prefix for 16-bit operands, where one is needed.
    fn word(self) -> Code {
        if self.wide { self.raw(&[0x66]) } else { self }
    }

    /// The prefix for 32-bit operands, where one is needed.
    fn dword(self) -> Code {
        if self.wide { self } else { self.raw(&[0x66]) }
    }

    fn address(self, address: u32) -> Code {
        if self.wide {
            self.raw(&address.to_le_bytes())
        } else {
            let address = u16::try_from(address).expect("an offset into a real-mode segment");
            self.raw(&address.to_le_bytes())
        }
    }

    pub fn mov_al(self, value: u8) -> Code {
        self.raw(&[0xb0, value])
    }

    pub fn mov_ax(self, value: u16) -> Code {
        self.word().raw(&[0xb8]).raw(&value.to_le_bytes())
    }

    pub fn mov_eax(self, value: u32) -> Code {
        self.dword().raw(&[0xb8]).raw(&value.to_le_bytes())
    }

    pub fn mov_ecx(self, value: u32) -> Code {
        self.dword().raw(&[0xb9]).raw(&value.to_le_bytes())
    }

    pub fn mov_cx(self, value: u16) -> Code {
        self.word().raw(&[0xb9]).raw(&value.to_le_bytes())
    }

    pub fn mov_dx(self, value: u16) -> Code {
        self.word().raw(&[0xba]).raw(&value.to_le_bytes())
    }

    pub fn mov_si(self, value: u16) -> Code {
        self.word().raw(&[0xbe]).raw(&value.to_le_bytes())
    }

    pub fn mov_di(self, value: u16) -> Code {
        self.word().raw(&[0xbf]).raw(&value.to_le_bytes())
    }

    /// `mov ds, ax`
    pub fn mov_ds_ax(self) -> Code {
        self.raw(&[0x8e, 0xd8])
    }

    pub fn load_al(self, from: u32) -> Code {
        self.raw(&[0xa0]).address(from)
    }

    pub fn load_ax(self, from: u32) -> Code {
        self.word().raw(&[0xa1]).address(from)
    }

    pub fn load_eax(self, from: u32) -> Code {
        self.dword().raw(&[0xa1]).address(from)
    }

    pub fn store_al(self, to: u32) -> Code {
        self.raw(&[0xa2]).address(to)
    }

    pub fn store_ax(self, to: u32) -> Code {
        self.word().raw(&[0xa3]).address(to)
    }

    pub fn store_eax(self, to: u32) -> Code {
        self.dword().raw(&[0xa3]).address(to)
    }

    /// `movq mm0, [from]`
    pub fn load_mm0(self, from: u32) -> Code {
        let modrm = if self.wide { 0x05 } else { 0x06 };
        self.raw(&[0x0f, 0x6f, modrm]).address(from)
    }

    /// `movq [to], mm0`
    pub fn store_mm0(self, to: u32) -> Code {
        let modrm = if self.wide { 0x05 } else { 0x06 };
        self.raw(&[0x0f, 0x7f, modrm]).address(to)
    }

    /// `lock inc dword [at]`
    pub fn lock_inc(self, at: u32) -> Code {
        let modrm = if self.wide { 0x05 } else { 0x06 };
        self.raw(&[0xf0]).dword().raw(&[0xff, modrm]).address(at)
    }

    /// `inc dword [at]`
    pub fn inc(self, at: u32) -> Code {
        let modrm = if self.wide { 0x05 } else { 0x06 };
        self.dword().raw(&[0xff, modrm]).address(at)
    }

    /// `cmp byte [at], value`
    pub fn cmp_byte(self, at: u32, value: u8) -> Code {
        let modrm = if self.wide { 0x3d } else { 0x3e };
        self.raw(&[0x80, modrm]).address(at).raw(&[value])
    }

    pub fn in_al_dx(self) -> Code {
        self.raw(&[0xec])
    }

    pub fn in_ax_dx(self) -> Code {
        self.word().raw(&[0xed])
    }

    pub fn in_eax_dx(self) -> Code {
        self.dword().raw(&[0xed])
    }

    pub fn out_dx_al(self) -> Code {
        self.raw(&[0xee])
    }

    pub fn out_dx_ax(self) -> Code {
        self.word().raw(&[0xef])
    }

    pub fn out_dx_eax(self) -> Code {
        self.dword().raw(&[0xef])
    }

    /// `in al, port`
    pub fn in_al(self, port: u8) -> Code {
        self.raw(&[0xe4, port])
    }

    /// `out port, al`
    pub fn out_al(self, port: u8) -> Code {
        self.raw(&[0xe6, port])
    }

    pub fn hlt(self) -> Code {
        self.raw(&[0xf4])
    }

    /// `jmp` back.
    pub fn jmp(self, to: Label) -> Code {
        self.back(0xeb, to)
    }

    /// `jne` back.
    pub fn jne(self, to: Label) -> Code {
        self.back(0x75, to)
    }

    /// `loop` back: counts CX or ECX down.
    pub fn loop_(self, to: Label) -> Code {
        self.back(0xe2, to)
    }

    fn back(self, opcode: u8, to: Label) -> Code {
        let behind = self.bytes.len() + 2;
        let distance = i8::try_from(behind - to.0).expect("a short jump");
        self.raw(&[opcode, distance.wrapping_neg().to_le_bytes()[0]])
    }

    /// Spins until the byte at `at` is `value`.
    pub fn await_byte(self, at: u32, value: u8) -> Code {
        let again = self.here();
        self.cmp_byte(at, value).jne(again)
    }

    /// Tells the test `value`, by the port it watches.
    pub fn tell(self, value: u8) -> Code {
        self.mov_al(value).out_al(super::machine::TELL)
    }

    /// Sleeps for ever.
    pub fn rest(self) -> Code {
        let again = self.here();
        self.hlt().jmp(again)
    }

    /// Goes to flat 32-bit mode and on at `to`. Leaves a descriptor table at 0xf00.
    pub fn enter_wide(self, to: u32) -> Code {
        self.raw(&[0xfa]) // cli
            .raw(&[0x0f, 0x01, 0x16, 0x00, 0x0f]) // lgdt [0xf00]
            .raw(&[0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0]) // cr0 |= PE
            .raw(&[0x66, 0xea]) // jmp 8:to
            .raw(&to.to_le_bytes())
            .raw(&[0x08, 0x00])
    }

    /// The first instructions behind [`Code::enter_wide`]: data segments.
    pub fn flat_segments(self) -> Code {
        self.mov_ax(0x10).raw(&[0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0])
    }

    /// Starts all other processors at `page` (INIT, then start-up), through the local APIC. 32-bit.
    pub fn start_others(self, page: u8) -> Code {
        self.mov_eax(0x1ff)
            .store_eax(0xfee0_00f0) // spurious vector register: enable
            .mov_eax(0x000c_4500)
            .store_eax(0xfee0_0300) // INIT to all but self
            .mov_eax(0x000c_4600 | u32::from(page))
            .store_eax(0xfee0_0300) // start-up to all but self
    }
}

/// The descriptor table that [`Code::enter_wide`] loads: at 0xf00 its limit and base, at 0xf10 the
/// table: nothing, flat code, flat data.
pub fn descriptor_table() -> (u32, Vec<u8>) {
    let mut bytes = vec![23, 0, 0x10, 0x0f, 0, 0];
    bytes.resize(16, 0);
    for descriptor in [0u64, 0x00cf_9a00_0000_ffff, 0x00cf_9200_0000_ffff] {
        bytes.extend_from_slice(&descriptor.to_le_bytes());
    }
    (0xf00, bytes)
}
