//! Messages to VFIO and its answers: numbers in the host's order, `argsz` first, and lists of
//! capabilities (`struct vfio_info_cap_header`) behind what is fixed.

use rustix::io::Errno;

/// No answer is that long; one that says so is not asked for again.
const LARGEST: u32 = 1 << 20;

/// Writes 32 bits at `at`, if they fit.
pub(super) fn put(message: &mut [u8], at: usize, value: u32) {
    if let Some(place) = message.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *place = value.to_le_bytes();
    }
}

/// The 32 bits at `at`.
pub(super) fn word(message: &[u8], at: usize) -> Option<u32> {
    message.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

/// The 64 bits at `at`.
pub(super) fn long(message: &[u8], at: usize) -> Option<u64> {
    message.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

/// A message of these words, with its size in front of them.
pub(super) fn message(words: &[u32]) -> Vec<u8> {
    let size = u32::try_from(4 * (words.len() + 1)).unwrap_or(0);
    [size].iter().chain(words).flat_map(|word| word.to_le_bytes()).collect()
}

/// Asks with room for as much as the kernel then says that it needs.
///
/// `question` is the message as it is asked first; its first word is set here. An answer that is
/// longer than the message does not change it but for its size.
pub(super) fn ask(
    question: &[u8],
    mut ask: impl FnMut(&mut [u8]) -> Result<u32, Errno>,
) -> Result<Vec<u8>, Errno> {
    let mut message = question.to_vec();
    loop {
        let size = u32::try_from(message.len()).map_err(|_| Errno::NOMEM)?;
        put(&mut message, 0, size);
        let done = ask(&mut message);
        let needed = word(&message, 0).unwrap_or(0);
        let short = matches!(done, Ok(_) | Err(Errno::NOSPC)) && needed > size && needed <= LARGEST;
        if !short {
            return done.map(|_| message);
        }
        message = question.to_vec();
        message.resize(needed as usize, 0);
    }
}

/// The capabilities of an answer, as numbers and offsets; `first` is the offset of the first one, or
/// zero, and `fixed` the size of what stands before them.
pub(super) fn capabilities(message: &[u8], first: u32, fixed: usize) -> Vec<(u32, usize)> {
    let mut found = Vec::new();
    let (mut next, mut behind) = (first as usize, fixed);
    // The kernel writes the list in ascending order; one that goes back would have no end.
    while next != 0 && next >= behind {
        let (Some(id), Some(link)) = (word(message, next), word(message, next + 4)) else { break };
        found.push((id & 0xffff, next));
        behind = next + 8;
        next = link as usize;
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_answer_that_does_not_fit_is_asked_for_again() {
        let mut seen = Vec::new();
        let answer = ask(&[0, 0, 0, 0, 7, 0, 0, 0], |message| {
            seen.push(message.to_vec());
            if message.len() < 12 {
                put(message, 0, 12);
            } else {
                put(message, 8, 9);
            }
            Ok(0)
        });
        assert_eq!(answer.unwrap(), [12, 0, 0, 0, 7, 0, 0, 0, 9, 0, 0, 0]);
        assert_eq!(seen, [vec![8, 0, 0, 0, 7, 0, 0, 0], vec![12, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]]);
    }

    #[test]
    fn an_answer_without_end_is_not_asked_for() {
        let mut asked = 0;
        let answer = ask(&[0; 8], |message| {
            asked += 1;
            put(message, 0, u32::MAX);
            Ok(0)
        });
        assert!(answer.is_ok() && asked == 1);
        assert_eq!(ask(&[0; 8], |_| Err(Errno::INVAL)), Err(Errno::INVAL));
    }

    #[test]
    fn a_list_is_followed_to_its_end() {
        let mut answer = message(&[0, 12]);
        answer.extend(message(&[24, 0])); // at 12: capability 12, then the one at 24
        answer.extend(message(&[0])); // at 24: capability 8, the last
        assert_eq!(capabilities(&answer, 12, 12), [(12, 12), (8, 24)]);
        assert_eq!(capabilities(&answer, 0, 12), []);
        assert_eq!(capabilities(&answer, 4, 12), []);
        assert_eq!(capabilities(&answer, 200, 12), []);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_list_with_an_end(bytes: Vec<u8>, first: u32, fixed in 0usize..64) {
            let found = capabilities(&bytes, first, fixed);
            prop_assert!(found.len() <= bytes.len() / 8 + 1);
        }
    }
}
