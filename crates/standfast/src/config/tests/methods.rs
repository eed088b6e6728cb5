//! Programs that bring a data directory.

use super::*;
use postgres::{Copying, Recovery};

fn founding(method: &str) -> String {
    altered(
        "    synchronous_mode: quorum\n",
        &format!("    synchronous_mode: quorum\n{method}"),
    )
}

#[test]
fn what_restores_is_told_as_patroni_tells_it() {
    let text = founding(
        "  method: walg
  walg:
    command: /bin/restore 'two words'
    threads: 4
    verify: true
    recovery_conf: {restore_command: fetch %f %p, recovery_target_inclusive: false}
",
    );
    check_warning(&text, expect![[""]]);
    let (config, _) = load(text.as_bytes()).unwrap();
    let data_dir = config.postgresql.unwrap().data_dir.display().to_string();
    let restore = config.bootstrap.restore.unwrap();
    let expected = [
        "/bin/restore",
        "two words",
        &format!("--scope={}", config.scope),
        &format!("--datadir={data_dir}"),
        "--threads=4",
        "--verify=True",
    ];
    assert_eq!(restore.command, expected);
    let asked = [
        ("recovery_target_inclusive", "off"),
        ("restore_command", "fetch %f %p"),
    ];
    let asked = asked.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(restore.recovery, Recovery::Given(asked.into()));

    let text = founding(
        "  method: copy\n  copy: {command: cp, no_params: yes, keep_existing_recovery_conf: yes, from: x}\n",
    );
    let restore = load(text.as_bytes()).unwrap().0.bootstrap.restore.unwrap();
    assert_eq!(restore.command, ["cp", "--from=x"]);
    assert_eq!(restore.recovery, Recovery::Kept);
}

#[test]
fn a_method_without_its_program_is_an_error() {
    check_error(
        &founding("  method: walg\n  wal-g: {command: /bin/x}\n"),
        expect![[r#"
            f.yml: line 11: bootstrap.method: "walg" needs a section of its own beside it, with the `command` that restores the backup
            f.yml: line 12: bootstrap.wal-g: unknown key, did you mean `walg`?"#]],
    );
}

#[test]
fn what_copies_is_told_as_patroni_tells_it() {
    let text = format!(
        "{NODE}  create_replica_methods: [walg, gone, basebackup, late]
  walg: {{command: /bin/fetch -q, threads: 2, keep_data: true, no_leader: 1}}
  late: {{command: cp, no_params: on, from: x}}
"
    );
    check_warning(
        &text,
        expect![[r#"
        line 14: postgresql.create_replica_methods: "gone" is left out: it needs a section of its own, postgresql.gone, with its `command`
        line 14: postgresql.create_replica_methods: "late" is never tried: pg_basebackup stands before it"#]],
    );
    let (config, _) = load(text.as_bytes()).unwrap();
    let postgresql = config.postgresql.unwrap();
    let [
        Copying::Program(walg),
        Copying::Basebackup,
        Copying::Program(late),
    ] = postgresql.copies.as_slice()
    else {
        panic!("{:?}", postgresql.copies);
    };
    let data_dir = format!("--datadir={}", postgresql.data_dir.display());
    let scope = format!("--scope={}", config.scope);
    let expected = [
        "/bin/fetch",
        "-q",
        &scope,
        "--role=replica",
        &data_dir,
        "--threads=2",
    ];
    assert_eq!(walg.command, expected);
    assert!(walg.keep_data && !walg.no_params);
    assert_eq!(
        (late.command.as_slice(), late.no_params),
        (["cp".to_owned()].as_slice(), true)
    );
}
