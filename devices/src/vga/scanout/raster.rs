//! The beam: which counter and which line of a row each line of the screen shows.

use crate::vga::Registers;

/// The geometry of a mode of the VGA.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raster {
    /// Character clocks of a line.
    pub(super) columns: usize,
    /// Dots of a character clock: 8 or 9.
    pub(super) dots: usize,
    /// How wide a dot is on the screen: 1 or 2.
    pub(super) stretch: usize,
    /// Lines.
    pub(super) lines: usize,
    start: usize,
    stride: usize,
    row_height: usize,
    scans: usize,
    preset_row: usize,
    line_compare: usize,
}

/// One line of the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The counter at its first character.
    pub(super) counter: usize,
    /// The line inside its row.
    pub(super) row_scan: usize,
    /// It lies below the line compare.
    pub(super) split: bool,
    /// It is the first that shows its row.
    pub(super) first: bool,
}

impl Raster {
    pub(super) fn of(registers: &Registers) -> Raster {
        let crtc = &registers.crtc;
        let graphics = registers.graphics.graphics();
        Raster {
            columns: crtc.columns(),
            dots: if graphics { 8 } else { registers.sequencer.dots() },
            stretch: 1 + usize::from(registers.sequencer.half_clock()),
            lines: crtc.lines(),
            start: crtc.start(),
            stride: crtc.stride(),
            row_height: crtc.row_height(),
            scans: crtc.scans(),
            preset_row: crtc.preset_row(),
            line_compare: crtc.line_compare(),
        }
    }

    /// Pixels of a line.
    pub(super) fn width(&self) -> usize {
        self.columns * self.dots * self.stretch
    }

    /// The lines from the top.
    pub(super) fn lines(self) -> impl Iterator<Item = Line> {
        let mut line = Line { counter: self.start, row_scan: self.preset_row, split: false, first: true };
        let mut scan = 0;
        (0..self.lines).map(move |y| {
            let shown = line;
            line.first = false;
            scan += 1;
            if scan == self.scans {
                scan = 0;
                line.row_scan += 1;
            }
            // A preset beyond the row's height runs on to the counter's end, 32.
            if line.row_scan == self.row_height || line.row_scan == 32 {
                (line.row_scan, line.first) = (0, true);
                line.counter += self.stride;
            }
            if y == self.line_compare {
                line = Line { counter: 0, row_scan: 0, split: true, first: true };
                scan = 0;
            }
            shown
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Raster = Raster {
        columns: 80,
        dots: 8,
        stretch: 1,
        lines: 8,
        start: 100,
        stride: 80,
        row_height: 2,
        scans: 1,
        preset_row: 0,
        line_compare: 0x3ff,
    };

    fn shown(raster: Raster) -> Vec<(usize, usize)> {
        raster.lines().map(|line| (line.counter, line.row_scan)).collect()
    }

    #[test]
    fn rows_follow_each_other() {
        let rows = [(100, 0), (100, 1), (180, 0), (180, 1), (260, 0), (260, 1), (340, 0), (340, 1)];
        assert_eq!(shown(PLAIN), rows);
        let doubled = Raster { scans: 2, ..PLAIN };
        let rows = [(100, 0), (100, 0), (100, 1), (100, 1), (180, 0), (180, 0), (180, 1), (180, 1)];
        assert_eq!(shown(doubled), rows);
    }

    #[test]
    fn the_counter_starts_again_below_the_line_compare() {
        let split = Raster { line_compare: 2, lines: 6, ..PLAIN };
        assert_eq!(shown(split), [(100, 0), (100, 1), (180, 0), (0, 0), (0, 1), (80, 0)]);
        assert_eq!(split.lines().map(|line| line.split).filter(|split| *split).count(), 3);
        let firsts: Vec<bool> = split.lines().map(|line| line.first).collect();
        assert_eq!(firsts, [true, false, true, true, false, true]);
    }

    #[test]
    fn a_preset_row_scrolls_by_lines() {
        assert_eq!(shown(Raster { preset_row: 1, lines: 3, ..PLAIN }), [(100, 1), (180, 0), (180, 1)]);
        let beyond = Raster { preset_row: 31, lines: 3, ..PLAIN };
        assert_eq!(shown(beyond), [(100, 31), (180, 0), (180, 1)]);
    }
}
