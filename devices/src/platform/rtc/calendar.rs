//! Dates of the Gregorian calendar and seconds since 1970, both ways.

const DAY: i64 = 86_400;

/// A date and time, each part a number as people count: months and days from 1. Parts may be out of
/// their range, as a guest can write them; they then count on into the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DateTime {
    pub(super) century: u8,
    /// 0 to 99.
    pub(super) year: u8,
    pub(super) month: u8,
    pub(super) day: u8,
    pub(super) hour: u8,
    pub(super) minute: u8,
    pub(super) second: u8,
}

impl DateTime {
    /// The moment `seconds` after 1970 began; years 0 to 25599, else the nearest of them.
    pub(super) fn of(seconds: i64) -> DateTime {
        let seconds = seconds.clamp(days_before(0) * DAY, days_before(25_600) * DAY - 1);
        let days = seconds.div_euclid(DAY);
        let of_day = seconds.rem_euclid(DAY);
        // An estimate that is at most a year off, then put right.
        let mut year = 1970 + days * 400 / 146_097;
        if days < days_before(year) {
            year -= 1;
        } else if days >= days_before(year + 1) {
            year += 1;
        }
        let mut day = days - days_before(year);
        let mut month = 1;
        while day >= days_in(year, month) {
            day -= days_in(year, month);
            month += 1;
        }
        DateTime {
            century: byte(year / 100),
            year: byte(year % 100),
            month: byte(month),
            day: byte(day + 1),
            hour: byte(of_day / 3600),
            minute: byte(of_day / 60 % 60),
            second: byte(of_day % 60),
        }
    }

    /// Seconds from the beginning of 1970 to this moment.
    pub(super) fn seconds(self) -> i64 {
        let year = i64::from(self.century) * 100 + i64::from(self.year);
        let month = i64::from(self.month.clamp(1, 12));
        let before: i64 = (1..month).map(|month| days_in(year, month)).sum();
        let days = days_before(year) + before + i64::from(self.day) - 1;
        let minutes = i64::from(self.hour) * 60 + i64::from(self.minute);
        days * DAY + minutes * 60 + i64::from(self.second)
    }

    /// 1 for Sunday to 7 for Saturday.
    pub(super) fn weekday(self) -> u8 {
        // 1970 began on a Thursday.
        byte((self.seconds().div_euclid(DAY) + 4).rem_euclid(7) + 1)
    }
}

/// Days from the beginning of 1970 to the beginning of `year`.
fn days_before(year: i64) -> i64 {
    let last = year - 1;
    let leaps = last.div_euclid(4) - last.div_euclid(100) + last.div_euclid(400);
    (year - 1970) * 365 + leaps - 477
}

fn days_in(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn byte(value: i64) -> u8 {
    u8::try_from(value).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_moments() {
        let moment = |century, year, month, day, hour, minute, second| DateTime {
            century,
            year,
            month,
            day,
            hour,
            minute,
            second,
        };
        assert_eq!(DateTime::of(0), moment(19, 70, 1, 1, 0, 0, 0));
        assert_eq!(DateTime::of(951_782_400), moment(20, 0, 2, 29, 0, 0, 0));
        assert_eq!(DateTime::of(1_234_567_890), moment(20, 9, 2, 13, 23, 31, 30));
        assert_eq!(DateTime::of(4_107_542_400), moment(21, 0, 3, 1, 0, 0, 0));
        assert_eq!(DateTime::of(1_234_567_890).weekday(), 6);
        assert_eq!(DateTime::of(-1), moment(19, 69, 12, 31, 23, 59, 59));
    }

    proptest! {
        #[test]
        fn there_and_back(seconds in -62_000_000_000i64..700_000_000_000) {
            let moment = DateTime::of(seconds);
            prop_assert_eq!(moment.seconds(), seconds);
            prop_assert!((1..=12).contains(&moment.month) && (1..=31).contains(&moment.day));
            prop_assert!((1..=7).contains(&moment.weekday()));
        }

        #[test]
        fn nothing_overflows(parts in prop::array::uniform7(any::<u8>()), seconds in any::<i64>()) {
            let [century, year, month, day, hour, minute, second] = parts;
            let moment = DateTime { century, year, month, day, hour, minute, second };
            let _ = (moment.seconds(), moment.weekday(), DateTime::of(seconds));
        }
    }
}
