//! The crate stays what it is: values and functions.

/// It computes, and that is all that its dependencies do.
#[test]
fn nothing_that_waits_or_guesses_is_depended_on() {
    let manifest = include_str!("../../Cargo.toml");
    let section = manifest.split_once("\n[dependencies]\n");
    let (_, section) = section.expect("a section");
    let (section, _) = section.split_once("\n[").expect("another section");
    let names: Vec<_> = section
        .lines()
        .filter_map(|line| line.split(['.', ' ', '=']).next())
        .filter(|name| !name.is_empty())
        .collect();
    assert_eq!(names, ["hmac", "sha2", "subtle", "thiserror"]);
}
