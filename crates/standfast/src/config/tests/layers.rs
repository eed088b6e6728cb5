//! Files over files, and the environment over them.

use super::*;

fn environment(pairs: &[(&str, &str)]) -> Environment {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// Files of a directory, by name, and the environment.
fn load_all(
    files: &[(&str, &str)],
    pairs: &[(&str, &str)],
) -> Result<(Config, Vec<String>), String> {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let file = dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let loaded = Config::load_with(dir.path(), &homes(), &environment(pairs));
    let named = |text: String| text.replace(&dir.path().display().to_string(), "dir");
    let (config, warnings) = loaded.map_err(|error| named(error.to_string()))?;
    Ok((
        config,
        warnings.iter().map(|it| named(it.to_string())).collect(),
    ))
}

/// Patroni: Configuration | `patroni.yml`, a directory of files | works
#[test]
fn the_files_of_a_directory_lie_over_each_other_by_name() {
    let first = NODE.replace(
        "  data_dir: /srv/a\n",
        "  data_dir: /srv/a\n  pg_hba: [local all all peer, host all all all md5]\n  parameters: {work_mem: 1MB, jit: on}\n",
    );
    let files = [
        (
            "20-node.yaml",
            "name: b\npostgresql:\n  pg_hba: [local all all trust]\n  parameters:\n    jit: off\n",
        ),
        ("10-all.yml", first.as_str()),
        ("30-empty.yml", "# nothing yet\n"),
        ("40-other.conf", "name: no\n"),
    ];
    let (config, warnings) = load_all(&files, &[]).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    let pg = config.postgresql.as_ref().unwrap();
    assert_eq!(config.name.as_str(), "b");
    assert_eq!(pg.pg_hba, ["local all all trust"]);
    assert_eq!(
        (
            pg.parameters["work_mem"].as_str(),
            pg.parameters["jit"].as_str()
        ),
        ("1MB", "off")
    );
}

#[test]
fn a_later_file_takes_a_key_away() {
    let files = [
        ("1.yml", NODE),
        ("2.yml", "bootstrap: {dcs: {ttl: 5}}\n"),
        ("3.yml", "bootstrap:\n  dcs:\n    ttl:\n"),
    ];
    let (config, _) = load_all(&files, &[]).unwrap();
    assert!(!config.bootstrap.dcs.0.contains_key("ttl"));
}

#[test]
fn a_complaint_names_its_file_and_the_line_in_it() {
    let files = [
        ("1.yml", NODE),
        (
            "2.yml",
            "# two\n\ntags:\n  nofailover: perhaps\nrestapi: 5\n",
        ),
    ];
    assert_eq!(
        load_all(&files, &[]).unwrap_err(),
        "dir: 2.yml: line 4: tags.nofailover: \"perhaps\" is not true or false\n\
         dir: 2.yml: line 5: restapi: 5 is not a mapping of keys to values\n\
         dir: 2.yml: line 5: restapi.listen: is missing: HOST:PORT of the REST API, such as 127.0.0.1:8008"
    );
    let (_, warnings) = load_all(&[("1.yml", NODE), ("2.yml", "\n\nnamspace: x\n")], &[]).unwrap();
    assert_eq!(
        warnings,
        ["2.yml: line 3: namspace: unknown key, did you mean `namespace`?"]
    );
    let broken = load_all(&[("1.yml", NODE), ("2.yml", "a: 1\nb: *nobody\n")], &[]);
    assert_eq!(
        broken.unwrap_err(),
        "dir: 2.yml: line 2: alias references unknown anchor"
    );
}

/// Patroni: Configuration | `PATRONI_…` variables | works; `STANDFAST_…` wins; Kubernetes, Consul, ZooKeeper,
///   Exhibitor and Raft aside
#[test]
fn the_environment_beats_the_file_and_ours_beats_patronis() {
    let (config, warnings) = load_all(
        &[("a.yml", NODE)],
        &[
            ("PATRONI_NAME", "from-patroni"),
            ("STANDFAST_NAME", "from-standfast"),
            ("PATRONI_SCOPE", "other"),
            ("PATRONI_NAMESPACE", "/ns/"),
            ("PATRONI_POSTGRESQL_DATA_DIR", "/srv/b"),
            ("PATRONI_POSTGRESQL_LISTEN", "127.0.0.1:5433"),
            ("PATRONI_REPLICATION_USERNAME", "repl"),
            ("PATRONI_REPLICATION_PASSWORD", "planted-hush"),
            ("PATRONI_RESTAPI_USERNAME", "admin"),
            ("PATRONI_RESTAPI_PASSWORD", "planted-too"),
            ("PATRONI_LOG_LEVEL", "DEBUG"),
            ("PATRONI_CTL_INSECURE", ""),
            ("PATRONICTL_CONFIG_FILE", "/elsewhere"),
            ("STANDFAST_SECRET_FILE", "/nowhere"),
        ],
    )
    .unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    let pg = config.postgresql.as_ref().unwrap();
    assert_eq!(config.name.as_str(), "from-standfast");
    assert_eq!(
        (config.scope.as_str(), config.namespace.as_str()),
        ("other", "ns")
    );
    assert_eq!(
        (pg.data_dir.as_path(), pg.port),
        (Path::new("/srv/b"), 5433)
    );
    assert_eq!(pg.replication.username, "repl");
    assert_eq!(
        pg.replication.password.as_ref().unwrap().expose(),
        "planted-hush"
    );
    assert_eq!(
        config.restapi.authentication.as_ref().unwrap().username,
        "admin"
    );
    assert_eq!(config.log.level, LogLevel::Debug);
}

#[test]
fn etcd_can_come_from_the_environment_alone() {
    let raft = "store:\n  raft:\n    join: [127.0.0.1:6000]\n";
    let (config, warnings) = load_all(
        &[("a.yml", &altered(raft, ""))],
        &[
            ("PATRONI_ETCD3_HOSTS", "'a:2379','b:2379'"),
            ("PATRONI_ETCD3_PROTOCOL", "https"),
            ("PATRONI_ETCD3_CACERT", "/ca"),
            ("PATRONI_ETCD3_USERNAME", "u"),
            ("PATRONI_ETCD3_PASSWORD", "p"),
            ("PATRONI_ETCD3_USE_PROXIES", "on"),
        ],
    )
    .unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    let StoreChoice::Etcd(etcd) = &config.store else {
        panic!("{:?}", config.store)
    };
    assert_eq!((etcd.members.len(), etcd.discover), (2, false));
    assert!(etcd.tls.is_some() && etcd.login.is_some());
}

#[test]
fn what_is_wrong_in_the_environment_is_named_by_its_variable_and_not_repeated() {
    let error = load_all(
        &[("a.yml", NODE)],
        &[
            ("PATRONI_RESTAPI_LISTEN", "nowhere"),
            ("PATRONI_SUPERUSER_PASSWORD", "two\nlines-planted"),
        ],
    )
    .unwrap_err();
    assert_eq!(
        error,
        "dir: PATRONI_RESTAPI_LISTEN: restapi.listen: \"nowhere\" has no port, write HOST:PORT\n\
         dir: PATRONI_SUPERUSER_PASSWORD: postgresql.authentication.superuser.password: must not hold line breaks"
    );
    let (_, warnings) = load_all(
        &[("a.yml", NODE)],
        &[
            ("PATRONI_POSTGRESQL_DATADIR", "/x"),
            ("PATRONI_KUBERNETES_LABELS", "{}"),
            ("PATRONI_LOG_TRACEBACK_LEVEL", "ERROR"),
        ],
    )
    .unwrap();
    assert_eq!(
        warnings,
        [
            "PATRONI_LOG_TRACEBACK_LEVEL: log.traceback_level: has no effect in this version",
            "PATRONI_KUBERNETES_LABELS: this variable has no effect",
            "PATRONI_POSTGRESQL_DATADIR: unknown variable, did you mean PATRONI_POSTGRESQL_DATA_DIR?",
        ]
    );
}

#[test]
fn the_whole_configuration_can_be_one_variable() {
    let text = altered("name: a", "name: elsewhere\ncolour: blue");
    let (config, warnings) =
        load_all(&[("a.yml", NODE)], &[("PATRONI_CONFIGURATION", &text)]).unwrap();
    assert_eq!(config.name.as_str(), "elsewhere");
    assert_eq!(
        warnings,
        ["PATRONI_CONFIGURATION: line 3: colour: unknown key, it has no effect"]
    );
}
