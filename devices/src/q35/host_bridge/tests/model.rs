//! PAM and SMRAM in any order, held against a model that decides for each byte by itself.

use proptest::prelude::*;

use super::*;

/// A few places, so that what is written is read again: in the window, in segments with ROM and without, above.
const PLACES: [u64; 9] =
    [0xa_0000, 0xb_8000, 0xc_0000, 0xd_4000, 0xd_c000, 0xe_0000, 0xf_0000, 0xf_c000, 0xfeda_0000];

#[derive(Clone, Debug)]
enum Step {
    Pam { register: u64, value: u8 },
    Smram { smram: u8, esmramc: u8 },
    Write { gpa: u64, value: u8 },
    Read { gpa: u64 },
    Reset,
}

fn step() -> impl Strategy<Value = Step> {
    let ends = || prop_oneof![Just(0), Just(1), Just(0x1000), Just(0x3fff_u64)];
    let gpa = || (prop::sample::select(&PLACES[..]), ends()).prop_map(|(place, end)| place + end);
    prop_oneof![
        3 => (0..7_u64, any::<u8>()).prop_map(|(register, value)| Step::Pam { register, value }),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(smram, esmramc)| Step::Smram { smram, esmramc }),
        6 => (gpa(), any::<u8>()).prop_map(|(gpa, value)| Step::Write { gpa, value }),
        6 => gpa().prop_map(|gpa| Step::Read { gpa }),
        1 => Just(Step::Reset),
    ]
}

struct Model {
    pam: [u8; 7],
    smram: u8,
    esmramc: u8,
    ram: Vec<u8>,
    rom: Vec<u8>,
}

/// Where a byte is found.
enum Found {
    Ram(usize),
    Rom(usize),
    Adapter,
}

impl Model {
    fn new() -> Model {
        let mut rom = vec![0; 0x2_0000];
        for page in 0..0x20_usize {
            rom.extend([u8::try_from(page + 0x20).unwrap(), 0xf0]);
            rom.resize(0x2_0000 + (page + 1) * 0x1000, 0);
        }
        Model { pam: [0; 7], smram: 2, esmramc: 0x38, ram: vec![0; 0x6_0000], rom }
    }

    fn find(&self, gpa: u64, write: bool) -> Found {
        let is_open = self.smram & 0x48 == 0x48;
        let high = self.esmramc & 0x80 != 0;
        let at = usize::try_from(gpa & 0x1f_ffff).unwrap();
        match gpa {
            0xfeda_0000.. if is_open && high => Found::Ram(at - 0x1a_0000),
            0xfeda_0000.. => Found::Adapter,
            ..0xc_0000 if is_open && !high => Found::Ram(at - 0xa_0000),
            ..0xc_0000 => Found::Adapter,
            _ => {
                let field = match at >> 14 {
                    0x3c.. => self.pam[0] >> 4,
                    n => self.pam[1 + (n - 0x30) / 2] >> (4 * (n % 2)),
                };
                match field >> u8::from(write) & 1 {
                    1 => Found::Ram(at - 0xa_0000),
                    _ => Found::Rom(at - 0xc_0000),
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn bytes_are_where_the_registers_say(steps in prop::collection::vec(step(), 1..200)) {
        let mut bridge = bridge(4 << 20);
        let mut model = Model::new();
        for step in steps {
            match step {
                Step::Pam { register, value } => {
                    set(&mut bridge, 0x90 + register, Width::B1, value.into());
                    model.pam[usize::try_from(register).unwrap()] = value;
                }
                Step::Smram { smram, esmramc } => {
                    set(&mut bridge, 0x9d, Width::B2, u64::from(esmramc) << 8 | u64::from(smram));
                    if model.smram & 0x10 == 0 {
                        let keep = if smram & 0x10 == 0 { 0xff } else { !0x40 };
                        (model.smram, model.esmramc) = (smram & keep, esmramc);
                    }
                }
                Step::Write { gpa, value } => match model.find(gpa, true) {
                    Found::Ram(at) => {
                        poke(&mut bridge, gpa, Width::B1, value.into());
                        model.ram[at] = value;
                    }
                    Found::Rom(_) => poke(&mut bridge, gpa, Width::B1, value.into()),
                    Found::Adapter => {}
                },
                Step::Read { gpa } => {
                    let wanted = match model.find(gpa, false) {
                        Found::Ram(at) => model.ram[at],
                        Found::Rom(at) => model.rom[at],
                        Found::Adapter => {
                            let found = resolve(&bridge, Address::Gpa(Gpa(gpa)), Width::B1);
                            prop_assert_eq!(found, Resolved::Unclaimed, "{:#x}", gpa);
                            continue;
                        }
                    };
                    prop_assert_eq!(peek(&mut bridge, gpa, Width::B1), u64::from(wanted), "{:#x}", gpa);
                }
                Step::Reset => {
                    bridge.reset();
                    (model.pam, model.smram, model.esmramc) = ([0; 7], 2, 0x38);
                }
            }
        }
    }
}
