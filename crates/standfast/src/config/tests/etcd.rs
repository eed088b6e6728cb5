//! Patroni's `etcd3`, and what needs a secret there.

use super::*;

/// The sound file with etcd as its store.
fn on_etcd(section: &str) -> String {
    let raft = "store:\n  raft:\n    join: [127.0.0.1:6000]\n";
    format!("{}{section}\n", altered(raft, ""))
}

fn etcd(section: &str) -> Etcd {
    match sound(&on_etcd(section)).store {
        StoreChoice::Etcd(etcd) => etcd,
        StoreChoice::Raft(raft) => panic!("{raft:?}"),
    }
}

/// Patroni: Configuration | `etcd3` with TLS, users, `hosts`, `host`, `url`, `proxy`, `use_proxies` | works
#[test]
fn etcd_as_patroni_names_it() {
    let members = |section: &str| {
        let members = etcd(section).members;
        let members: Vec<_> = members.iter().map(Endpoint::to_string).collect();
        members.join(" ")
    };
    for (section, expected) in [
        (
            "etcd3: {hosts: ['a:2379', 'b:2379', 'a:2379']}",
            "a:2379 b:2379",
        ),
        ("etcd3: {hosts: 'a:2379, b:1,c'}", "a:2379 b:1 c:2379"),
        (
            "etcd3:\n  hosts:\n  - 10.0.0.1\n  - '[::1]'\n  - '[::2]:1'",
            "10.0.0.1:2379 [::1]:2379 [::2]:1",
        ),
        ("etcd3: {host: 'a:2379'}", "a:2379"),
        ("etcd3: {url: 'http://a:2379/'}", "a:2379"),
        ("etcd3: {proxy: 'http://a:80', hosts: 'b:1'}", "a:80"),
        ("store: {etcd: {hosts: 'a:2379'}}", "a:2379"),
    ] {
        assert_eq!(members(section), expected, "{section}");
    }
    let srv = etcd("etcd3: {srv: example.org., srv_suffix: lab}");
    let named = srv.srv.unwrap();
    assert_eq!(named.domain, "example.org");
    assert_eq!(named.suffix.as_deref(), Some("lab"));
    assert!(srv.members.is_empty() && srv.discover && srv.tls.is_none());
    assert!(etcd("etcd3: {srv: lab, cacert: /ca}").tls.is_some());
    assert_eq!(members("etcd3: {srv: lab, hosts: 'a:1'}"), "a:1");
    assert!(etcd("etcd3: {host: a}").discover);
    assert!(!etcd("etcd3: {hosts: 'a,b', use_proxies: true}").discover);
    assert!(!etcd("etcd3: {proxy: 'http://a:80'}").discover);
    let whole = etcd(
        "etcd3: {hosts: a, protocol: https, cacert: /ca, cert: /c, key: /k, username: u, password: planted-hush}",
    );
    let tls = whole.tls.as_ref().unwrap();
    assert_eq!(tls.authority, Path::new("/ca"));
    assert_eq!(tls.client, Some(("/c".into(), "/k".into())));
    assert!(!format!("{whole:?}").contains("planted"), "{whole:?}");
    assert!(
        etcd("etcd3: {url: 'https://a:1', cacert: /ca}")
            .tls
            .is_some()
    );
    let config = sound(&on_etcd("store: {secret_file: /s}\netcd3: {host: a}"));
    assert_eq!(config.secret_file, Path::new("/s"));
    assert!(config.raft().is_none());
}

#[test]
fn etcd_that_could_not_work() {
    for (section, expected) in [
        (
            "etcd3: {}",
            expect![
                "f.yml: line 11: etcd3.hosts: is missing: the members of etcd, as a list of HOST:PORT"
            ],
        ),
        (
            "etcd3: {hosts: []}",
            expect![
                "f.yml: line 11: etcd3.hosts: is missing: the members of etcd, as a list of HOST:PORT"
            ],
        ),
        (
            "etcd3: {hosts: 'a:b'}",
            expect![[
                r#"f.yml: line 11: etcd3.hosts: port "b" is not a number between 1 and 65535"#
            ]],
        ),
        (
            "etcd3: {hosts: '0.0.0.0:1'}",
            expect![[r#"f.yml: line 11: etcd3.hosts: "0.0.0.0:1" names no machine"#]],
        ),
        (
            "etcd3: {url: 'a:2379'}",
            expect!["f.yml: line 11: etcd3.url: must begin with http:// or https://"],
        ),
        (
            "etcd3: {url: 'http://u:planted@a:2379'}",
            expect![
                "f.yml: line 11: etcd3.url: must not hold a user: there are username and password"
            ],
        ),
        (
            "etcd3: {srv: 'http://example.org'}",
            expect![[r#"f.yml: line 11: etcd3.srv: "http://example.org" is no domain"#]],
        ),
        (
            "etcd3: {srv: example.org, srv_suffix: a.b}",
            expect![[r#"f.yml: line 11: etcd3.srv_suffix: "a.b" is no part of a name in DNS"#]],
        ),
        (
            "etcd3: {srv: example.org, protocol: https}",
            expect![
                "f.yml: line 11: etcd3.cacert: is missing: the certificate in PEM that signed those of etcd; for a public authority, the system's bundle"
            ],
        ),
        (
            "etcd3: {host: a, protocol: ftp}",
            expect![[r#"f.yml: line 11: etcd3.protocol: "ftp" is neither http nor https"#]],
        ),
        (
            "etcd3: {host: a, protocol: https}",
            expect![
                "f.yml: line 11: etcd3.cacert: is missing: the certificate in PEM that signed those of etcd; for a public authority, the system's bundle"
            ],
        ),
        (
            "etcd3: {host: a, protocol: https, cacert: ca.pem}",
            expect![[
                r#"f.yml: line 11: etcd3.cacert: "ca.pem" is relative, write an absolute path"#
            ]],
        ),
        (
            "etcd3: {host: a, protocol: https, cacert: /ca, cert: /c}",
            expect!["f.yml: line 11: etcd3.key: is missing: the private key of cert, in PEM"],
        ),
        (
            "etcd3: {host: a, username: u}",
            expect![
                "f.yml: line 11: etcd3.password: is missing: etcd lets nobody in by the name alone"
            ],
        ),
        (
            "etcd3: {host: a}\netcd: {host: a}",
            expect!["f.yml: line 12: etcd: either this or etcd3, not both"],
        ),
    ] {
        check_error(&on_etcd(section), expected);
    }
    check_warning(
        &on_etcd("etcd: {host: a}"),
        expect![
            "line 11: etcd: is served by etcd's v3 interface: its v2 interface, which Patroni uses for this section, is not supported; nodes that Patroni still runs must use etcd3 as well"
        ],
    );
    check_warning(
        &on_etcd("etcd3: {host: a, cacert: /ca, hots: b}"),
        expect![[r#"
            line 11: etcd3.hots: unknown key, did you mean `host`?
            line 11: etcd3.cacert: has no effect without `protocol: https`"#]],
    );
    let monitor =
        "scope: d\nname: m\nwitness: true\nrestapi: {listen: '127.0.0.1:6000'}\netcd3: {host: a}\n";
    check_error(
        monitor,
        expect![
            "f.yml: line 3: witness: a witness votes in store.raft: a cluster that has etcd needs none"
        ],
    );
}

#[test]
fn a_file_of_patroni_needs_no_secret_beside_its_passwords() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    let text = |passwords: &str| {
        let store = format!(
            "store: {{secret_file: {}}}\netcd3: {{host: a}}",
            secret.display()
        );
        let text = on_etcd(&store);
        text.replace("  data_dir", &format!("{passwords}  data_dir"))
    };
    let both = "  authentication: {superuser: {password: one}, replication: {password: two}}\n";
    let of = |text: &str| ClusterSecret::of(&sound(text)).map(|it| it.password_of("x"));
    let derived = of(&text(both)).unwrap();
    assert_eq!(of(&text(both)).unwrap(), derived);
    assert_ne!(of(&text(&both.replace("two", "three"))).unwrap(), derived);
    let one = "  authentication: {superuser: {password: one}}\n";
    assert!(of(&text(one)).unwrap_err().to_string().contains("secret"));
    // A secret that is there counts, and one that others can read is no absent one.
    std::fs::write(&secret, "0123456789abcdef0123456789abcdef").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o644)).unwrap();
    of(&text(both)).unwrap_err();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_ne!(of(&text(both)).unwrap(), derived);
}
