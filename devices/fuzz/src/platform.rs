//! RTC, keyboard controller, serial port and debug console, fed from both sides.

use std::sync::Arc;

use super::{Nobody, Place, Step, drive, sink};
use arbitrary::Arbitrary;
use trapline_devices::platform::debug_console::DebugConsole;
use trapline_devices::platform::keyboard::{Key, KeyCode, KeyboardController};
use trapline_devices::platform::output::Output;
use trapline_devices::platform::rtc::{Cmos, Rtc};
use trapline_devices::platform::uart::Uart;
use trapline_io::{Device, Region};

const PLACES: [Place; 1] = [(Region(0), 0, 8)];

#[derive(Arbitrary, Debug)]
enum Act {
    Guest(Vec<Step>),
    /// An index and a value for it, as the RTC has them; a command and its parameter for the others.
    Pair(u8, u8),
    /// From the other end of the line, or of the keyboard.
    Feed(Vec<u8>),
    Function(u8),
    Attend,
}

fn act(device: &mut dyn Device, acts: Vec<Act>, feed: impl Fn(&[u8]), function: impl Fn(u8)) {
    for act in acts {
        match act {
            Act::Guest(steps) => drive(device, &PLACES, &steps),
            Act::Pair(index, value) => {
                for (port, value) in [(0, index), (1, value), (4, index), (0, value)] {
                    let _ = device.write(Region(0), port, trapline_io::Width::B1, value.into());
                }
            }
            Act::Feed(bytes) => feed(&bytes),
            Act::Function(number) => function(number),
            Act::Attend => device.attend(),
        }
    }
}

/// Carries out what `data` says.
pub fn run(data: &[u8]) {
    let Some(input) = super::input::<(u8, Vec<Act>)>(data) else { return };
    let (which, acts) = input;
    let output = || Output::descriptor(sink().expect("/dev/null"));
    match which % 4 {
        0 => {
            let mut rtc = Rtc::new(&Cmos::default(), Arc::new(Nobody)).expect("a timer");
            act(&mut rtc, acts, |_| {}, |_| {});
        }
        1 => {
            let (mut device, keys) =
                KeyboardController::new(Arc::new(Nobody), Arc::new(Nobody)).expect("a timer");
            let press = |code| {
                let _ = keys.press(Key {
                    code,
                    shift: which & 4 != 0,
                    ctrl: which & 8 != 0,
                    alt: which & 16 != 0,
                });
            };
            let text = |bytes: &[u8]| bytes.iter().for_each(|byte| press(KeyCode::Char(char::from(*byte))));
            act(&mut device, acts, text, |number| press(KeyCode::Function(number)));
        }
        2 => {
            let (mut uart, input) = Uart::com1(output(), Arc::new(Nobody)).expect("a timer");
            act(&mut uart, acts, |bytes| assert!(input.send(bytes) <= bytes.len()), |_| {});
        }
        _ => act(&mut DebugConsole::new(output()).expect("a timer"), acts, |_| {}, |_| {}),
    }
}
