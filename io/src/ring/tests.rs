use super::*;

fn writes(lens: &[usize]) -> Vec<Write> {
    lens.iter().map(|&len| Write { at: 0, bytes: [0; 8], len }).collect()
}

#[test]
fn a_chain_ends_at_the_first_write_that_is_not_whole() {
    let three = writes(&[1, 4, 2]);
    let canceled = -Errno::CANCELED.raw_os_error();
    assert_eq!(first_broken(&three, &[1, 4, 2]), None);
    assert_eq!(first_broken(&three, &[1, 2, canceled]), Some((1, Broken::Failed)));
    assert_eq!(
        first_broken(&three, &[-Errno::IO.raw_os_error(), canceled, canceled]),
        Some((0, Broken::Failed))
    );
    assert_eq!(first_broken(&three, &[1, -Errno::INTR.raw_os_error(), canceled]), Some((1, Broken::NotDone)));
    assert_eq!(first_broken(&three, &[1, 4, i32::MIN]), Some((2, Broken::Failed)));
}
