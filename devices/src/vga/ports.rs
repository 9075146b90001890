//! The ports, one byte at a time: a wider access is its bytes in ascending order, which is how a
//! 16-bit write to an index port writes index and data.

use super::Registers;
use super::spec::{
    ATTRIBUTE, ATTRIBUTE_READ, CRTC_DATA, CRTC_DATA_MONO, CRTC_INDEX, CRTC_INDEX_MONO, DAC_DATA, DAC_MASK,
    DAC_READ_INDEX, DAC_WRITE_INDEX, ENABLE, FEATURE_READ, GRAPHICS_DATA, GRAPHICS_INDEX, MISC_COLOR,
    MISC_READ, MISC_WRITE, SEQUENCER_DATA, SEQUENCER_INDEX, STATUS_1, STATUS_1_BLANK, STATUS_1_MONO,
    STATUS_1_RETRACE,
};

/// What a poll of input status 1 sees in turn. No clock runs: every state is seen within four
/// reads, so a loop that waits for one ends.
const BEAM: [u8; 4] = [0, STATUS_1_BLANK, 0, STATUS_1_BLANK | STATUS_1_RETRACE];

impl Registers {
    /// Reads one port; all ones where nothing answers.
    pub(super) fn read_port(&mut self, port: u16) -> u8 {
        match self.answers(port) {
            Some(ATTRIBUTE) => self.attribute.index(),
            Some(ATTRIBUTE_READ) => self.attribute.read(),
            Some(MISC_WRITE) => 0,
            Some(ENABLE) => self.enable,
            Some(SEQUENCER_INDEX) => self.sequencer.index(),
            Some(SEQUENCER_DATA) => self.sequencer.read(),
            Some(DAC_MASK) => self.dac.mask(),
            Some(DAC_READ_INDEX) => self.dac.state(),
            Some(DAC_WRITE_INDEX) => self.dac.write_index(),
            Some(DAC_DATA) => self.dac.read(),
            Some(FEATURE_READ) => self.feature,
            Some(MISC_READ) => self.misc,
            Some(GRAPHICS_INDEX) => self.graphics.index(),
            Some(GRAPHICS_DATA) => self.graphics.read(),
            Some(CRTC_INDEX) => self.crtc.index(),
            Some(CRTC_DATA) => self.crtc.read(),
            Some(STATUS_1) => {
                self.attribute.expect_index();
                self.polls = self.polls.wrapping_add(1);
                BEAM[usize::from(self.polls & 3)]
            }
            _ => 0xff,
        }
    }

    /// Writes one port.
    pub(super) fn write_port(&mut self, port: u16, value: u8) {
        match self.answers(port) {
            Some(ATTRIBUTE) => self.attribute.write(value),
            Some(MISC_WRITE) => self.misc = value,
            Some(ENABLE) => self.enable = value & 1,
            Some(SEQUENCER_INDEX) => self.sequencer.set_index(value),
            Some(SEQUENCER_DATA) => self.sequencer.write(value),
            Some(DAC_MASK) => self.dac.set_mask(value),
            Some(DAC_READ_INDEX) => self.dac.set_read_index(value),
            Some(DAC_WRITE_INDEX) => self.dac.set_write_index(value),
            Some(DAC_DATA) => self.dac.write(value, self.dispi.dac_bits()),
            Some(GRAPHICS_INDEX) => self.graphics.set_index(value),
            Some(GRAPHICS_DATA) => self.graphics.write(value),
            Some(CRTC_INDEX) => self.crtc.set_index(value),
            Some(CRTC_DATA) => self.crtc.write(value),
            Some(STATUS_1) => self.feature = value & 3,
            _ => {}
        }
    }

    /// The port, if something answers there now: the CRT controller and input status 1 under their
    /// colour address, whichever of the two is chosen. Disabled, only the enable register answers.
    fn answers(&self, port: u16) -> Option<u16> {
        let color = self.misc & MISC_COLOR != 0;
        match port {
            ENABLE => Some(port),
            _ if self.enable & 1 == 0 => None,
            CRTC_INDEX | CRTC_DATA | STATUS_1 => color.then_some(port),
            CRTC_INDEX_MONO | CRTC_DATA_MONO | STATUS_1_MONO => (!color).then_some(port + 0x20),
            _ => Some(port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crtc_answers_at_one_of_two_addresses() {
        let mut registers = Registers::default();
        registers.write_port(CRTC_INDEX, 0x0c);
        assert_eq!(registers.read_port(CRTC_INDEX), 0xff);
        registers.write_port(CRTC_INDEX_MONO, 0x0c);
        assert_eq!(registers.read_port(CRTC_INDEX_MONO), 0x0c);
        registers.write_port(MISC_WRITE, MISC_COLOR);
        assert_eq!(registers.read_port(CRTC_INDEX_MONO), 0xff);
        assert_eq!(registers.read_port(CRTC_INDEX), 0x0c);
        assert_eq!(registers.read_port(MISC_READ), MISC_COLOR);
    }

    #[test]
    fn a_poll_sees_retrace_come_and_go() {
        let mut registers = Registers::default();
        registers.write_port(MISC_WRITE, MISC_COLOR);
        for _ in 0..3 {
            let seen: Vec<u8> = (0..4).map(|_| registers.read_port(STATUS_1)).collect();
            assert!(seen.iter().any(|status| status & STATUS_1_RETRACE != 0));
            assert!(seen.iter().any(|status| status & STATUS_1_RETRACE == 0));
            assert!(seen.iter().any(|status| status & STATUS_1_BLANK == 0));
        }
    }

    #[test]
    fn status_makes_the_next_attribute_write_an_index() {
        let mut registers = Registers::default();
        registers.write_port(MISC_WRITE, MISC_COLOR);
        registers.write_port(ATTRIBUTE, 0x03);
        registers.read_port(STATUS_1);
        registers.write_port(ATTRIBUTE, 0x04);
        registers.write_port(ATTRIBUTE, 0x2a);
        assert_eq!((registers.read_port(ATTRIBUTE), registers.read_port(ATTRIBUTE_READ)), (0x04, 0x2a));
    }

    #[test]
    fn a_disabled_adapter_answers_at_one_port() {
        let mut registers = Registers::default();
        registers.write_port(ENABLE, 0);
        registers.write_port(MISC_WRITE, 0x67);
        assert_eq!((registers.read_port(MISC_READ), registers.read_port(ENABLE)), (0xff, 0));
        registers.write_port(ENABLE, 1);
        assert_eq!(registers.read_port(MISC_READ), 0);
    }

    #[test]
    fn feature_control_is_written_and_read_at_different_ports() {
        let mut registers = Registers::default();
        registers.write_port(STATUS_1_MONO, 0xff);
        assert_eq!(registers.read_port(FEATURE_READ), 3);
    }
}
