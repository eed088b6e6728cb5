use super::*;

/// RFC 7677 §3.
const CLIENT_NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
const SERVER_FIRST: &[u8] = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                              s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

fn keys() -> Keys {
    Keys::derive(b"pencil", b"0123456789abcdef", 32)
}

fn verifier() -> Verifier {
    Verifier::of(&keys(), b"0123456789abcdef".to_vec(), 32)
}

/// Both sides, with what each has of channel binding, and a password.
fn exchange(client: Binding<'_>, server: Offer<'_>, password: &[u8]) -> Result<Keys, ScramError> {
    let client = Client::begin(client, "abc")?;
    let (first, server) = Server::begin(&client.first(), server, verifier(), "def")?;
    let challenge = client.challenged(&first, 100)?;
    let keys = Keys::derive(password, challenge.salt(), challenge.iterations());
    let answer = challenge.answer(&keys);
    let accepted = server.finish(&answer.message)?;
    answer.check(&accepted.message)?;
    Ok(accepted.keys)
}

#[test]
fn keys_are_those_of_the_rfc() {
    let client = Client::begin(Binding::Impossible, CLIENT_NONCE).unwrap();
    let challenge = client.challenged(SERVER_FIRST, 4096).unwrap();
    let keys = Keys::derive(b"pencil", challenge.salt(), challenge.iterations());
    // The RFC's messages name the user, PostgreSQL's do not: its signatures differ, so they are
    // made here from its own text.
    let text: &[u8] = b"n=user,r=rOprNGfwEbeRWgbNEkqO,";
    let last: &[u8] = b",c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    let signed = [text, SERVER_FIRST, last];
    let signature = keys::hmac(&keys::hash(&keys.client_key), &signed);
    let proof = keys::xor(keys.client_key, &signature);
    let known = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    assert_eq!(base64::encode(&proof), known);
    let known = "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
    let signature = keys::hmac(&keys.server_key, &signed);
    assert_eq!(base64::encode(&signature), known);
}

#[test]
fn who_knows_the_password_is_accepted_and_gives_the_keys_away() {
    for (client, server) in [
        (Binding::Impossible, Offer::Plain),
        (Binding::Impossible, Offer::Declined),
        (Binding::NotOffered, Offer::Plain),
        (Binding::EndPoint(b"hash"), Offer::Chosen(b"hash")),
    ] {
        let learnt = exchange(client, server, b"pencil");
        assert_eq!(learnt, Ok(keys()), "{client:?} {server:?}");
        let wrong = exchange(client, server, b"Pencil");
        assert_eq!(wrong, Err(ScramError::WrongProof), "{client:?} {server:?}");
    }
}

#[test]
fn an_offer_that_somebody_took_away_is_noticed() {
    for (client, server) in [
        (Binding::NotOffered, Offer::Declined),
        (Binding::Impossible, Offer::Chosen(b"hash")),
        (Binding::NotOffered, Offer::Chosen(b"hash")),
        (Binding::EndPoint(b"hash"), Offer::Plain),
        (Binding::EndPoint(b"other"), Offer::Chosen(b"hash")),
    ] {
        let refused = exchange(client, server, b"pencil");
        assert_eq!(refused, Err(ScramError::Binding), "{client:?} {server:?}");
    }
}

#[test]
fn a_server_that_does_not_know_the_verifier_is_not_believed() {
    let client = Client::begin(Binding::Impossible, "abc").unwrap();
    let challenge = client.challenged(b"r=abcdef,s=AAAA,i=1", 1).unwrap();
    let answer = challenge.answer(&keys());
    let malformed = Err(ScramError::Malformed("the signature"));
    assert_eq!(answer.check(b"v=AAAA"), Err(ScramError::WrongProof));
    assert_eq!(answer.check(b"v=????"), malformed);
    assert_eq!(answer.check(b""), malformed);
    assert_eq!(answer.check(b"e=invalid-proof"), Err(ScramError::Refused));
}

#[test]
fn a_challenge_is_bounded_and_ours() {
    let challenged = |text: &[u8]| {
        let client = Client::begin(Binding::Impossible, "abc").unwrap();
        client.challenged(text, 4096).map(|_| ())
    };
    assert_eq!(challenged(b"r=abcd,s=AAAA,i=4096"), Ok(()));
    let too_many = Err(ScramError::TooManyIterations(4097));
    assert_eq!(challenged(b"r=abcd,s=AAAA,i=4097"), too_many);
    for foreign in [
        &b"r=xyz,s=AAAA,i=1"[..],
        b"r=abc,s=AAAA,i=1",
        b"r=ab,s=AAAA,i=1",
    ] {
        assert_eq!(challenged(foreign), Err(ScramError::WrongProof));
    }
    for malformed in [
        &b""[..],
        b"r=",
        b"r=abcd",
        b"r=abcd,s=,i=1",
        b"r=abcd,s=A,i=1",
        b"r=abcd,s=AAAA",
        b"r=abcd,s=AAAA,i=",
        b"r=abcd,s=AAAA,i=0",
        b"r=abcd,s=AAAA,i=-1",
        b"r=abcd,s=AAAA,i=+1",
        b"r=abcd,s=AAAA,i=99999999999",
        b"m=x,r=abcd,s=AAAA,i=1",
        b"r=abc\xffd,s=AAAA,i=1",
    ] {
        let refused = challenged(malformed);
        let shown = malformed.escape_ascii();
        assert!(
            matches!(refused, Err(ScramError::Malformed(_))),
            "{shown}: {refused:?}"
        );
    }
}

#[test]
fn odd_first_messages_are_refused() {
    let begin = |text: &[u8]| Server::begin(text, Offer::Plain, verifier(), "def").map(|it| it.0);
    assert!(begin(b"n,,n=,r=abc").is_ok());
    assert!(begin(b"n,,n=somebody,r=abc,x=extension").is_ok());
    for odd in [
        &b""[..],
        b"n",
        b"n,",
        b"n,,",
        b"n,a=other,n=,r=abc",
        b"n,,m=x,n=,r=abc",
        b"n,,r=abc",
        b"n,,n=,r=",
        b"n,,n=",
        b"x,,n=,r=abc",
        b"p=tls-unique,,n=,r=abc",
        b"n,,n=,r=a\x00b",
    ] {
        assert!(begin(odd).is_err(), "{}", odd.escape_ascii());
    }
}

#[test]
fn odd_last_messages_are_refused() {
    let begun = Server::begin(b"n,,n=,r=abc", Offer::Plain, verifier(), "def");
    let (_, server) = begun.unwrap();
    for odd in [
        &b""[..],
        b"c=biws,r=abcdef",
        b"c=biws,r=abcdef,p=",
        b"c=biws,r=abcdef,p=AAAA",
        b"c=biws,r=abcde,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        b"c=eSws,r=abcdef,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        b"c=biws,r=abcdef,m=x,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        b"c=biws,r=abcdef,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    ] {
        assert!(server.finish(odd).is_err(), "{}", odd.escape_ascii());
    }
}

#[test]
fn a_stored_verifier_is_read() {
    let stored = format!(
        "SCRAM-SHA-256$32:{}${}:{}",
        base64::encode(b"0123456789abcdef"),
        base64::encode(&verifier().stored_key),
        base64::encode(&verifier().server_key),
    );
    assert_eq!(Verifier::parse(&stored), Ok(verifier()));
    for odd in [
        "",
        "md5abc",
        "SCRAM-SHA-256$0:AAAA$AAAA:AAAA",
        "SCRAM-SHA-256$1:AAAA$AAAA:AAAA",
    ] {
        assert!(Verifier::parse(odd).is_err(), "{odd}");
    }
}

#[test]
fn no_secret_is_shown() {
    let shown = format!("{:?} {:?}", keys(), verifier());
    assert_eq!(shown, "Keys(hidden) Verifier(hidden)");
}
