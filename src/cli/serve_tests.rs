use super::*;

#[test]
fn without_settings_the_limits_are_the_doors_own() {
    assert_eq!(limits_of(&SocketLimits::default()), Limits::default());
}
