//! Text that is no file of ours: encodings, broken YAML.

use super::*;

#[test]
fn a_file_that_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let absent = Config::load(&dir.path().join("absent.yml"), &homes()).unwrap_err();
    assert!(
        absent
            .to_string()
            .ends_with("absent.yml: can't be read: No such file or directory (os error 2)")
    );
    let directory = Config::load(dir.path(), &homes()).unwrap_err();
    assert!(
        directory
            .to_string()
            .ends_with("it holds no *.yml or *.yaml with text in it")
    );
    let large = load(&vec![b'#'; 2 << 20]).unwrap_err();
    assert!(
        large.to_string().contains("more than any configuration"),
        "{large}"
    );
    check_error("", expect!["f.yml: is empty"]);
    check_error(" \n\n", expect!["f.yml: is empty"]);
    check_error(
        "- a\n- b\n",
        expect!["f.yml: is not a mapping of keys to values"],
    );
    check_error(
        "just words\n",
        expect!["f.yml: is not a mapping of keys to values"],
    );
}

#[test]
fn encodings() {
    let with_bom = [b"\xEF\xBB\xBF".as_slice(), NODE.as_bytes()].concat();
    load(&with_bom).unwrap();
    let utf16: Vec<u8> = "\u{feff}scope: x"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let check = |bytes: &[u8], expected: Expect| {
        expected.assert_eq(&load(bytes).unwrap_err().to_string());
    };
    check(&utf16, expect!["f.yml: is UTF-16, save it as UTF-8"]);
    check(
        b"scope: x\nname: \xFF\n",
        expect!["f.yml: line 2: is not UTF-8 here, save the file as UTF-8"],
    );
}

#[test]
fn yaml_that_is_broken() {
    check_error(
        &format!("{NODE}scope: again\n"),
        expect!["f.yml: line 14: duplicate mapping key: scope"],
    );
    check_error(
        "scope: [1, 2\nname: x\n",
        expect!["f.yml: line 2: illegal placement of ':' indicator"],
    );
    check_error(
        "scope: x\n\tname: y\n",
        expect!["f.yml: line 1: while scanning a plain scalar, found a tab"],
    );
    check_error(
        "scope: x\n---\nscope: y\n",
        expect!["f.yml: line 2: holds more than one document"],
    );
    check_error(
        &format!("scope: {}1{}\n", "{a: ".repeat(40), "}".repeat(40)),
        expect!["f.yml: line 1: is nested deeper than any configuration"],
    );
    check_error(
        &(0..30_000)
            .map(|n| format!("k{n}: 1\n"))
            .collect::<String>(),
        expect!["f.yml: line 10000: is larger than any configuration"],
    );
    check_error(
        "scope: *nobody\n",
        expect!["f.yml: line 1: alias references unknown anchor"],
    );
}
